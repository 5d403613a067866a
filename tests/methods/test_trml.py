"""TRML against the pair form written out row by row, and its claims (C12)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import batch_of, copy_recurrent, fill_store, made_table
from torch import Tensor

from cache.errors import MmfuseError
from cache.layout import Home
from pipelines.contracts import synthetic
from pipelines.features.table import Batch, FeatureTable
from pipelines.fusion.head import FusionHead, Inputs, Stream
from pipelines.methods import trml
from pipelines.training.loop import FitJob, fit
from pipelines.training.plan import Plan
from pipelines.training.replicas import Replicas
from pipelines.training.run import build_heads, inputs_of, prepare
from pipelines.training.train import train

PAIR = Inputs(
    {"clip/text": Stream(4, "text"), "clip/video": Stream(5, "video", sequence=True)},
    synthetic.CLASSES,
)
THREE = synthetic.inputs((4, 4, 4))


def head(seed: int = 0, inputs: Inputs = PAIR, **options: object) -> FusionHead:
    """A small head in double precision and eval mode."""
    torch.manual_seed(seed)
    sizes = {"hidden": 6, "translator_hidden": 7}
    return trml.build(inputs, **{**sizes, **options}).double().eval()


def batch(rows: int = 12, seed: int = 0, inputs: Inputs = PAIR, absent: float = 0.3) -> Batch:
    """Random features in double precision; interior frames are absent at random."""
    return synthetic.double(synthetic.batch(inputs, rows, seed, absent=absent, frames=5))


def linear(model: FusionHead, name: str, x: Tensor) -> Tensor:
    """A linear map by name."""
    part = model.get_submodule(name)
    return part.weight @ x + part.bias


def translate(model: FusionHead, source: str, target: str, x: Tensor) -> Tensor:
    """One translator of the pair form, one vector at a time."""
    pair = f"{source}>{target}"
    hidden = torch.nn.functional.gelu(linear(model, f"translators.up.{pair}", x))
    return linear(model, f"translators.down.{pair}", hidden)


def naive_pair(model: FusionHead, data: Batch, row: int) -> Tensor:
    """Logits of one row of the text and video pair, as in methods.md 4.2."""
    text, video = "clip/text", "clip/video"
    has_text = bool(data.present[row, 0])
    there = data.frame_present[video][row] & data.present[row, 1]
    has_video = bool(there.any())
    x_t, frames = data.features[text][row], data.features[video][row]
    t, v = torch.zeros(4).double(), torch.zeros(5).double()
    if has_text:
        t = x_t
        v_hat = translate(model, text, video, x_t)
        last = int(there.nonzero().max()) if has_video else len(there) - 1
        frames = torch.stack([frames[i] if there[i] else v_hat for i in range(last + 1)])
    elif has_video:
        t = translate(model, video, text, frames[there].mean(0))
        frames = frames[there]
    if has_text or has_video:
        library = torch.nn.GRU(5, 5, batch_first=True).double()
        copy_recurrent(model.temporal[video], library)
        v = library(frames[None])[1][0, 0]
    return linear(model, "out", torch.relu(linear(model, "mix", torch.cat([t, v]))))


def test_the_head_equals_the_pair_form_row_by_row():
    """Virtual text, virtual frames, frames missing inside, nothing at all: each as specified."""
    model, data = head(), batch(rows=24, seed=3, absent=0.4)
    present = data.present.clone()
    present[0] = False
    data = replace(data, present=present)
    logits = model(synthetic.behind_absent(data, float("nan"))).logits
    patterns = set()
    for row in range(24):
        torch.testing.assert_close(logits[row], naive_pair(model, data, row))
        patterns.add(tuple(data.present[row].tolist()))
    assert len(patterns) == 4


def test_the_matching_loss_is_a_quarter_of_four_cross_entropies():
    """L = task + alpha/4 · [CE(S_v) + CE(S_vᵀ) + CE(S_t) + CE(S_tᵀ)] over the complete rows."""
    model, data = head(alpha=0.3), batch(rows=14, seed=2)
    both = data.present.all(1)
    frames = data.frame_present["clip/video"]
    sides = []
    texts = [data.features["clip/text"][i] for i in both.nonzero()[:, 0]]
    videos = [data.features["clip/video"][i][frames[i]].mean(0) for i in both.nonzero()[:, 0]]
    for source, target, prompts, reals in (
        ("clip/text", "clip/video", texts, videos),
        ("clip/video", "clip/text", videos, texts),
    ):
        made = [translate(model, source, target, x) for x in prompts]
        matrix = torch.stack(
            [
                torch.stack([torch.cosine_similarity(x, y, dim=0) / 0.07 for y in reals])
                for x in made
            ]
        )
        diagonal = torch.arange(len(made))
        sides += [torch.nn.functional.cross_entropy(s, diagonal) for s in (matrix, matrix.T)]
    fused = model(data)
    want = model.task_loss(data, fused.logits) + 0.3 * sum(sides) / 4
    torch.testing.assert_close(model.loss(data, fused, "joint"), want)


def test_c12_a_complete_row_does_not_depend_on_the_translators():
    """C12: with rho = 0 other translators leave complete rows alone; incomplete rows change."""
    model, other = head(rho=0.0), head(seed=1, rho=0.0)
    data = batch(rows=20, seed=1)
    full = torch.ones(20, 5).bool()
    data = replace(data, frame_present={"clip/video": full})
    before = model(data).logits
    model.translators = other.translators
    after = model(data).logits
    complete = data.present.all(1)
    assert torch.equal(after[complete], before[complete])
    assert not torch.equal(after[~complete], before[~complete])


def test_c12_two_streams_are_the_pair_form_of_many():
    """C12: at two streams the mean over present others is the one translator there is."""
    inputs = synthetic.inputs((4, 3))
    model, data = head(inputs=inputs), batch(inputs=inputs)
    logits = model(data).logits
    for row in range(12):
        x = [data.features[name][row] for name in inputs.names]
        if not data.present[row, 0]:
            x[0] = translate(model, "e1/m1", "e0/m0", x[1])
        if not data.present[row, 1]:
            x[1] = translate(model, "e0/m0", "e1/m1", x[0])
        hidden = torch.relu(linear(model, "mix", torch.cat(x)))
        torch.testing.assert_close(logits[row], linear(model, "out", hidden))


@pytest.mark.parametrize("kind", ["pairs", "hub"])
def test_a_virtual_stream_is_the_mean_of_what_the_present_ones_say(kind):
    """Three streams, one absent: the mean of two translations; a hub translates over one space."""
    model = head(inputs=THREE, translator=kind)
    data = batch(rows=1, inputs=THREE)
    data = synthetic.with_present(data, torch.tensor([[True, False, True]]))
    x = [data.features[name][0] for name in THREE.names]
    if kind == "pairs":
        translated = [translate(model, THREE.names[i], "e1/m1", x[i]) for i in (0, 2)]
    else:
        gelu = torch.nn.functional.gelu
        latent = [gelu(linear(model, f"translators.up.{THREE.names[i]}", x[i])) for i in (0, 2)]
        translated = [linear(model, "translators.down.e1/m1", each) for each in latent]
    x[1] = (translated[0] + translated[1]) / 2
    want = linear(model, "out", torch.relu(linear(model, "mix", torch.cat(x))))
    torch.testing.assert_close(model(data).logits[0], want)


def test_translators_grow_with_pairs_or_with_streams():
    """M(M-1) translators as pairs; 2M linear maps over a hub."""
    six = synthetic.inputs((4,) * 6)
    assert len(head(inputs=six).translators.up) == 30
    hub = head(inputs=six, translator="hub").translators
    assert len(hub.up) == len(hub.down) == 6


@pytest.mark.parametrize("by", ["entropy", "mse"])
@pytest.mark.parametrize("complete", [0, 1])
def test_c12_matching_is_zero_where_there_is_nothing_to_match(complete, by):
    """C12: with fewer than two complete rows the loss is the task's, and its gradient finite."""
    model, data = head(matching=by), batch()
    present = torch.tensor([[True, False]]).repeat(12, 1)
    present[:complete] = True
    data = synthetic.with_present(data, present)
    fused = model(data)
    loss = model.loss(data, fused, "joint")
    torch.testing.assert_close(loss, model.task_loss(data, fused.logits), rtol=0, atol=1e-15)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_c12_alpha_zero_is_the_ablation_without_matching():
    """Alpha = 0: the loss is the task's, bit for bit."""
    model, data = head(alpha=0.0), batch()
    fused = model(data)
    loss = model.loss(data, fused, "joint")
    assert torch.equal(loss, model.task_loss(data, fused.logits))


