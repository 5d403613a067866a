"""EF-CL: parameter counts (G9), both stages against loops, and what its public code got wrong."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache.errors import MmfuseError
from cache.samples import Task
from pipelines import counter_rng
from pipelines.contracts import head_learning, synthetic
from pipelines.features.table import Batch
from pipelines.fusion.head import FusionHead, Inputs, Stream
from pipelines.methods import ef_cl
from pipelines.training.loop import FitJob, fit
from pipelines.training.plan import Plan
from pipelines.training.replicas import Replicas

CARDS = Task("classes", tuple(f"type {number}" for number in range(18)))


def mug(tabular: int = 45, task: Task = CARDS) -> Inputs:
    """Streams of a MuG task: CLIP text and image, and a table."""
    widths = {"clip/image": 512, "clip/text": 512, "tabular/table": tabular}
    return Inputs({n: Stream(w, n.split("/")[1]) for n, w in widths.items()}, task)


SMALL = Inputs(
    {"a/text": Stream(4, "text"), "b/audio": Stream(5, "audio"), "c/image": Stream(4, "image")},
    synthetic.CLASSES,
)


def head(seed: int = 0, inputs: Inputs = SMALL, **options: object) -> FusionHead:
    """A small head in double precision and eval mode."""
    torch.manual_seed(seed)
    return ef_cl.build(inputs, **{"hidden": 6, **options}).double().eval()


def batch(rows: int = 12, seed: int = 0, inputs: Inputs = SMALL) -> Batch:
    """Random features in double precision."""
    return synthetic.double(synthetic.batch(inputs, rows, seed))


def count(model: FusionHead, part: str = "") -> int:
    """Parameters whose name begins with `part`."""
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith(part))


def test_g9_parameters_of_pkm_t1_are_the_published_closed_form():
    """G9: 18 classes, hidden 256, a table of 45: early fusion, both projectors, both presets."""
    assert count(ef_cl.build(mug(), contrast=False)) == 345_362
    official = ef_cl.build(mug(), preset="official")
    assert count(official) == 752_146
    assert count(official, "classifier") == 464_914
    assert count(official, "projectors") == 287_232
    assert count(ef_cl.build(mug())) == 488_466


@given(
    tabular=st.integers(1, 60),
    hidden=st.integers(2, 20),
    classes=st.integers(2, 9),
    form=st.sampled_from(["paper", "code"]),
)
@settings(max_examples=20, deadline=None)
def test_c9_parameter_counts_follow_the_closed_form(tabular, hidden, classes, form):
    """C9: clf = H·in + H + 2H + H² + H + 2H + CH + C, and a projector of d_p·D + d_p (+ code)."""
    task = Task("classes", tuple(map(str, range(classes))))
    inputs = Inputs(
        {"t": Stream(7, "text"), "i": Stream(7, "image"), "e": Stream(tabular, "table")}, task
    )
    model = ef_cl.build(inputs, hidden=hidden, projector=form)
    joined = 3 * 7
    classifier = hidden * joined + hidden + 2 * hidden + hidden**2 + hidden + 2 * hidden
    classifier += classes * hidden + classes
    projector = 7 * tabular + 7 + (49 + 7 + 14 if form == "code" else 0)
    assert count(model) == classifier + projector


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_projector_is_its_formula(form):
    """Paper: tanh(a) + a; code: LayerNorm(W tanh(a) + b + a), where a = Wx + b."""
    model = head(projector=form)
    data = synthetic.with_present(batch(), torch.ones(12, 3).bool())
    part = model.projectors["b/audio"]["4"]
    x = data.features["b/audio"]
    a = x @ part.first.weight.T + part.first.bias
    want = a.tanh() + a
    if form == "code":
        mixed = a.tanh() @ part.second.weight.T + part.second.bias + a
        want = torch.nn.functional.layer_norm(mixed, (4,), eps=1e-5)
    torch.testing.assert_close(part(x, data.numbers, training=False), want)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_the_align_loss_is_a_loop_over_anchors_and_rows(preset):
    """Rows that have both, anchor by anchor; hardest k; mean of the two anchors' means."""
    model = head(preset=preset, hardest=3)
    data = synthetic.behind_absent(batch(rows=16, seed=2), float("nan"))
    part, made = model.projectors["b/audio"]["4"], {}
    for i in range(16):
        if data.present[i, 1]:
            made[i] = part(data.features["b/audio"][i : i + 1], data.numbers, training=False)[0]
    means = []
    for column, anchor in ((0, "a/text"), (2, "c/image")):
        rows = [i for i in made if data.present[i, column]]
        losses = []
        for i in rows:
            scores = {}
            for j in rows:
                a, r = (i, j) if preset == "paper" else (j, i)
                similarity = torch.cosine_similarity(data.features[anchor][a], made[r], dim=0)
                scores[j] = similarity / 0.07
            others = torch.stack([s for j, s in scores.items() if j != i]).sort().values[-3:]
            against = others.exp().sum()
            if preset == "paper":
                against = against + scores[i].exp()
            losses.append(against.log() - scores[i])
        means.append(torch.stack(losses).mean())
    want = torch.stack(means).mean()
    torch.testing.assert_close(model.loss(data, model(data), "align"), want)


