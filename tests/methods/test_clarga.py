"""CLARGA against a loop over nodes, values worked out by hand (G1, G2), and its claims (C1-C7)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cache.errors import MmfuseError
from pipelines.contracts import synthetic
from pipelines.fusion.head import FusionHead
from pipelines.fusion.losses import info_nce, masked_softmax
from pipelines.methods import clarga

INPUTS = synthetic.inputs((5, 4, 3))
G2_SCORES = torch.tensor([[9.0, 1, 2], [0, 9, 1], [5, 5, 9]]).double()


def block(seed: int = 0, **options: object) -> clarga.Block:
    """A fusion block of width 8 in double precision."""
    settings = {
        "width": 8, "heads": 2, "layers": 2, "ablation": "none", "score": "dot",
        "attn_per_layer": False, "activation": "identity", "layer_dropout": 0.0,
    }  # fmt: skip
    torch.manual_seed(seed)
    return clarga.Block(clarga.Graph(**{**settings, **options})).double()


def head(seed: int = 0, inputs=INPUTS, **options: object) -> FusionHead:
    """A small head in double precision and eval mode."""
    torch.manual_seed(seed)
    return clarga.build(inputs, **{"width": 8, "heads": 2, **options}).double().eval()


def nodes_and_presence(rows: int, streams: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Nodes (B, M, 8) and a pattern in which rows with nothing happen."""
    numbers = torch.Generator().manual_seed(seed)
    nodes = torch.randn(rows, streams, 8, generator=numbers).double()
    return nodes, torch.rand(rows, streams, generator=numbers) < 0.6


def naive_block(part: clarga.Block, nodes: Tensor, present: Tensor) -> Tensor:
    """The block for one row, one node and one head at a time, following the prose of the paper."""
    count, width = nodes.shape
    attention = part.attention[0]
    d_k = width // attention.heads
    q, k = nodes @ attention.source.weight.T, nodes @ attention.destination.weight.T
    mean = [[torch.zeros(()).double()] * count for _ in range(count)]
    for h in range(attention.heads):
        cut = slice(h * d_k, (h + 1) * d_k)
        for j in range(count):
            sources = [i for i in range(count) if i != j and present[i]]
            scores = [torch.exp(q[i, cut] @ k[j, cut] / math.sqrt(d_k)) for i in sources]
            for i, score in zip(sources, scores, strict=True):
                mean[i][j] = mean[i][j] + score / sum(scores) / attention.heads
    for layer in part.layers:
        fresh = []
        for j in range(count):
            message = sum((mean[i][j] * nodes[i] for i in range(count)), torch.zeros(width))
            u = layer.mix.weight @ torch.cat([nodes[j], message]) + layer.mix.bias
            h = nodes[j] + u
            spread = ((h - h.mean()) ** 2).mean()
            fresh.append((h - h.mean()) / (spread + 1e-5).sqrt())
        nodes = torch.stack(fresh)
    return nodes