def test_missing_frames_approach_a_missing_stream():
    """With text there, frames that vanish one by one become virtual; none left is all virtual."""
    model, data = head(), batch(rows=1)
    data = synthetic.with_present(data, torch.ones(1, 2).bool())
    gone = replace(data, frame_present={"clip/video": torch.zeros(1, 5).bool()})
    absent = replace(gone, present=torch.tensor([[True, False]]))
    assert torch.equal(model(gone).logits, model(absent).logits)
    one_left = torch.tensor([[False, False, False, False, True]])
    kept = replace(data, frame_present={"clip/video": one_left})
    assert not torch.equal(model(kept).logits, model(gone).logits)


def test_padding_is_not_filled():
    """Frames behind the last present one are padding: a longer table changes nothing."""
    model, data = head(), batch(rows=6, absent=0.0)
    there = torch.arange(5) < torch.tensor([5, 4, 3, 2, 1, 3])[:, None]
    data = replace(data, frame_present={"clip/video": there})
    longer = replace(
        data,
        features={
            "clip/text": data.features["clip/text"],
            "clip/video": torch.cat([data.features["clip/video"], torch.ones(6, 3, 5)], 1),
        },
        frame_present={"clip/video": torch.cat([there, torch.zeros(6, 3).bool()], 1)},
    )
    torch.testing.assert_close(model(longer).logits, model(data).logits, rtol=0, atol=1e-12)


