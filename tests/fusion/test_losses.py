"""Objectives against naive double loops and values worked out by hand (G3, G4, G6; C8, C9, C11)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.fusion import losses as objectives

G4_COSINES = torch.tensor([[0.8, 0.2, -0.4], [0.1, 0.6, 0.5], [0.0, 0.9, 0.3]]).double()
G4 = {
    ("paper", 1): 0.774901,
    ("code", 1): -0.066667,
    ("paper", 2): 0.898635,
    ("code", 2): 0.195787,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers that depend on the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def presence(rows: int, streams: int, seed: int = 0) -> Tensor:
    """A pattern (B, M) with about 60 % present; rows with nothing happen."""
    return torch.rand(rows, streams, generator=torch.Generator().manual_seed(seed)) < 0.6


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two plain vectors."""
    return float(a @ b / (a.norm() * b.norm()))


def naive_info_nce(anchors: Tensor, fused: Tensor, present: Tensor, temperature: float) -> float:
    """The formula, one pair at a time."""
    rows, streams = present.shape
    alive = [b for b in range(rows) if present[b].any()]
    means = []
    for m in range(streams):
        losses = []
        for b in range(rows):
            if present[b, m]:
                scores = {c: cosine(anchors[b, m], fused[c]) / temperature for c in alive}
                total = sum(math.exp(s) for s in scores.values())
                losses.append(-math.log(math.exp(scores[b]) / total))
        if losses:
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means) if means else 0.0


def naive_nt_xent(
    cosines: Tensor, keep: list[int], temperature: float, hardest: int, form: str
) -> float:
    """The formula, one row at a time."""
    losses = []
    for i in keep:
        positive = math.exp(float(cosines[i, i]) / temperature)
        others = [math.exp(float(cosines[i, j]) / temperature) for j in keep if j != i]
        against = sum(sorted(others, reverse=True)[:hardest])
        if others:
            losses.append(-math.log(positive / (against + (positive if form == "paper" else 0))))
    return sum(losses) / len(losses) if losses else 0.0


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 7), streams=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_info_nce_equals_a_double_loop_over_rows_and_streams(seed, rows, streams):
    """The masked tensor form is the formula of CLARGA's loss written out, whatever is present."""
    anchors, fused = draw(rows, streams, 5, seed=seed), draw(rows, 5, seed=seed + 1)
    present = presence(rows, streams, seed)
    value = objectives.info_nce(anchors, fused, present, temperature=0.3)
    assert float(value) == pytest.approx(naive_info_nce(anchors, fused, present, 0.3), abs=1e-10)
    assert float(value) >= 0


def test_g3_info_nce_has_the_values_worked_out_by_hand():
    """G3: cosines of the identity at 0.1 give 4.53989e-5; equal cosines over three rows, log 3."""
    two = torch.eye(2).double()
    value = objectives.info_nce(two[:, None], two, torch.ones(2, 1).bool(), temperature=0.1)
    assert float(value) == pytest.approx(4.53989e-5, rel=1e-5)
    same = torch.ones(3, 1, 4).double()
    equal = objectives.info_nce(same, same[:, 0], torch.ones(3, 1).bool(), temperature=0.1)
    assert float(equal) == pytest.approx(math.log(3), abs=1e-12)


def test_c8_info_nce_ignores_the_order_of_rows_and_streams():
    """C8: permuting the batch or the streams changes nothing."""
    anchors, fused, present = draw(6, 3, 4), draw(6, 4, seed=1), presence(6, 3)
    rows, streams = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 1])
    plain = objectives.info_nce(anchors, fused, present, temperature=0.1)
    shuffled = objectives.info_nce(
        anchors[rows][:, streams], fused[rows], present[rows][:, streams], temperature=0.1
    )
    torch.testing.assert_close(shuffled, plain, rtol=0, atol=1e-12)


