"""Every method meets the contract, and the contract notices heads that do not."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cache.errors import MmfuseError
from pipelines import catalog
from pipelines.contracts import head as contracts
from pipelines.contracts import head_checks, head_learning
from pipelines.contracts.head_probe import HeadUnderTest
from pipelines.counter_rng import dropout
from pipelines.features.table import Batch
from pipelines.fusion import layers
from pipelines.fusion.head import Fused, FusionHead, Inputs

METHODS = sorted(catalog.entries("methods"))
TRAINED = {"concat", "sum_logits"}  # in every run of the tests; the others in slow ones


@pytest.mark.parametrize("check", head_checks.CHECKS, ids=lambda p: p.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_every_check(method, check):
    """The folder is listed, so a new method is checked the moment its file exists."""
    seen = contracts.run_check(check, contracts.head_under_test(method))
    assert seen.passed, seen.detail


@pytest.mark.parametrize("check", head_learning.CHECKS, ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    "method",
    [name if name in TRAINED else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_every_method_learns_what_can_be_learnt(method, check):
    """Trained on synthetic tasks it comes within a point of the best that is possible."""
    seen = contracts.run_check(check, contracts.head_under_test(method))
    assert seen.passed, seen.detail


QUICK_CHECKS = (
    head_checks.gradients_reach,
    head_checks.nothing_absent_is_seen,
    head_checks.finite_on_strange_data,
    head_checks.replicas_are_heads,
)
OPTIONS: list[tuple[str, dict[str, object]]] = [
    ("clarga", {"score": "gat", "attn_per_layer": True, "activation": "gelu"}),
    ("clarga", {"ablation": "mean", "mask_token": "each"}),
    ("mla", {"order": "previous", "p_norm": "none", "missing": "zeros"}),
    ("mla", {"p_norm": "fro", "reset": "cycle", "augment_bias": True}),
    ("ef_cl", {"fill": "learned", "drop_duplicates_above": 0.999}),
    ("ef_cl", {"fill": "mean", "contrast": False, "input_norm": "zscore"}),
    ("trml", {"translator": "hub", "temporal": "mean"}),
    ("trml", {"virtual": "mean", "rho": 0.0}),
]
MORE_OPTIONS: list[tuple[str, dict[str, object]]] = [
    ("clarga", {"ablation": "uniform", "weighting": "flat", "both_ways": True}),
    ("clarga", {"ablation": "no_residual", "readout_missing": False, "layer_dropout": 0.1}),
    ("clarga", {"ablation": "no_contrast"}),
    ("mla", {"hgm": False, "df": False}),
    ("mla", {"hgm": False, "shared": False, "encoder": "linear"}),
    ("mla", {"preset": "official"}),
    ("mla", {"alpha_schedule": "decay", "reset": "epoch"}),
    ("ef_cl", {"preset": "official"}),
    ("trml", {"matching": "mse", "detach": True, "both_ways": False}),
]


@pytest.mark.parametrize(
    ("method", "options"),
    [*OPTIONS, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE_OPTIONS)],
    ids=lambda x: str(x).replace(" ", ""),
)
def test_options_keep_the_contract_too(method, options):
    """An ablation that leaves a dead parameter behind, or sees what is absent, is noticed."""
    subject = contracts.head_under_test(method, options)
    for check in QUICK_CHECKS:
        seen = contracts.run_check(check, subject)
        assert seen.passed, seen.detail


class Plain(FusionHead):
    """A good head with one place where each bad head below goes wrong."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.tokens = layers.Tokens(inputs, 6)
        self.out = nn.Linear(6 * len(inputs.streams), inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Concatenate, drop, decide."""
        hidden = self.mixed(self.tokens(batch).flatten(1), batch)
        hidden = dropout(hidden, 0.2, batch.numbers, "plain", training=self.training)
        return Fused(self.out(hidden))

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Where the bad ones differ."""
        return hidden


class Idle(Plain):
    """Has a parameter that nothing uses."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.unused = nn.Parameter(torch.zeros(3))


class Peeking(Plain):
    """Multiplies by presence, so NaN behind absent comes through."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """0 × NaN is NaN."""
        total = sum(x.mean(-1) * batch.present[:, m] for m, x in enumerate(_pooled(batch)))
        return hidden + torch.as_tensor(total)[:, None]


class Dividing(Plain):
    """Divides by the number of present streams."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Something over 0 where nothing is present."""
        return hidden / batch.present.sum(1, keepdim=True)


class Exploding(Plain):
    """Exponentiates what may be large."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """exp(100) is infinite in single precision."""
        return hidden + hidden.exp() * 1e-3


class Crowded(Plain):
    """Normalises over the batch in evaluation too."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The mean of the neighbours."""
        return hidden - hidden.mean(0)


class Spread(Plain):
    """Divides by the spread of its batch in training."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The unbiased standard deviation of one row is NaN."""
        return hidden / hidden.std(0) if self.training else hidden


class Forgetful(Plain):
    """Keeps state that is neither parameter nor buffer."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.hidden_state = torch.randn(())

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """A number that the state dict does not hold."""
        return hidden + self.hidden_state


class Gambling(Plain):
    """Draws from global random state."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Noise nobody passed in."""
        return hidden + torch.randn_like(hidden) if self.training else hidden


class Branching(Plain):
    """Looks at values to decide what to compute."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """A Python branch on data, which vmap cannot take."""
        return hidden * 2 if float(batch.present.sum()) > 3 else hidden


class Homebound(Plain):
    """Makes a tensor on the default device, wherever the batch is."""

    def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Fine on a CPU alone."""
        return hidden + torch.linspace(0, 1, hidden.shape[1])


def _pooled(batch: Batch) -> list[Tensor]:
    return [layers.pooled(x, batch.frame_present.get(n)) for n, x in batch.features.items()]


BAD: list[tuple[type[Plain], Callable[[HeadUnderTest], str]]] = [
    (Idle, head_checks.gradients_reach),
    (Peeking, head_checks.nothing_absent_is_seen),
    (Dividing, head_checks.finite_under_every_pattern),
    (Exploding, head_checks.finite_on_strange_data),
    (Spread, head_checks.one_row_is_a_batch),
    (Crowded, head_checks.neighbours_do_not_matter),
    (Forgetful, head_checks.state_makes_the_round_trip),
    (Gambling, head_checks.chance_is_passed_in),
    (Branching, head_checks.replicas_are_heads),
    (Branching, head_checks.runs_where_the_batch_lies),
    (Homebound, head_checks.runs_where_the_batch_lies),
]


@pytest.mark.parametrize("check", head_checks.CHECKS, ids=lambda p: p.__name__)
def test_a_good_head_of_one_s_own_passes_every_check(check):
    """The heads below are bad in one place only: without it nothing is reported."""
    seen = contracts.run_check(check, HeadUnderTest(Plain, {}))
    assert seen.passed, seen.detail


@pytest.mark.parametrize(("head", "check"), BAD, ids=lambda x: x.__name__)
def test_the_contract_notices(head, check):
    """Each check fails on a head made for it, so no check passes whatever happens."""
    seen = contracts.run_check(check, HeadUnderTest(head, {}))
    assert not seen.passed
    assert seen.detail


def test_a_linear_head_that_calls_itself_joint_is_noticed():
    """A sum over streams cannot learn XOR, so a head that is one must say `additive`."""
    seen = contracts.run_check(head_learning.synergy_is_found_or_not, HeadUnderTest(Plain, {}))
    assert not seen.passed
    assert "synergy, complete" in seen.detail


def test_a_joint_head_that_calls_itself_additive_is_noticed():
    """Below log 2 on XOR is out of reach for a sum over streams."""

    class Modest(Plain):
        additive = True

        def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
            return torch.cat([hidden, hidden[:, :6] * hidden[:, -6:]], 1)[:, -12:]

    seen = contracts.run_check(head_learning.synergy_is_found_or_not, HeadUnderTest(Modest, {}))
    assert not seen.passed
    assert "declared additive" in seen.detail


@pytest.mark.slow
def test_a_head_that_ignores_a_stream_is_noticed():
    """Unique information is lost, and the redundant half is not known where it is needed."""

    class Half(Plain):
        def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
            return torch.cat([hidden[:, :6], torch.zeros_like(hidden[:, 6:])], 1)

    for check in (head_learning.unique_information_is_joined, head_learning.redundancy_is_used):
        assert not contracts.run_check(check, HeadUnderTest(Half, {})).passed


def test_a_head_that_finds_streams_by_position_is_noticed():
    """A head that goes round the arrangement by name gives other logits for reversed streams."""

    class Positional(Plain):
        def __call__(self, batch: Batch) -> Fused:
            return nn.Module.__call__(self, batch)

        def mixed(self, hidden: Tensor, batch: Batch) -> Tensor:
            return hidden + _pooled(batch)[0].nan_to_num().mean(-1, keepdim=True)

    seen = contracts.run_check(
        head_checks.order_of_streams_does_not_matter, HeadUnderTest(Positional, {})
    )
    assert not seen.passed


def test_a_head_that_takes_no_task_is_noticed():
    """Refusing every kind of task, even with a good error, is not a method."""

    def build(inputs: Inputs) -> FusionHead:
        raise MmfuseError(f"nothing for {inputs.task.kind}")

    seen = contracts.run_check(head_checks.foreign_tasks_are_refused, HeadUnderTest(build, {}))
    assert not seen.passed


def test_the_contract_runs_on_a_user_s_own_file(tmp_path):
    """`mmfuse check ./my_head.py` needs a file with `build`, and nothing registered."""
    path = tmp_path / "my_head.py"
    source = catalog.entries("methods")["concat"].path
    path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    seen = contracts.check(str(path), {"width": 8}, training=False)
    assert len(seen) == len(head_checks.CHECKS)
    assert all(one.passed for one in seen), [one.detail for one in seen]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "classes: it returned int, not a FusionHead"),
        ("raise ValueError('boom')", r"ValueError: boom \(my_head.py, line 2\)"),
    ],
)
def test_a_file_that_builds_no_head_is_reported_once(tmp_path, body, message):
    """One check fails, and no other is tried or called passed."""
    path = tmp_path / "my_head.py"
    path.write_text(f"def build(inputs):\n    {body}\n", encoding="utf-8")
    (seen,) = contracts.check(str(path), training=False)
    assert not seen.passed
    assert re.fullmatch(message, seen.detail)


def test_an_error_inside_a_head_is_told_with_its_line(tmp_path):
    """The innermost line of the user's own file, though torch lies in between."""
    path = tmp_path / "my_head.py"
    source = catalog.entries("methods")["concat"].path.read_text(encoding="utf-8")
    start = source.index("def forward")
    end = source.index("return ", start)
    line = source[:end].count("\n") + 1
    path.write_text(
        source[:end] + "raise RuntimeError('boom')\n" + source[source.index("\n\n\ndef build") :],
        encoding="utf-8",
    )
    seen = contracts.run_check(head_checks.one_row_is_a_batch, contracts.head_under_test(str(path)))
    assert seen.detail == f"RuntimeError: boom (my_head.py, line {line})"