@given(seed=st.integers(0, 10_000), streams=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_block_equals_a_loop_over_nodes_and_heads(seed, streams):
    """Masked tensor arithmetic is the paper's prose, node by node, under every pattern."""
    part = block(seed)
    nodes, present = nodes_and_presence(4, streams, seed)
    got = part(nodes, present, torch.tensor(0))
    for b in range(4):
        want = naive_block(part, nodes[b], present[b])
        torch.testing.assert_close(got[b], want, rtol=0, atol=1e-10)


def test_the_head_equals_its_formula_written_out():
    """Projection or token, block, read-out over all nodes, last network, task loss + InfoNCE."""
    model = head(input_norm="none")
    batch = synthetic.double(synthetic.batch(INPUTS, 6, seed=4))
    fused = model(batch)
    state = dict(model.named_parameters())
    tokens = []
    for m, name in enumerate(INPUTS.names):
        weight, bias = (state[f"tokens.stems.{name}.linear.{part}"] for part in ("weight", "bias"))
        made = batch.features[name] @ weight.T + bias
        tokens.append(torch.where(batch.present[:, m, None], made, state["tokens.placeholder"]))
    projected = torch.stack(tokens, 1)
    logits, vectors = [], []
    for b in range(6):
        nodes = naive_block(model.block, projected[b], batch.present[b])
        scores = torch.stack([node @ state["query"] / math.sqrt(8) for node in nodes])
        z = (scores.softmax(0)[:, None] * nodes).sum(0)
        hidden = torch.relu(state["decide.0.weight"] @ z + state["decide.0.bias"])
        logits.append(state["decide.2.weight"] @ hidden + state["decide.2.bias"])
        vectors.append(z)
    torch.testing.assert_close(fused.logits, torch.stack(logits), rtol=0, atol=1e-10)
    want = torch.nn.functional.cross_entropy(torch.stack(logits), batch.targets)
    want = want + 0.1 * info_nce(projected, torch.stack(vectors), batch.present, temperature=0.1)
    torch.testing.assert_close(model.loss(batch, fused, "joint"), want, rtol=0, atol=1e-10)


def test_g1_uniform_attention_is_the_mean_of_the_other_present_nodes():
    """G1: with node 2 missing of three, rows of sources are [0 1 .5], [1 0 .5], [0 0 0]."""
    messages = clarga.mean_of_others(torch.eye(3)[None], torch.tensor([[True, True, False]]))
    want = torch.tensor([[0, 1, 0.5], [1, 0, 0.5], [0, 0, 0]])
    torch.testing.assert_close(messages[0].T, want)


@pytest.mark.parametrize(
    ("present", "want"),
    [
        ([1, 1, 1], [[0, 0.017986, 0.731059], [0.006693, 0, 0.268941], [0.993307, 0.982014, 0]]),
        ([1, 1, 0], [[0, 1, 0.731059], [1, 0, 0.268941], [0, 0, 0]]),
    ],
)
def test_g2_attention_has_the_values_worked_out_by_hand(present, want):
    """G2: softmax over sources, own node out, a missing node's row 0."""
    may = clarga.may_send(torch.tensor([present]).bool())
    got = masked_softmax(G2_SCORES[None], may, dim=-2)[0]
    torch.testing.assert_close(got, torch.tensor(want).double(), rtol=0, atol=1e-6)


@given(
    seed=st.integers(0, 10_000), streams=st.integers(1, 5), score=st.sampled_from(["dot", "gat"])
)
@settings(max_examples=40, deadline=None)
def test_c2_attention_columns_sum_to_one_or_nothing(seed, streams, score):
    """C2: diagonal 0, rows of missing sources 0, columns 1 or (no source) 0, values in [0, 1]."""
    part = block(seed, score=score).attention[0]
    nodes, present = nodes_and_presence(5, streams, seed)
    weights = part(nodes, present)  # (B, source, destination)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert not weights.diagonal(dim1=1, dim2=2).any()
    assert not weights[~present].any()
    sources = present.sum(1, keepdim=True) - present.long()
    torch.testing.assert_close(weights.sum(1), (sources > 0).double())


@pytest.mark.parametrize("options", [{}, {"score": "gat"}, {"attn_per_layer": True}])
def test_c1_the_block_does_not_see_the_order_of_its_nodes(options):
    """C1: permuted nodes and presence permute the output, and the attention on both axes."""
    part = block(**options)
    nodes, present = nodes_and_presence(6, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    plain = part(nodes, present, torch.tensor(0))
    shuffled = part(nodes[:, order], present[:, order], torch.tensor(0))
    torch.testing.assert_close(shuffled, plain[:, order], rtol=0, atol=1e-12)
    weights = part.attention[0](nodes, present)
    moved = part.attention[0](nodes[:, order], present[:, order])
    torch.testing.assert_close(moved, weights[:, order][:, :, order], rtol=0, atol=1e-12)


def test_c3_the_fused_vector_is_bounded_by_the_last_norm():
    """C3: |z| ≤ max|g| √H + |b|, so one replaced stream moves z by at most twice that."""
    model = head()
    norm = model.block.layers[-1].norm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 1.5, 8))
        norm.bias.copy_(torch.linspace(0, 1, 8))
    bound = float(norm.weight.detach().abs().max() * math.sqrt(8) + norm.bias.detach().norm())
    for scale in (1e-3, 1, 1e3):
        batch = synthetic.batch(INPUTS, 50, seed=1)
        batch = synthetic.double(
            synthetic.replace(batch, features={k: x * scale for k, x in batch.features.items()})
        )
        z = model(batch).extras["fused"]
        assert float(z.detach().norm(dim=1).max()) <= bound