def test_c8_absent_streams_get_no_gradient_from_info_nce():
    """C8: what is absent is never an anchor, and rows with nothing are never candidates."""
    present = torch.tensor([[True, False], [True, True], [False, False]])
    anchors = draw(3, 2, 4).requires_grad_()
    fused = draw(3, 4, seed=1).requires_grad_()
    objectives.info_nce(anchors, fused, present, temperature=0.1).backward()
    assert anchors.grad is not None
    assert fused.grad is not None
    assert torch.equal(anchors.grad.abs().sum(-1) > 0, present)
    assert torch.equal(fused.grad[2], torch.zeros(4).double())


def test_info_nce_of_one_row_is_zero_with_a_zero_gradient():
    """A batch of one has no negatives: log 1, and nothing moves."""
    anchors = draw(1, 2, 4).requires_grad_()
    value = objectives.info_nce(
        anchors, draw(1, 4, seed=1), torch.ones(1, 2).bool(), temperature=0.1
    )
    value.backward()
    assert anchors.grad is not None
    torch.testing.assert_close(anchors.grad, torch.zeros_like(anchors), rtol=0, atol=1e-12)
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)


def test_info_nce_options_follow_their_loops():
    """`flat` averages all pairs at once; `both_ways` adds the transpose; pairs can be out."""
    anchors, fused = draw(5, 2, 4), draw(5, 4, seed=1)
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 0], [1, 1]]).bool()
    scores = [
        [[cosine(anchors[b, m], fused[c]) / 0.2 for c in range(5)] for b in range(5)]
        for m in range(2)
    ]
    pairs = [(b, m) for b in range(5) for m in range(2) if present[b, m]]

    def loss(values: list[float], own: float) -> float:
        return math.log(sum(math.exp(v) for v in values)) - own

    flat = [loss(scores[m][b], scores[m][b][b]) for b, m in pairs]
    got = objectives.info_nce(anchors, fused, present, temperature=0.2, weighting="flat")
    assert float(got) == pytest.approx(sum(flat) / len(flat))

    def back(b: int, m: int) -> float:
        return loss([scores[m][a][b] for a in range(5) if present[a, m]], scores[m][b][b])

    both = [(one + back(b, m)) / 2 for one, (b, m) in zip(flat, pairs, strict=True)]
    got = objectives.info_nce(
        anchors, fused, present, temperature=0.2, weighting="flat", both_ways=True
    )
    assert float(got) == pytest.approx(sum(both) / len(both))
    apart = torch.tensor([0, 0, 1, 1, 2])[:, None] != torch.tensor([0, 0, 1, 1, 2])
    fewer = [
        loss([scores[m][b][c] for c in range(5) if apart[b, c] or b == c], scores[m][b][b])
        for b, m in pairs
    ]
    got = objectives.info_nce(
        anchors, fused, present, temperature=0.2, weighting="flat", negatives=apart
    )
    assert float(got) == pytest.approx(sum(fewer) / len(fewer))


@pytest.mark.parametrize(("form", "hardest"), sorted(G4))
def test_g4_nt_xent_has_the_values_worked_out_by_hand(form, hardest):
    """G4: both forms of the loss, one and two negatives, on a printed matrix."""
    keep = torch.ones(3).bool()
    value = objectives.nt_xent(G4_COSINES, keep, temperature=0.5, hardest=hardest, form=form)
    assert float(value) == pytest.approx(G4[form, hardest], abs=1e-6)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 8),
    hardest=st.integers(1, 9),
    form=st.sampled_from(["paper", "code"]),
)
@settings(max_examples=60, deadline=None)
def test_nt_xent_equals_a_double_loop_over_the_kept_rows(seed, rows, hardest, form):
    """Hardest-k in log space is the printed formula, also where k exceeds the batch."""
    cosines = objectives.cosines(draw(rows, 4, seed=seed), draw(rows, 4, seed=seed + 1))
    keep = presence(rows, 1, seed)[:, 0]
    value = objectives.nt_xent(cosines, keep, temperature=0.5, hardest=hardest, form=form)
    counted = [int(i) for i in keep.nonzero()[:, 0]]
    assert float(value) == pytest.approx(
        naive_nt_xent(cosines, counted, 0.5, hardest, form), abs=1e-10
    )


