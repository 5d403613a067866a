"""MLA: its projection (G5, C10, V1, V2), its fusion (G6, C11, V3) and its alternating steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import CLASSES, fill_store, made_table
from torch import Tensor

from cache.errors import MmfuseError
from cache.layout import Home
from pipelines.contracts import synthetic
from pipelines.features.table import Batch, batch_bounds
from pipelines.fusion.head import FusionHead
from pipelines.methods import mla
from pipelines.methods.mla import Projection, ProjectionOptions, leading, rls
from pipelines.reports import runs
from pipelines.training import run
from pipelines.training.loop import FitJob, fit
from pipelines.training.optimizer import Rates
from pipelines.training.plan import Plan
from pipelines.training.replicas import Replicas
from pipelines.training.run import inputs_of
from pipelines.training.train import train

INPUTS = synthetic.inputs((5, 4, 3))
KEY = torch.tensor(0)


def head(seed: int = 0, inputs=INPUTS, **options: object) -> FusionHead:
    """A small head in double precision, in training mode."""
    torch.manual_seed(seed)
    return mla.build(inputs, **{"width": 6, **options}).double().train()


def batch(rows: int = 12, seed: int = 0, inputs=INPUTS) -> Batch:
    """Random features in double precision."""
    return synthetic.double(synthetic.batch(inputs, rows, seed))


def means(count: int, width: int, seed: int = 0) -> Tensor:
    """Rows that stand for batch means."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double()


def turn(model: FusionHead, data: Batch, step: str) -> tuple[dict, dict, dict]:
    """Gradients before and after the head changed them, and the buffers after."""
    fused = model(data)
    names = [n for n, _ in model.named_parameters() if model.trains(n, step, "fit")]
    moving = dict(model.named_parameters())
    found = torch.autograd.grad(model.loss(data, fused, step), [moving[n] for n in names])
    gradients = dict(zip(names, found, strict=True))
    buffers = dict(model.named_buffers())
    return gradients, *model.modify_gradients(gradients, buffers, data, fused, step)


def test_g5_recursive_least_squares_has_the_values_worked_out_by_hand():
    """G5: s = 2, alpha = .1, means [1, 0] and [1, 1], and a gradient [[1, 2]] projected."""
    first = rls(torch.eye(2).double(), torch.tensor([1.0, 0.0]).double(), 0.1)
    torch.testing.assert_close(first, torch.diag(torch.tensor([1 / 11, 1.0]).double()))
    second = rls(first, torch.ones(2).double(), 0.1)
    want = torch.tensor([[0.083969, -0.076336], [-0.076336, 0.160305]]).double()
    torch.testing.assert_close(second, want, rtol=0, atol=1e-6)
    gradient = torch.tensor([[1.0, 2.0]]).double() @ second
    want = torch.tensor([[-0.068702, 0.244275]]).double()
    torch.testing.assert_close(gradient, want, rtol=0, atol=1e-6)


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.01, 0.1, 1.0]))
@settings(max_examples=30, deadline=None)
def test_c10_the_recursion_equals_the_inverse_formula(seed, alpha):
    """C10: P = (I + sum of h hᵀ / alpha)⁻¹; symmetric, eigenvalues in (0, 1], trace falling."""
    matrix, total = torch.eye(6).double(), torch.eye(6).double()
    for mean in means(12, 6, seed):
        trace = matrix.trace()
        matrix = rls(matrix, mean, alpha)
        total = total + torch.outer(mean, mean) / alpha
        assert matrix.trace() <= trace + 1e-12
        assert torch.equal(matrix, matrix.mT)
        eigenvalues = torch.linalg.eigvalsh(matrix)
        assert eigenvalues.min() > 0
        assert eigenvalues.max() <= 1 + 1e-12
    torch.testing.assert_close(matrix, total.inverse(), rtol=1e-9, atol=1e-12)


def test_c10_the_gain_along_the_mean_is_alpha_over_its_sum():
    """C10: after absorbing h, P h = alpha / (alpha + hᵀ P h) · (P h of before)."""
    before = rls(torch.eye(5).double(), means(1, 5, 3)[0], 0.1)
    mean = means(1, 5, 4)[0]
    after = rls(before, mean, 0.1)
    gain = 0.1 / (0.1 + mean @ before @ mean)
    torch.testing.assert_close(after @ mean, gain * (before @ mean))


