"""sum_logits, sum_features, gated and film against their formulas, one row at a time."""

import pytest
import torch
from torch import Tensor

from cache.errors import MmfuseError
from pipelines.catalog import find
from pipelines.contracts import head as contracts
from pipelines.contracts import synthetic
from pipelines.features.table import Batch
from pipelines.fusion.head import FusionHead

INPUTS = synthetic.inputs((5, 4, 3))


def head(method: str, **options: object) -> FusionHead:
    """A small head on raw features, in double precision and eval mode."""
    torch.manual_seed(0)
    sizes = {"width": 6, "input_norm": "none"}
    return find("methods", method).build(INPUTS, **{**sizes, **options}).double().eval()


def batch() -> Batch:
    """Twelve rows with absent cells."""
    return synthetic.double(synthetic.batch(INPUTS, 12))


def projections(model: FusionHead, data: Batch, row: int, prefix: str = "") -> list[Tensor | None]:
    """W_m x_m + b_m of each stream of a row, None where it is absent."""
    found = []
    for number, name in enumerate(INPUTS.names):
        part = model.get_submodule(f"{prefix}stems.{name}.linear")
        x = data.features[name][row]
        found.append(part.weight @ x + part.bias if data.present[row, number] else None)
    return found


def test_sum_logits_adds_one_classifier_a_stream():
    """Σ (W_m ReLU(h_m) + b_m) over what is present, each stream with its own bias."""
    model, data = head("sum_logits"), batch()
    fused = model(data)
    for row in range(12):
        want = torch.zeros(3).double()
        for name, h in zip(INPUTS.names, projections(model, data, row), strict=True):
            if h is not None:
                part = model.maps[name]
                want = want + part.weight @ torch.relu(h) + part.bias
        torch.testing.assert_close(fused.logits[row], want)
    torch.testing.assert_close(fused.stream_logits.sum(1), fused.logits)


def test_sum_features_adds_before_one_classifier():
    """W ReLU(Σ h_m) + b over what is present."""
    model, data = head("sum_features"), batch()
    logits = model(data).logits
    for row in range(12):
        there = [h for h in projections(model, data, row) if h is not None]
        want = model.out.weight @ torch.relu(torch.stack(there).sum(0)) + model.out.bias
        torch.testing.assert_close(logits[row], want)


def tokens_of(model: FusionHead, data: Batch, row: int) -> list[Tensor]:
    """Projections with each stream's placeholder where it is absent."""
    made = projections(model, data, row, "tokens.")
    return [model.tokens.placeholder[m] if h is None else h for m, h in enumerate(made)]


@pytest.mark.parametrize("gate", ["", "m1"])
@pytest.mark.parametrize("variant", ["gated", "bilinear", "bilinear_gated"])
def test_gated_is_the_product_of_a_gate_and_the_others(variant, gate):
    """W(σ(x) ⊙ y), W(x ⊗ y), W(σ(x) ⊗ y); y is the mean of all that do not gate."""
    model, data = head("gated", variant=variant, gate=gate, rank=4), batch()
    logits = model(data).logits
    for row in range(12):
        tokens = tokens_of(model, data, row)
        x = tokens.pop(1 if gate else 0)
        y = torch.stack(tokens).mean(0)
        x = x if variant == "bilinear" else x.sigmoid()
        product = x * y if variant == "gated" else torch.outer(x, y).flatten()
        torch.testing.assert_close(logits[row], model.out.weight @ product + model.out.bias)


@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("condition", ["", "e2/m2"])
def test_film_scales_and_shifts_the_others(condition, plus_one):
    """W(γ ⊙ y + β) with [γ, β] from the condition; 1 + γ if asked."""
    model, data = head("film", condition=condition, plus_one=plus_one), batch()
    logits = model(data).logits
    for row in range(12):
        tokens = tokens_of(model, data, row)
        x = tokens.pop(2 if condition else 0)
        both = model.modulate.weight @ x + model.modulate.bias
        made = (both[:6] + plus_one) * torch.stack(tokens).mean(0) + both[6:]
        torch.testing.assert_close(logits[row], model.out.weight @ made + model.out.bias)


@pytest.mark.parametrize(("method", "option"), [("gated", "gate"), ("film", "condition")])
def test_a_stream_that_is_not_there_cannot_lead(method, option):
    """The error names the streams there are."""
    with pytest.raises(MmfuseError, match=r"no stream named 'audio'.*e0/m0, e1/m1, e2/m2"):
        head(method, **{option: "audio"})


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("sum_logits", "sum_features", "gated", "film", "clarga")
    ],
)
def test_heads_take_recurrent_stems(method):
    """With a GRU, shared, in front of every stream with frames the contract still holds."""
    options = {"stem": "gru", "share_stems": True, "width": 8}
    seen = contracts.check(method, options, training=False)
    assert all(one.passed for one in seen), [one.detail for one in seen if not one.passed]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["bilinear", "bilinear_gated"])
def test_the_other_gates_meet_the_contract(variant):
    """Every variant, not only the default one, passes every check that needs no training."""
    seen = contracts.check("gated", {"variant": variant}, training=False)
    assert all(one.passed for one in seen), [one.detail for one in seen if not one.passed]