@given(seed=st.integers(0, 10_000), residual=st.booleans())
@settings(max_examples=40, deadline=None)
def test_c4_a_changed_node_moves_the_sum_within_the_product_of_norms(seed, residual):
    """C4: with weights held fixed and no LayerNorm, |dz| ≤ |β| Π(1 + |Ws| + |A||Wm|) |dh|.

    Proposition 2 of the paper (|dz| ≤ β_m |dx|) does not hold; this bound does.
    """
    part = block(seed, layers=3, ablation="none" if residual else "no_residual")
    nodes, present = nodes_and_presence(1, 5, seed)
    present = torch.ones_like(present)
    weights = part.attention[0](nodes, present).detach()
    beta = torch.rand(5, generator=torch.Generator().manual_seed(seed)).double().softmax(0)

    def z(x: Tensor) -> Tensor:
        for layer in part.layers:
            mixed = layer.mix(torch.cat([x, weights.mT @ x], -1))
            x = mixed + x if residual else mixed
        return (beta[:, None] * x[0]).sum(0)

    moved = nodes.clone()
    moved[0, 2] += torch.randn(8, generator=torch.Generator().manual_seed(seed + 1))
    factor = beta.norm()
    for layer in part.layers:
        own, sent = layer.mix.weight.chunk(2, 1)
        spectral = [torch.linalg.matrix_norm(x, 2) for x in (own, weights[0], sent)]
        factor = factor * (residual + spectral[0] + spectral[1] * spectral[2])
    bound = factor * (moved - nodes).norm()
    assert float((z(moved) - z(nodes)).detach().norm()) <= float(bound.detach()) + 1e-9


def test_c4_the_printed_bound_does_not_hold():
    """C4: M = 6, two layers, W = [0 | I], equal weights, no LayerNorm: |dz| = 4 β_m |dx_m|.

    The residual and the messages each pass the change on, so it grows by 1 + 1 a layer.
    """
    part = block()
    for layer in part.layers:
        layer.norm = torch.nn.Identity()
        with torch.no_grad():
            layer.mix.weight.copy_(torch.cat([torch.zeros(8, 8), torch.eye(8)], 1))
            layer.mix.bias.zero_()
    nodes, present = torch.zeros(1, 6, 8).double(), torch.ones(1, 6).bool()
    moved = nodes.clone()
    moved[0, 2] += torch.randn(8, generator=torch.Generator().manual_seed(3))

    def z(x: Tensor) -> Tensor:
        for layer in part.layers:
            x = layer(x, clarga.mean_of_others(x, present), torch.tensor(0))
        return x.mean(1)

    change = (moved - nodes).norm() / 6
    assert float((z(moved) - z(nodes)).detach().norm() / change) == pytest.approx(4)