def test_v2_the_denominator_is_a_scalar():
    """V2: with a small alpha a mean that was absorbed is nearly gone: |P r| ≤ .05 |r|."""
    mean = means(1, 4, 1)[0]
    after = rls(torch.eye(4).double(), mean, 0.01)
    assert (after @ mean).norm() <= 0.05 * mean.norm()


def test_a_matrix_that_lost_positivity_starts_again():
    """Guard: where hᵀ P h is negative or not finite, P is the identity again."""
    broken = -torch.eye(3).double()
    assert torch.equal(rls(broken, torch.ones(3).double(), 0.1), torch.eye(3).double())
    endless = torch.full((3, 3), float("inf")).double()
    assert torch.equal(rls(endless, torch.ones(3).double(), 0.1), torch.eye(3).double())


def test_s22_the_projection_stays_in_double_precision():
    """S22: in a single-precision head P is double, and positive for features of scale 10."""
    torch.manual_seed(0)
    model = mla.build(INPUTS, width=6, alpha=0.01).train()
    state = {n.removeprefix("projection."): b for n, b in model.projection.named_buffers()}
    for mean in means(500, 6, 1) * 10:
        _, state = model.projection.step(state, mean, KEY, first=False)
    assert state["matrix"].dtype == torch.float64
    assert float(torch.linalg.eigvalsh(state["matrix"]).min()) > 0
    single = synthetic.batch(INPUTS, 12, 0)
    _, after, buffers = turn(model, single, INPUTS.names[1])
    assert buffers["projection.matrix"].dtype == torch.float64
    assert after["heads.shared.weight"].dtype == torch.float32


def test_power_iteration_follows_the_largest_eigenvalue():
    """Within 1 % of the exact eigenvalue on average and 15 % at worst while P shrinks 400 times."""
    matrix, direction = torch.eye(32).double(), means(1, 32, 9)[0]
    base = means(1, 32, 8)[0].abs()
    gaps = []
    for step, noise in enumerate(means(400, 32, 7)):
        matrix = rls(matrix, base + noise * 0.3, 0.1)
        found, direction = leading(matrix, direction, torch.tensor(step))
        exact = torch.linalg.eigvalsh(matrix).max()
        gaps.append(float((found / exact - 1).abs()))
    assert sum(gaps) / len(gaps) < 0.01
    assert max(gaps) < 0.15


@pytest.mark.parametrize("p_norm", ["spectral", "fro", "none"])
@pytest.mark.parametrize("order", ["paper", "previous"])
def test_v1_the_projection_is_used_and_is_the_formula(order, p_norm):
    """V1: from the second step on the shared head's gradient is multiplied by P, no other is.

    The first step is not projected, and with order=paper its mean is never absorbed.
    """
    model = head(order=order, p_norm=p_norm)
    matrix = torch.eye(6).double()
    for seen, step in enumerate((*INPUTS.names, *INPUTS.names)):
        data = batch(seed=seen)
        number = INPUTS.names.index(step)
        before, after, buffers = turn(model, data, step)
        rows = data.present[:, number]
        mean = model(data).tokens[rows, number].detach().mean(0)
        if order == "paper":
            matrix = rls(matrix, mean, 0.1) if seen else matrix
        use = {
            "spectral": lambda p: p / torch.linalg.eigvalsh(p).max(),
            "fro": lambda p: p / p.norm(),
            "none": lambda p: p,
        }[p_norm](matrix)
        want = before["heads.shared.weight"] @ (use if seen else torch.eye(6).double())
        tolerance = 0.05 * float(want.abs().max()) if p_norm == "spectral" else 1e-10
        torch.testing.assert_close(after["heads.shared.weight"], want, rtol=0, atol=tolerance)
        assert all(after[n] is x for n, x in before.items() if n != "heads.shared.weight")
        if order == "previous":
            matrix = rls(matrix, mean, 0.1)
        for name, buffer in buffers.items():
            model.get_submodule(name.rpartition(".")[0]).register_buffer(
                name.rpartition(".")[2], buffer
            )
        torch.testing.assert_close(buffers["projection.matrix"], matrix)
        assert int(buffers["projection.taken"]) == seen + 1


def test_c10_the_head_s_update_leaves_the_other_stream_s_logits():
    """C10: order=previous, no momentum, no decay: g of the other mean moves by O(alpha)."""
    width, alpha = 8, 1e-4
    options = ProjectionOptions(alpha, "previous", "none", "never", augment_bias=False)
    part = Projection(width, options)
    state = dict(part.named_buffers())
    other, own = means(2, width, 5)
    _, state = part.step(state, other, KEY, first=True)
    use, _ = part.step(state, own, KEY, first=False)
    gradient = means(3, width, 6)
    moved = (gradient @ use) @ other
    assert float(moved.abs().max()) < 10 * alpha * float((gradient @ other).abs().max())