def test_an_anchor_without_pairs_is_left_out_of_the_mean():
    """Only the text has pairs with audio: the loss is the text's alone, not half of it."""
    model, data = head(), batch()
    present = torch.ones(12, 3).bool()
    whole = synthetic.with_present(data, present)
    text_only = synthetic.with_present(data, present & torch.tensor([True, True, False]))
    alone = copy.deepcopy(model)
    alone.anchors = ("a/text",)
    want = alone.loss(whole, model(whole), "align")
    torch.testing.assert_close(model.loss(text_only, model(text_only), "align"), want)
    nothing = synthetic.with_present(data, present & torch.tensor([True, False, True]))
    assert float(model.loss(nothing, model(nothing), "align").detach()) == 0


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_the_classifier_is_two_blocks_and_an_output(preset):
    """Paper: linear, BatchNorm, ReLU twice; code: LeakyReLU(.01); enhanced stream first."""
    model = head(preset=preset)
    data = batch()
    fused = model(data)
    audio, text, image = (
        torch.where(data.present[:, m, None], data.features[n], 0)
        for m, n in ((1, "b/audio"), (0, "a/text"), (2, "c/image"))
    )
    made = model.projectors["b/audio"]["4"](audio, data.numbers, training=False)
    made = torch.where(data.present[:, 1, None], made, 0)
    x = torch.cat([made, text, image], 1)
    slope = 0.0 if preset == "paper" else 0.01
    for linear, norm in zip(model.classifier.blocks, model.classifier.norms, strict=True):
        x = x @ linear.weight.T + linear.bias
        x = torch.nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        x = torch.nn.functional.leaky_relu(x, slope)
    want = x @ model.classifier.out.weight.T + model.classifier.out.bias
    torch.testing.assert_close(fused.logits, want)


def test_e3_the_code_s_classifier_drops_a_fifth_while_training():
    """E3: in training two layers of dropout .2 before LeakyReLU, by their numbers; paper: none."""
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(0)).double()
    rows, key = torch.ones(64).bool(), torch.tensor(5)
    for form in ("code", "paper"):
        torch.manual_seed(1)
        part = ef_cl.Classifier(12, 6, 3, form).double().train()
        want = x
        for number, (linear, norm) in enumerate(zip(part.blocks, part.norms, strict=True)):
            want = torch.nn.functional.batch_norm(
                linear(want), None, None, norm.weight, norm.bias, training=True
            )
            if form == "code":
                stays = counter_rng.uniform(key, f"ef_cl.block{number}", want.shape) >= 0.2
                want = torch.where(stays, want / 0.8, 0)
                assert 0.7 < float(stays.double().mean()) < 0.9
            want = torch.nn.functional.leaky_relu(want, 0.01 if form == "code" else 0.0)
        torch.testing.assert_close(part(x, rows, key), part.out(want))


def test_absent_streams_are_zeros_behind_the_projector():
    """The projection of zeros is not zero, so the zeros of the code stand behind it."""
    model = head()
    data = batch()
    seen: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(synthetic.behind_absent(data, float("nan")))
    for column, part in ((1, slice(0, 4)), (0, slice(4, 8)), (2, slice(8, 12))):
        assert not seen[0][~data.present[:, column], part].any()
        assert seen[0][data.present[:, column], part].any()


def test_other_fills_are_the_train_mean_or_a_learned_vector_with_presence():
    """Mean: before the projector; learned: after it, and a presence bit per stream."""
    data = batch()
    for fill, width in (("mean", 12), ("learned", 15)):
        model = head(fill=fill)
        seen: list[Tensor] = []
        model.classifier.register_forward_pre_hook(lambda _, i, seen=seen: seen.append(i[0]))
        if fill == "mean":
            model.filler.get_buffer("mean_b/audio").copy_(torch.arange(5))
        model(data)
        assert seen[0].shape == (12, width)
        audio = seen[0][~data.present[:, 1], :4]
        if fill == "mean":
            mean = torch.arange(5).double()[None]
            want = model.projectors["b/audio"]["4"](mean, data.numbers, training=False)
        else:
            want = model.filler.learned["b/audio"][None]
            assert torch.equal(seen[0][:, 12:], data.present.double())
        torch.testing.assert_close(audio, want.expand_as(audio))