@given(seed=st.integers(0, 10_000), hardest=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_c9_nt_xent_is_bounded_and_grows_with_the_negatives(seed, hardest):
    """C9: the paper form lies in [0, log(1 + k) + 2/t], grows with k, is above the code form."""
    cosines = objectives.cosines(draw(8, 3, seed=seed), draw(8, 3, seed=seed + 1))
    keep, t = torch.ones(8).bool(), 0.07

    def value(k: int, form: str) -> float:
        return float(objectives.nt_xent(cosines, keep, temperature=t, hardest=k, form=form))

    assert 0 <= value(hardest, "paper") <= math.log(1 + hardest) + 2 / t
    assert value(hardest, "paper") <= value(hardest + 1, "paper") + 1e-12
    assert value(hardest, "code") <= value(hardest, "paper")
    full = torch.nn.functional.cross_entropy(cosines / t, torch.arange(8))
    assert value(7, "paper") == value(20, "paper") == pytest.approx(float(full))


def test_c9_cosines_do_not_see_the_scale_of_their_inputs():
    """C9: NT-Xent is invariant to the scale of either side."""
    a, b = draw(5, 3), draw(5, 3, seed=1)
    torch.testing.assert_close(objectives.cosines(a * 50, b / 7), objectives.cosines(a, b))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_nt_xent_without_a_pair_is_zero_and_moves_nothing(form):
    """A batch of one poisons training in the published code (−30.4); here it counts for nothing."""
    vectors = draw(3, 4).requires_grad_()
    keep = torch.tensor([True, False, False])
    scores = objectives.cosines(vectors, draw(3, 4, seed=1))
    value = objectives.nt_xent(scores, keep, temperature=0.07, hardest=5, form=form)
    value.backward()
    assert vectors.grad is not None
    assert float(value.detach()) == 0
    assert not vectors.grad.any()


def test_nt_xent_leaves_out_pairs_that_may_not_be_negatives():
    """Duplicates named in `negatives` do not compete; a row left without any does not count."""
    keep = torch.ones(3).bool()
    negatives = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 1]]).bool()
    got = objectives.nt_xent(
        G4_COSINES, keep, temperature=0.5, hardest=2, form="code", negatives=negatives
    )
    first = math.log(math.exp(-0.4 / 0.5)) - 0.8 / 0.5
    second = math.log(math.exp(0.1 / 0.5) + math.exp(0.5 / 0.5)) - 0.6 / 0.5
    assert float(got) == pytest.approx((first + second) / 2)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), both_ways=st.booleans())
@settings(max_examples=40, deadline=None)
def test_semantic_matching_equals_cross_entropy_on_the_kept_rows(seed, rows, both_ways):
    """The masked matrix is cross-entropy of the small matrix of complete rows with its diagonal."""
    made, real = draw(rows, 4, seed=seed), draw(rows, 4, seed=seed + 1)
    keep = presence(rows, 1, seed)[:, 0]
    got = objectives.semantic_matching(made, real, keep, temperature=0.07, both_ways=both_ways)
    counted = [int(i) for i in keep.nonzero()[:, 0]]
    want = 0.0
    if len(counted) > 1:
        small = torch.tensor([[cosine(made[i], real[j]) / 0.07 for j in counted] for i in counted])
        sides = [small, small.T] if both_ways else [small]
        diagonal = torch.arange(len(counted))
        want = sum(float(torch.nn.functional.cross_entropy(s, diagonal)) for s in sides)
        want /= len(sides)
    assert float(got) == pytest.approx(want, abs=1e-5)


def test_g6_entropy_weights_have_the_values_worked_out_by_hand():
    """G6: logits [2, 0], [0, 0] have entropies .365334, .693147 and weights .581227, .418773."""
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]).double()
    entropies = objectives.entropy("classes", logits)[0].tolist()
    assert entropies == pytest.approx([0.365334, 0.693147], abs=1e-6)
    weights = objectives.entropy_weights("classes", logits, torch.ones(1, 2).bool())
    assert weights[0].tolist() == pytest.approx([0.581227, 0.418773], abs=1e-6)