def test_augment_bias_projects_the_bias_as_the_weight_of_a_constant():
    """P has a row for the bias; without it the constant leaks past the projection."""
    model = head(augment_bias=True, p_norm="none")
    turned = [turn(model, batch(seed=seed), step) for seed, step in enumerate(INPUTS.names[:1])]
    for name, buffer in turned[0][2].items():
        model.get_submodule(name.rpartition(".")[0]).register_buffer(
            name.rpartition(".")[2], buffer
        )
    data, step = batch(seed=5), INPUTS.names[1]
    before, after, buffers = turn(model, data, step)
    matrix = buffers["projection.matrix"]
    assert matrix.shape == (7, 7)
    both = torch.cat([before["heads.shared.weight"], before["heads.shared.bias"][:, None]], 1)
    want = both @ matrix
    torch.testing.assert_close(after["heads.shared.weight"], want[:, :-1])
    torch.testing.assert_close(after["heads.shared.bias"], want[:, -1])


def test_a_step_without_rows_takes_nothing_into_the_projection():
    """Skip: no row has the stream, so P and its counter stay and the gradient is zero."""
    model = head()
    data = batch()
    present = data.present.clone()
    present[:, 1] = False
    before, _, buffers = turn(model, synthetic.with_present(data, present), INPUTS.names[1])
    assert not any(gradient.any() for gradient in before.values())
    assert torch.equal(buffers["projection.matrix"], torch.eye(6).double())
    assert int(buffers["projection.taken"]) == 0


def test_a_projection_that_has_shrunk_is_remarked_on():
    """Strict paper: below a mean eigenvalue of .05 the head hardly learns; a note says so."""
    model = head(p_norm="none")
    shrunk = {"projection.matrix": torch.stack([torch.eye(6), torch.eye(6) * 0.01])}
    assert "fell to 1.0e-02" in model.remarks(shrunk)[0]
    assert not model.remarks({"projection.matrix": torch.eye(6)[None]})
    assert not head().remarks(shrunk)


def test_reset_cycle_forgets_the_projection_at_every_batch():
    """The first step of a batch starts from the identity: only this batch's streams repel."""
    model = head(reset="cycle")
    model.projection.register_buffer("matrix", torch.eye(6).double() * 0.3)
    model.projection.register_buffer("taken", torch.tensor(9))
    before, after, buffers = turn(model, batch(), INPUTS.names[0])
    assert torch.equal(after["heads.shared.weight"], before["heads.shared.weight"])
    assert int(buffers["projection.taken"]) == 1


@pytest.mark.parametrize("reset", ["never", "epoch"])
def test_alpha_decays_within_every_epoch_and_starts_again(reset):
    """Alpha · 0.1^(i/n) in batch i of n, the same for all its steps; `epoch` forgets P at i = 0."""
    options = ProjectionOptions(
        0.1, "previous", "none", reset, augment_bias=False, schedule="decay"
    )
    part, batches = Projection(5, options), 3
    part.observe_epoch_size(batches, 0)
    state, given = dict(part.named_buffers()), iter(means(18, 5, 2))
    want = torch.eye(5).double()
    for _ in range(2):
        for i in range(batches):
            if reset == "epoch" and i == 0:
                want = torch.eye(5).double()
            for step in range(3):
                mean = next(given)
                use, state = part.step(state, mean, KEY, first=step == 0, last=step == 2)
                fresh = i == step == 0 and (reset == "epoch" or not int(state["taken"]) - 1)
                torch.testing.assert_close(use, torch.eye(5).double() if fresh else want)
                want = rls(want, mean, 0.1 * 0.1 ** (i / batches))
                torch.testing.assert_close(state["matrix"], want)


def test_the_number_of_batches_is_set_before_training():
    """A fitted head's counters come round: after whole epochs the next batch is the first."""
    table = made_table(65, CLASSES)
    model = mla.build(inputs_of(table), width=6, alpha_schedule="decay", reset="epoch")
    plan = Plan(epochs=2, batch_size=32, optimizer="sgd", seeds=(0,))
    run.prepare([model], table, plan)
    count = len(batch_bounds(len(table.split("train")), 32))
    assert int(model.projection.batches) == count
    replicas = Replicas([model])
    fit(replicas, FitJob(table, [plan], (0,)))
    assert replicas.buffers["projection.batch"].tolist() == [0]
    assert replicas.buffers["projection.taken"].tolist() == [count * len(model.steps)]