def trained(stage_epochs: int = 4, seed: int = 0) -> tuple[Replicas, list, dict[str, Tensor]]:
    """A head fitted on a synthetic task, its history, and the state when classification began."""
    task = synthetic.synthetic_task("redundant", head_learning.TRAIN + 2 * head_learning.HELD)
    table = head_learning.training_table(task).take(
        np.arange(head_learning.TRAIN + head_learning.HELD)
    )
    torch.manual_seed(seed)
    model = ef_cl.build(task.inputs, hidden=8)
    model.stages = tuple(replace(s, plan={**s.plan, "batch_size": 64}) for s in model.stages)
    replicas = Replicas([model])
    projectors: dict[str, Tensor] = {}

    def keep(replicas: Replicas, progress: object) -> None:
        if progress.stage == 1 and not projectors:
            projectors.update(
                {n: x.clone() for n, x in replicas.state.items() if "projectors" in n}
            )

    plan = Plan(epochs=stage_epochs, batch_size=64, learning_rate=1e-2, seeds=(0,))
    history = fit(replicas, FitJob(table, [plan], (0,), keep=keep))
    return replicas, history, projectors


def test_c9_the_projector_is_frozen_while_classifying():
    """C9: projectors move while aligning and are equal bit for bit ever after."""
    replicas, history, projectors = trained()
    assert [epoch.stage for epoch in history] == ["align"] * 4 + ["classify"] * 4
    assert projectors
    for name, before in projectors.items():
        assert torch.equal(replicas.state[name], before)
    losses = [epoch.losses[0] for epoch in history if epoch.stage == "align"]
    assert losses[-1] < losses[0]


def test_projecting_twice_gives_the_same_vectors_in_training_too():
    """E10: no dropout in projections while classifying: equal to eval mode bit for bit."""
    model = head(preset="official", noise=0)
    data = batch()
    seen: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(data)
    model.train()(data)
    assert torch.equal(seen[0], seen[1])


def joined(model: FusionHead, data: Batch) -> Tensor:
    """What the classifier gets."""
    seen: list[Tensor] = []
    hook = model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(data)
    hook.remove()
    return seen[0].detach()


@pytest.mark.parametrize("fill", ["zero", "learned", "mean"])
def test_e13_the_official_preset_trains_on_corrupted_rows(fill):
    """E13: of 20 rows each stream loses int(.15 · 20) = 3 and 3 others get N(0, 1), by a loop."""
    model = head(preset="official", fill=fill)
    whole = synthetic.with_present(batch(rows=20), torch.ones(20, 3).bool())
    plain, training = joined(model.eval(), whole), joined(model.train(), whole)
    places = {"b/audio": 0, "a/text": 4, "c/image": 8}
    chosen = {}
    for name, start in places.items():
        part = slice(start, start + 4)
        order = counter_rng.permutation(whole.numbers, f"ef_cl.{name}", 20).tolist()
        noise = counter_rng.normal(whole.numbers, f"ef_cl.noise {name}", (20, 4)).double()
        others = torch.tensor([other != name for other in SMALL.names]).expand(20, 3)
        absent = joined(model.eval(), synthetic.with_present(whole, others))[:, part]
        for row in range(20):
            want = plain[row, part]
            if order[row] < 3:
                want = absent[row]
            elif order[row] < 6:
                want = want + noise[row]
            torch.testing.assert_close(training[row, part], want, rtol=0, atol=1e-12)
        chosen[name] = {row for row in range(20) if order[row] < 6}
    assert len({frozenset(rows) for rows in chosen.values()}) == 3
    if fill == "learned":
        assert (training[:, 12:].sum(0) == 17).all()


def test_e13_nothing_is_corrupted_while_aligning_or_in_the_paper_s_preset():
    """The align loss is the same with and without noise; `paper` has none unless it is asked."""
    data = batch(rows=20)
    noisy, quiet = head(preset="official").train(), head(preset="official", noise=0).train()
    losses = [model.loss(data, model(data), "align") for model in (noisy, quiet)]
    assert torch.equal(*losses)
    assert head().noise == 0
    assert head(noise=0.3).noise == 0.3
    with pytest.raises(MmfuseError, match=r"a share from 0 to .5, not 0.6"):
        head(noise=0.6)