def test_the_order_of_frames_matters_to_the_gru_and_not_to_the_prompt():
    """Shuffled frames change the logits; the mean that translators read stays."""
    model, data = head(), batch(rows=4, absent=0.0)
    data = replace(data, frame_present={"clip/video": torch.ones(4, 5).bool()})
    flipped = dict(data.features)
    flipped["clip/video"] = flipped["clip/video"].flip(1)
    turned = replace(data, features=flipped)
    assert not torch.allclose(model(turned).logits, model(data).logits)
    mean = head(temporal="mean")
    torch.testing.assert_close(mean(turned).logits, mean(data).logits)


def test_rho_hides_one_stream_of_a_complete_training_row():
    """With rho = 1 every complete row meets exactly one virtual stream; in evaluation none does."""
    model = head(inputs=THREE, rho=1.0).train()
    present = torch.ones(40, 3).bool()
    present[0] = torch.tensor([True, False, False])
    data = synthetic.with_present(batch(rows=40, inputs=THREE), present)
    shown = model._shown(data.present, data)
    assert torch.equal(shown.sum(1), torch.tensor([1] + [2] * 39))
    assert len(set(shown[1:].long().argmin(1).tolist())) == 3
    assert torch.equal(model.eval()._shown(data.present, data), data.present)


def test_detach_keeps_the_task_s_loss_out_of_the_translators():
    """With alpha = 0 and detach no gradient reaches a translator; without it one does."""
    for detach in (True, False):
        model, data = head(alpha=0.0, detach=detach), batch()
        model.loss(data, model(data), "joint").backward()
        reached = [p.grad is not None and p.grad.any() for p in model.translators.parameters()]
        assert any(reached) != detach


@pytest.mark.parametrize("virtual", ["zero", "mean"])
def test_ablations_stand_zeros_or_the_train_mean_in(virtual):
    """No translator exists; what is absent is a constant vector."""
    inputs = synthetic.inputs((4, 4))
    model = head(inputs=inputs, virtual=virtual)
    if virtual == "mean":
        model.stand.get_buffer("e0/m0").copy_(torch.arange(4))
    data = synthetic.with_present(batch(rows=1, inputs=inputs), torch.tensor([[False, True]]))
    stood = torch.arange(4).double() if virtual == "mean" else torch.zeros(4).double()
    x = torch.cat([stood, data.features["e1/m1"][0]])
    want = linear(model, "out", torch.relu(linear(model, "mix", x)))
    torch.testing.assert_close(model(data).logits[0], want)
    assert model.translators is None


def test_prompts_of_another_width_are_refused():
    """Matching with the prompt compares two streams, which must be of one width."""
    with pytest.raises(MmfuseError, match="compares streams of one width"):
        trml.build(PAIR, target="prompt")
    model, data = head(inputs=THREE, target="both"), batch(inputs=THREE)
    assert model.loss(data, model(data), "joint").isfinite()