def replicated(data: Batch) -> Batch:
    """The batch of one replica."""
    return Batch(
        {name: x[None] for name, x in data.features.items()},
        data.present[None], {}, data.targets[None], data.rows[None], data.numbers[None],
    )  # fmt: skip


def official_outputs(logits: Tensor) -> Tensor:
    """Output of the public code for (N, M, C) logits, 64 rows at a time, written as a loop."""
    fused = []
    for start in range(0, len(logits), 64):
        part = logits[start : start + 64]
        entropies = []
        for m in range(part.shape[1]):
            total = torch.zeros(()).double()
            for c in range(part.shape[2]):
                p = part[:, m, c].exp() / part[:, m, c].exp().sum()  # over the rows
                total = total - (p * p.log()).sum()
            entropies.append(total)
        top = max(entropies)
        weights = [torch.exp(top - e) for e in entropies]
        fused.append(sum(w / sum(weights) * part[:, m] for m, w in enumerate(weights)))
    return torch.cat(fused)


def test_m5_the_official_preset_weighs_by_the_batch():
    """M5, V3: one weight for 64 rows and a stream, softmax over rows; absent ones vote as zeros."""
    model, data = head(preset="official").eval(), batch(rows=150, seed=4)
    fused = model(synthetic.behind_absent(data, float("nan")))
    zeroed = synthetic.behind_absent(data, 0.0).features
    own = [model.heads["shared"](model.encoders[n](zeroed[n], None)) for n in INPUTS.names]
    torch.testing.assert_close(fused.stream_logits, torch.stack(own, 1))
    torch.testing.assert_close(fused.logits, official_outputs(fused.stream_logits))
    weights = fused.weights
    for part in (weights[:64], weights[64:128], weights[128:]):
        torch.testing.assert_close(part, part[:1].expand_as(part))
    alone = model(synthetic.some_rows(data, slice(0, 1)))
    torch.testing.assert_close(alone.weights, torch.full((1, 3), 1 / 3).double())
    assert "depend on the 64 rows" in model.remarks({})[0]