@given(seed=st.integers(0, 10_000), streams=st.integers(1, 4), outputs=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_c11_entropy_weights_are_a_softmax_within_its_bounds(seed, streams, outputs):
    """C11: sum 1 over what is present, ratios within [1/C, C], blind to a shift of logits."""
    logits, present = draw(6, streams, outputs, seed=seed) * 3, presence(6, streams, seed)
    weights = objectives.entropy_weights("classes", logits, present)
    shifted = objectives.entropy_weights("classes", logits + 11, present)
    torch.testing.assert_close(shifted, weights)
    for row, has in zip(weights, present, strict=True):
        assert torch.equal(row > 0, has)
        assert float(row.sum()) == pytest.approx(1.0 if has.any() else 0.0)
        shown = row[has].tolist()
        assert all(a / b <= outputs + 1e-9 for a in shown for b in shown)


def test_v3_entropy_weights_of_a_sample_do_not_depend_on_the_batch():
    """V3: weights from 64 rows equal those from each row alone (the published code's do not)."""
    logits, present = draw(64, 2, 6) * 4, torch.ones(64, 2).bool()
    together = objectives.entropy_weights("classes", logits, present)
    alone = [
        objectives.entropy_weights("classes", logits[i : i + 1], present[:1]) for i in range(64)
    ]
    torch.testing.assert_close(torch.cat(alone), together)


def test_c11_the_sharper_stream_weighs_more():
    """C11: of two streams that favour one class, the surer one gets the larger weight."""
    sure, unsure = torch.tensor([4.0, 0, 0]), torch.tensor([1.0, 0, 0])
    weights = objectives.entropy_weights(
        "classes", torch.stack([sure, unsure])[None].double(), torch.ones(1, 2).bool()
    )
    assert weights[0, 0] > weights[0, 1]


def test_entropy_of_labels_is_the_sum_of_coin_entropies_and_survives_large_logits():
    """Multi-label: Bernoulli entropies added; logits of 1e3 give 0, never NaN."""
    logits = torch.tensor([0.0, 1.5, -3.0]).double()
    probabilities = logits.sigmoid()
    want = -(
        probabilities * probabilities.log() + (1 - probabilities) * (1 - probabilities).log()
    ).sum()
    torch.testing.assert_close(objectives.entropy("labels", logits), want)
    huge = torch.tensor([1e3, -1e3])
    assert float(objectives.entropy("labels", huge)) == pytest.approx(0, abs=1e-6)
    assert float(objectives.entropy("classes", huge)) == pytest.approx(0, abs=1e-6)


def test_a_vector_of_zeros_has_no_direction_and_no_gradient():
    """Normalising a zero row in the published code has a gradient of 4.8e11; here it is 0."""
    vectors = torch.zeros(2, 3).requires_grad_()
    objectives.cosines(vectors, torch.ones(2, 3)).sum().backward()
    assert vectors.grad is not None
    assert not vectors.grad.any()


def test_half_precision_scores_are_widened():
    """exp(1/0.07) overflows half precision: losses of half inputs are finite single precision."""
    vectors = torch.eye(4, dtype=torch.float16)
    keep = torch.ones(4).bool()
    cosine_matrix = objectives.cosines(vectors, vectors)
    loss = objectives.nt_xent(cosine_matrix, keep, temperature=0.07, hardest=3)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_objectives_run_under_vmap():
    """Stacked replicas give what a loop over them gives."""
    anchors, fused = draw(3, 5, 2, 4), draw(3, 5, 4, seed=1)
    present = presence(15, 2).reshape(3, 5, 2)

    def losses(a: Tensor, f: Tensor, p: Tensor) -> Tensor:
        keep = p.all(-1)
        matrix = objectives.cosines(a[:, 0], f)
        return torch.stack(
            [
                objectives.info_nce(a, f, p, temperature=0.1),
                objectives.nt_xent(matrix, keep, temperature=0.07, hardest=2),
                objectives.semantic_matching(a[:, 1], f, keep, temperature=0.07),
                objectives.entropy_weights("classes", a, p).square().sum(),
            ]
        )

    stacked = torch.vmap(losses)(anchors, fused, present)
    one_by_one = [losses(*each) for each in zip(anchors, fused, present, strict=True)]
    torch.testing.assert_close(stacked, torch.stack(one_by_one))