def test_c5_the_block_cannot_count_equal_nodes():
    """C5: {a, a} and {a, a, a} have the same read-out: attention gives means, not sums."""
    model = head()
    node = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0)).double()

    def z(count: int) -> Tensor:
        present = torch.ones(1, count).bool()
        nodes = model.block(node.expand(1, count, 8), present, torch.tensor(0))
        return (model._readout(nodes, present)[..., None] * nodes).sum(1)

    torch.testing.assert_close(z(2), z(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("streams", [2, 8, 32])
def test_c6_multiplications_equal_the_stated_formula(streams):
    """C6: Σ D_m H + 2MH² + M²H + L(M²H + 2MH²) a sample, plus the last network."""
    width, rows, layers = 16, 3, 2
    inputs = synthetic.inputs((5,) * streams)
    model = clarga.build(inputs, width=width, heads=1, layers=layers).eval()
    batch = synthetic.batch(inputs, rows)
    with FlopCounterMode(display=False) as counter:
        model(batch)
    m, h = streams, width
    block_cost = 2 * m * h * h + m * m * h + layers * (m * m * h + 2 * m * h * h)
    last = h * h + h * inputs.outputs
    counted = counter.get_total_flops() / 2 / rows  # the read-out's two MH are not counted
    assert counted == 5 * m * h + block_cost + last


def test_c6_cost_grows_with_the_square_of_many_streams_and_as_few_do():
    """C6: doubling M multiplies the block's cost by about 2 below H/2, by nearly 4 above 8 H."""
    width = 8

    def cost(streams: int) -> int:
        part, nodes = block(heads=1), torch.zeros(1, streams, width).double()
        with FlopCounterMode(display=False) as counter:
            part(nodes, torch.ones(1, streams).bool(), torch.tensor(0))
        return counter.get_total_flops()

    assert math.log2(cost(4) / cost(2)) < 1.25
    assert math.log2(cost(256) / cost(128)) > 1.85


def test_c7_depth_leaves_nodes_apart():
    """C7: after four rounds nodes are still distinct vectors, their cosine below 1."""
    part = block(layers=4)
    nodes, present = nodes_and_presence(64, 5)
    out = part(nodes, torch.ones_like(present), torch.tensor(0)).detach()
    cosine = torch.nn.functional.cosine_similarity(out[:, 0], out[:, 1], dim=-1)
    assert float(cosine.mean()) < 0.9


def test_a_missing_node_receives_but_does_not_send():
    """One of two present: it hears nothing; the missing one hears exactly it."""
    nodes, _ = nodes_and_presence(1, 2)
    weights = block().attention[0](nodes, torch.tensor([[True, False]]))
    torch.testing.assert_close(weights[0], torch.tensor([[0, 1], [0, 0]]).double())


def test_one_stream_is_the_residual_network_without_messages():
    """M = 1: h ← LN(h + W[h ‖ 0]); nothing divides by the number of neighbours, 0."""
    part = block()
    nodes, _ = nodes_and_presence(3, 1)
    got = part(nodes, torch.ones(3, 1).bool(), torch.tensor(0))
    want = nodes
    for layer in part.layers:
        mixed = layer.mix(torch.cat([want, torch.zeros_like(want)], -1))
        want = layer.norm(want + mixed)
    torch.testing.assert_close(got, want)


def test_rows_with_nothing_present_share_one_finite_predict_part():
    """All absent: every node is the token, z is a learned constant, never NaN."""
    model = head()
    batch = synthetic.with_present(synthetic.batch(INPUTS, 4), torch.zeros(4, 3).bool())
    logits = model(synthetic.double(synthetic.behind_absent(batch, float("nan")))).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits, logits[:1].expand(4, -1))


@pytest.mark.parametrize("readout_missing", [True, False])
def test_an_always_absent_stream_is_a_no_op_only_if_it_is_not_read_out(readout_missing):
    """Appending an absent stream changes the read-out when absent nodes are read, else nothing."""
    model = head(readout_missing=readout_missing)
    nodes, present = nodes_and_presence(5, 3)
    present = present | ~present.any(1, keepdim=True)
    token = model.tokens.placeholder.expand(5, 1, 8)

    def z(x: Tensor, there: Tensor) -> Tensor:
        x = model.block(x, there, torch.tensor(0))
        return (model._readout(x, there)[..., None] * x).sum(1)

    short = z(torch.where(present[..., None], nodes, token), present)
    longer = torch.cat([nodes, token], 1)
    there = torch.cat([present, torch.zeros(5, 1).bool()], 1)
    long = z(torch.where(there[..., None], longer, token), there)
    if readout_missing:
        assert float((long - short).detach().abs().max()) > 1e-3
    else:
        torch.testing.assert_close(long, short, rtol=0, atol=1e-12)


def test_the_mask_token_learns_nothing_from_complete_data():
    """The trap: without missing cells its gradient is exactly 0 and it stays as initialised."""
    model = head().train()
    batch = synthetic.double(synthetic.batch(INPUTS, 6, absent=0.0))
    model.loss(batch, model(batch), "joint").backward()
    assert not model.tokens.placeholder.grad.any()
    assert not model.decays("tokens.placeholder", model.tokens.placeholder)
    assert not model.decays("query", model.query)


def test_the_ablations_are_what_section_4_3_says():
    """Uniform has no attention, mean no graph and no query, no_contrast no second loss."""
    batch = synthetic.double(synthetic.batch(INPUTS, 6, seed=2))
    assert not len(head(ablation="uniform").block.attention)
    plain = head(ablation="mean", dropout=0)
    fused = plain(batch)
    assert plain.block is None
    torch.testing.assert_close(fused.extras["fused"], fused.tokens.mean(1))
    without = head(ablation="no_contrast")
    fused = without(batch)
    task = without.task_loss(batch, fused.logits)
    torch.testing.assert_close(without.loss(batch, fused, "joint"), task, rtol=0, atol=0)
    full, bare = head(), head(ablation="no_residual")
    assert not torch.equal(full(batch).logits, bare(batch).logits)


def test_same_labels_can_be_left_out_of_the_negatives():
    """With two classes and `exclude_same_label`, InfoNCE competes across classes only."""
    batch = synthetic.double(synthetic.batch(INPUTS, 6, seed=2))
    apart = clarga.differ(batch.targets)
    assert torch.equal(apart, batch.targets[:, None] != batch.targets[None])
    model = head(exclude_same_label=True)
    fused = model(batch)
    want = info_nce(
        fused.tokens, fused.extras["fused"], batch.present, temperature=0.1, negatives=apart
    )
    got = model.loss(batch, fused, "joint") - model.task_loss(batch, fused.logits)
    torch.testing.assert_close(got, 0.1 * want)


def test_settings_that_do_not_fit_are_refused():
    """A width that heads do not divide, and labels to exclude where there are none."""
    with pytest.raises(MmfuseError, match="not a multiple of heads"):
        clarga.build(INPUTS, width=10, heads=4)
    with pytest.raises(MmfuseError, match="needs classes or labels"):
        clarga.build(synthetic.inputs((3, 3), synthetic.VALUE), exclude_same_label=True)