def test_m1_m8_m9_the_official_preset_trains_as_the_public_code():
    """A loop with torch.optim.SGD over all parameters, zeros for what is absent, no projection.

    Every gradient is set to zero, not to None, before a step, so that the encoders of the other
    streams coast on momentum and weight decay, as under torch 1.8.
    """
    alone = head(preset="official")
    replicas = Replicas([head(preset="official")])
    decays = [p for n, p in alone.named_parameters() if alone.decays(n, p)]
    others = [p for n, p in alone.named_parameters() if not alone.decays(n, p)]
    groups = [{"params": decays, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    for parameter in alone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rate = Rates(0.05, 1e-4, 0.9)
    for seed in range(4):
        data = batch(16, seed)
        stacked = replicated(data)
        for number, step in enumerate(alone.steps):
            replicas.step(stacked, (step, "fit"), "sgd", [rate], [None])
            x = torch.where(data.present[:, number, None], data.features[step], 0)
            logits = alone.heads["shared"](alone.encoders[step](x, None))
            rows = data.present.any(1)
            loss = torch.nn.functional.cross_entropy(logits[rows], data.targets[rows])
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(replicas.state[name][0], parameter.detach())
    assert not any("projection" in name for name in replicas.state)


def test_s6_rows_of_the_official_preset_say_so(tmp_path):
    """S6: also where no other run stands beside it, in the table of a training and of past runs."""
    home = Home(tmp_path)
    fill_store(home, made_table(60))
    words = {"epochs": "1", "seeds": "0", "width": "4"}
    official = train("mla", "made", home=home, options={**words, "preset": "official"})
    paper = train("mla", "made", home=home, options=words)
    assert runs.run_labels([official]) == ["mla preset=official"]
    assert runs.run_labels([paper]) == ["mla"]
    assert runs.train_table([official]).rows[0][1] == "mla preset=official"
    assert "mla preset=official" in runs.runs_table([official]).rows[0]
    assert any("depend on the 64 rows" in note for note in official.notes)


def test_the_presets_are_sums_of_options():
    """Each part of a preset can be named alone; the default is the paper's."""
    named = {"hgm": True, "entropy": "sample", "missing": "skip", "idle": "rest"}
    data = batch()
    for options in ({}, named, {**named, "preset": "official", "input_norm": "zscore"}):
        model = head(**options).eval()
        torch.testing.assert_close(model(data).logits, head().eval()(data).logits)
        assert model.rules == head().rules
        assert model.projection.options == head().projection.options
    assert head(preset="official").clean.norm == "none"


def test_c10_a_step_moves_its_own_encoder_and_the_shared_head_alone():
    """C10: no gradient of step m reaches another encoder, and `trains` agrees."""
    model = head()
    data = batch()
    for step in INPUTS.names:
        model.zero_grad()
        model.loss(data, model(data), step).backward()
        touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        moving = {n for n, _ in model.named_parameters() if model.trains(n, step, "fit")}
        assert touched <= moving
        assert moving == {n for n, _ in model.named_parameters() if step in n or "shared" in n}


@pytest.mark.parametrize("missing", ["skip", "zeros"])
def test_the_loss_of_a_step_is_cross_entropy_of_its_rows(missing):
    """Skip leaves rows without the stream out; zeros trains on them as the public code does."""
    model = head(missing=missing)
    data = synthetic.behind_absent(batch(), float("nan"))
    fused = model(data)
    for number, step in enumerate(INPUTS.names):
        rows = data.present[:, number] if missing == "skip" else data.present.any(1)
        want = torch.nn.functional.cross_entropy(
            fused.stream_logits[rows, number], data.targets[rows]
        )
        torch.testing.assert_close(model.loss(data, fused, step), want)


@pytest.mark.parametrize("df", [True, False])
def test_c11_fused_logits_are_the_weighted_sum_over_what_is_present(df):
    """C11: lambda = softmax(−entropy) over present streams, or equal weights; written as a loop."""
    model = head(df=df).eval()
    data = batch(rows=10)
    fused = model(data)
    for b in range(10):
        there = [m for m in range(3) if data.present[b, m]]
        probabilities = [fused.stream_logits[b, m].softmax(0) for m in there]
        entropies = torch.stack([-(p * p.log()).sum() for p in probabilities])
        weights = (-entropies).softmax(0) if df else torch.ones(len(there)).double() / len(there)
        want = sum(w * fused.stream_logits[b, m] for w, m in zip(weights, there, strict=True))
        torch.testing.assert_close(fused.logits[b], want)
        torch.testing.assert_close(fused.weights[b, there], weights)


def test_one_stream_present_gives_its_own_logits_and_none_gives_zeros():
    """One present: the fused logits are its logits; none: zeros, uniform probabilities."""
    model = head().eval()
    data = batch(rows=4)
    present = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()
    fused = model(synthetic.with_present(data, present))
    for b in range(3):
        torch.testing.assert_close(fused.logits[b], fused.stream_logits[b, b])
    assert not fused.logits[3].any()


def test_separate_heads_are_independent_networks():
    """`shared=false, hgm=false`: the paper's late fusion: no parameter is shared by two streams."""
    model = head(shared=False, hgm=False)
    moving = [
        {n for n, _ in model.named_parameters() if model.trains(n, step, "fit")}
        for step in INPUTS.names
    ]
    assert not (moving[0] & moving[1]) | (moving[1] & moving[2]) | (moving[0] & moving[2])
    assert sum(map(len, moving)) == len(dict(model.named_parameters()))


def test_settings_that_mean_nothing_are_refused():
    """A value has no entropy, separate heads no common gradient, identity needs equal widths."""
    with pytest.raises(MmfuseError, match="value does not have; take another method"):
        mla.build(synthetic.inputs((3, 3), synthetic.VALUE))
    with pytest.raises(MmfuseError, match="add hgm=false"):
        mla.build(INPUTS, shared=False)
    with pytest.raises(MmfuseError, match="streams of one width, not 4 and 5"):
        mla.build(INPUTS, encoder="identity")


def test_identity_encoders_are_the_code_s_classifier_on_raw_features():
    """With encoder=identity only the shared head has parameters, as in the CLIP experiment."""
    model = mla.build(synthetic.inputs((4, 4)), encoder="identity")
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == {"heads.shared.weight": (3, 4), "heads.shared.bias": (3,)}


def test_labels_are_weighed_by_the_sum_of_their_entropies():
    """Multi-label: each stream's entropy is the sum over labels of a coin's entropy."""
    inputs = synthetic.inputs((5, 4), synthetic.LABELS)
    model = head(inputs=inputs).eval()
    data = synthetic.with_present(batch(3, inputs=inputs), torch.ones(3, 2).bool())
    fused = model(data)
    p = fused.stream_logits.sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(fused.weights, (-entropy).softmax(1))