def test_e11_no_graph_leads_through_the_frozen_projector():
    """E11: the classification loss has no gradient for projectors, so no graph for them."""
    model = head().train()
    data = batch()
    model.loss(data, model(data), "classify").backward()
    assert all((p.grad is None) == n.startswith("projectors") for n, p in model.named_parameters())


def test_v17_the_weights_of_the_best_epoch_are_restored_not_the_last():
    """V17 and E5: on random targets more epochs hurt, and validation ends at its best value."""
    task = synthetic.synthetic_task("unique", head_learning.TRAIN + 2 * head_learning.HELD)
    order = torch.randperm(len(task.targets), generator=torch.Generator().manual_seed(0))
    task = replace(task, targets=task.targets[order])
    table = head_learning.training_table(task).take(
        np.arange(head_learning.TRAIN + head_learning.HELD)
    )
    torch.manual_seed(0)
    replicas = Replicas([ef_cl.build(task.inputs, hidden=8, contrast=False)])
    plan = Plan(epochs=6, learning_rate=0.03, clip=None, patience=None, seeds=(0,))
    history = fit(replicas, FitJob(table, [plan], (0,)))
    monitored = [epoch.monitored[0] for epoch in history]
    held = table.take(table.split("val"))
    logits = replicas.logits(held)[0]
    reached = float(torch.nn.functional.cross_entropy(logits, held.targets))
    assert reached == pytest.approx(min(monitored), rel=1e-5)
    assert monitored[-1] > min(monitored)


def test_v21_a_batch_of_one_in_training_uses_the_running_statistics():
    """V21: BatchNorm of one row is undefined; here the row is normalised as in evaluation."""
    model = head()
    one = synthetic.with_present(batch(rows=1), torch.ones(1, 3).bool())
    evaluated = model.eval()(one).logits
    torch.testing.assert_close(model.train()(one).logits, evaluated)


def test_eleven_rows_of_the_table_are_subsets_with_and_without_contrast():
    """Section 5.1's rows: any subset of streams is early fusion; with a table, contrast or not."""
    whole = mug(9, synthetic.CLASSES).streams
    for names in (("clip/text",), ("clip/image",), ("tabular/table",), ("clip/text", "clip/image")):
        inputs = Inputs({n: whole[n] for n in names}, synthetic.CLASSES)
        assert [stage.name for stage in ef_cl.build(inputs).stages] == ["classify"]
    for names in (("clip/text", "tabular/table"), ("clip/image", "tabular/table"), tuple(whole)):
        inputs = Inputs({n: whole[n] for n in names}, synthetic.CLASSES)
        stages = [stage.name for stage in ef_cl.build(inputs).stages]
        assert stages == ["align", "classify"]
        plain = [stage.name for stage in ef_cl.build(inputs, contrast=False).stages]
        assert plain == ["classify"]


def test_anchors_of_another_width_have_a_projector_of_their_own():
    """Cosines need equal widths: one projector for each width among the anchors, both joined."""
    inputs = Inputs(
        {"t": Stream(4, "text"), "i": Stream(6, "image"), "e": Stream(5, "audio")},
        synthetic.CLASSES,
    )
    model = head(inputs=inputs)
    assert set(model.projectors["e"]) == {"4", "6"}
    assert model.classifier.blocks[0].in_features == 4 + 6 + 4 + 6


def test_pairs_that_are_duplicates_or_of_one_class_can_be_no_negatives():
    """Each option shrinks the set of negatives, so the paper's loss can only fall."""
    data = synthetic.with_present(batch(rows=10, seed=3), torch.ones(10, 3).bool())
    text = data.features["a/text"].clone()
    text[1] = text[0] * 2
    data = replace(data, features={**data.features, "a/text": text, "c/image": text})
    loss = {
        name: float(model.loss(data, model(data), "align").detach())
        for name, model in {
            "all": head(hardest=9),
            "apart": head(hardest=9, drop_duplicates_above=0.999),
            "classes": head(hardest=9, exclude_same_label=True),
        }.items()
    }
    assert loss["apart"] < loss["all"]
    assert loss["classes"] < loss["all"]


def test_words_that_name_no_anchor_are_refused():
    """Unknown anchors name the known ones; labels to exclude need labels."""
    with pytest.raises(MmfuseError, match="no anchor named 'txt'; did you mean text"):
        ef_cl.build(SMALL, anchors=("txt",))
    assert ef_cl.find_anchors(SMALL, ("b/audio",)) == ["b/audio"]
    with pytest.raises(MmfuseError, match="needs classes or labels"):
        ef_cl.build(synthetic.inputs((3, 3), synthetic.VALUE), exclude_same_label=True)