def table_with(complete: int) -> FeatureTable:
    """90 rows of three streams, of which so many have all three."""
    table = made_table(90, absent=0.0)
    present = table.present.clone()
    rows = torch.arange(len(present))
    present[rows, rows % 3] = rows < complete
    return replace(table, present=present)


def fitted(table: FeatureTable, seeds: tuple[int, ...], **options: object) -> tuple[Replicas, list]:
    """Replicas after two epochs, and the batches that they were given."""
    seen = table.take(np.flatnonzero(table.samples.splits != "test"))
    settings = {"hidden": 4, "translator_hidden": 4, **options}
    heads = build_heads(trml, inputs_of(seen), settings, seeds)
    plan = Plan(epochs=2, batch_size=16, seeds=seeds)
    prepare(heads, seen, plan)
    replicas, given = Replicas(heads), []
    step = replicas.step
    replicas.step = lambda batch, *rest: given.append(batch) or step(batch, *rest)
    fit(replicas, FitJob(seen, [plan] * len(seeds), seeds))
    return replicas, given


def test_every_batch_has_complete_rows_to_match():
    """Five complete rows of 54 in training: all five in each batch; at random, not so."""
    replicas, given = fitted(table_with(5), (0, 1))
    assert len(given) == 2 * 4
    assert all((batch.present.all(-1).sum(-1) == 5).all() for batch in given)
    assert "5 training rows have every stream" in replicas.head.remarks(replicas.state)[0]
    _, at_random = fitted(table_with(5), (0, 1), complete_rows=0)
    assert min(int(batch.present.all(-1).sum(-1).min()) for batch in at_random) < 2
    enough, _ = fitted(table_with(90), (0,))
    assert not enough.head.remarks(enough.state)
    assert fitted(table_with(5), (0,), alpha=0.0)[0].head.complete_rows == 0


def test_a_seed_alone_meets_the_batches_it_meets_among_others():
    """The order is each replica's own: R = 2 and R = 1 see the same rows, and end alike."""
    both, given = fitted(table_with(5), (0, 1))
    alone, own = fitted(table_with(5), (1,))
    for many, one in zip(given, own, strict=True):
        assert torch.equal(many.rows[1], one.rows[0])
    for name, value in alone.state.items():
        torch.testing.assert_close(both.state[name][1], value[0])


def test_how_near_virtual_vectors_come_is_recorded_with_the_scores(tmp_path):
    """R@1, R@5 and mean cosine on test rows, by a loop over the ordered pairs."""
    home, table = Home(tmp_path), made_table(120)
    fill_store(home, table)
    words = {"epochs": "3", "seeds": "0,1", "hidden": "4", "translator_hidden": "8"}
    run = train("trml", "made", home=home, options=words)
    scores = next(s for s in run.scores if s.split == "test").metrics
    assert next(iter(scores)) == "accuracy"
    head = trml.build(inputs_of(table), hidden=4, translator_hidden=8).eval()
    for number in (0, 1):
        head.load_state_dict({n: torch.tensor(v[number]) for n, v in run.state().items()})
        part = table.take(table.split("test"))
        clean = head.clean(batch_of(part))
        first, five, cosines = [], [], []
        for a in clean:
            for m in clean:
                columns = [head.inputs.names.index(n) for n in {a, m}]
                rows = part.present[:, columns].all(1).nonzero()[:, 0].tolist()
                if a == m:
                    continue
                made = [translate(head, a, m, clean[a][row]).detach() for row in rows]
                ranks = []
                for row, x in zip(rows, made, strict=True):
                    near = [torch.cosine_similarity(x, clean[m][other], dim=0) for other in rows]
                    own = near[rows.index(row)]
                    ranks.append(sum(float(c) > float(own) for c in near))
                    cosines.append(float(own) / len(rows))
                first.append(np.mean([rank < 1 for rank in ranks]))
                five.append(np.mean([rank < 5 for rank in ranks]))
        assert scores["match_r1"][number] == pytest.approx(np.mean(first))
        assert scores["match_r5"][number] == pytest.approx(np.mean(five))
        assert scores["match_cosine"][number] == pytest.approx(sum(cosines) / 6, abs=1e-5)
