"""Training: the loop, selection, the lock on test rows, resuming, records."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import CLASSES, LABELS, VALUE, fill_store, made_table, relabelled

from cache.errors import MmfuseError
from cache.layout import Home
from cache.runs import RunRecord, list_runs
from cache.samples import Task
from pipelines.features.table import FeatureTable
from pipelines.fusion.head import FusionHead
from pipelines.methods import concat
from pipelines.metrics.metrics import log_loss, softmax
from pipelines.training import resume
from pipelines.training.loop import Epoch, FitJob, Progress, fit
from pipelines.training.plan import Plan, Setting, Untyped
from pipelines.training.replicas import Replicas
from pipelines.training.request import checked_request
from pipelines.training.restore import rebuild
from pipelines.training.run import build_heads, grid_of, inputs_of, prepare, stackable
from pipelines.training.train import best_of, train, train_all

QUICK = Plan(epochs=6, batch_size=16, learning_rate=1e-2, seeds=(0, 1), drop_rate=0.2)
HEAD = """
\"\"\"A head of one's own.\"\"\"
from torch import nn
from mmfuse import Fused, FusionHead, Tokens, present_mean

class Mine(FusionHead):
    def __init__(self, inputs, width):
        super().__init__(inputs)
        self.tokens, self.out = Tokens(inputs, width), nn.Linear(width, inputs.outputs)
    def forward(self, batch):
        return Fused(self.out(present_mean(self.tokens(batch), batch.present)))

def build(inputs, *, width: int = 8):
    return Mine(inputs, width)
"""


def heads_of(table: FeatureTable, seeds: Sequence[int]) -> list[FusionHead]:
    """Small concat heads that know the train rows' moments."""
    heads = build_heads(concat, inputs_of(table), {"width": 8}, seeds)
    prepare(heads, table, QUICK)
    return heads


def seen(table: FeatureTable) -> FeatureTable:
    """Train and validation rows."""
    return table.take(np.flatnonzero(table.samples.splits != "test"))


def fitted(table: FeatureTable, plan: Plan = QUICK, **more: Any) -> tuple[Replicas, list[Epoch]]:
    """Replicas fitted on a table's train rows."""
    part = seen(table)
    replicas = Replicas(heads_of(part, plan.seeds))
    return replicas, fit(replicas, FitJob(part, [plan] * len(plan.seeds), plan.seeds, **more))


def same(one: Replicas, other: Replicas) -> bool:
    """Whether two stacks agree in every bit."""
    return all(torch.equal(v, other.state[n]) for n, v in one.state.items())


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
def test_training_learns(task: Task) -> None:
    """The training loss falls and the validation score beats the start's, for every task."""
    _, history = fitted(made_table(200, task), replace(QUICK, epochs=15))
    first, last = history[0], history[-1]
    assert max(last.losses) < min(first.losses)
    assert len(last.scores) == 2


def test_the_same_training_twice_is_the_same_to_the_bit() -> None:
    """Nothing reads a global random state."""
    torch.manual_seed(1)
    one, _ = fitted(made_table(80))
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 - on purpose: nothing may read it
    other, _ = fitted(made_table(80))
    assert same(one, other)


def test_a_seed_alone_trains_as_among_others() -> None:
    """Weights of seed 1 trained alone are those it has beside seed 0, to rounding."""
    both, _ = fitted(made_table(80))
    alone, _ = fitted(made_table(80), replace(QUICK, seeds=(1,)))
    for name, value in alone.state.items():
        assert torch.allclose(both.state[name][1], value[0], atol=1e-4), name


def test_the_best_weights_are_kept_as_copies() -> None:
    """With a rate that ruins the weights later on, the early best epoch's weights come back."""
    states: list[dict[str, torch.Tensor]] = []

    def keep(replicas: Replicas, progress: Progress) -> None:
        states.append({n: v.clone() for n, v in replicas.state.items()})

    plan = replace(QUICK, learning_rate=0.3, clip=None, epochs=12, patience=None, seeds=(0, 1, 2))
    replicas, history = fitted(made_table(80), plan, keep=keep)
    monitored = np.array([epoch.monitored for epoch in history])
    best = np.nanargmin(monitored, 0)
    assert (best < len(history) - 1).any()
    for r, epoch in enumerate(best):
        for name, value in replicas.state.items():
            assert torch.equal(value[r], states[epoch][name][r]), name


def test_test_rows_cannot_reach_the_weights() -> None:
    """Random test labels and features leave the selected weights as they are, bit for bit."""
    table = made_table(100)
    other = relabelled(table, "test")
    features = {n: x.clone() for n, x in other.features.items()}
    for x in features.values():
        x[other.split("test")] = 1e3
    changed, _ = fitted(replace(other, features=features))
    assert same(fitted(table)[0], changed)


def test_validation_rows_select_and_do_not_train() -> None:
    """Without early stopping, random validation labels change the choice, never the path."""
    plan, paths = replace(QUICK, patience=None, schedule="constant"), []
    for table in (made_table(100), relabelled(made_table(100), "val")):
        path: list[torch.Tensor] = []
        fitted(table, plan, keep=lambda r, _, path=path: path.append(r.blocks[0].flat.clone()))
        paths.append(torch.stack(path))
    assert torch.equal(paths[0], paths[1])


@pytest.mark.parametrize("monitor", ["task", "loss", "score"])
def test_patience_stops_each_replica_by_its_own_validation(monitor: Any) -> None:
    """A stopped replica reports nothing any more, and training ends with the last one."""
    plan = replace(QUICK, epochs=60, patience=2, monitor=monitor, learning_rate=0.05)
    _, history = fitted(made_table(100), plan)
    assert len(history) < 60
    assert not any(history[-1].active)
    for r in range(2):
        going = [not np.isnan(epoch.losses[r]) for epoch in history]
        assert going == sorted(going, reverse=True)


def test_a_replica_that_diverges_is_named() -> None:
    """No finite validation loss at all is an error that names what to lower."""
    table = made_table(60)
    part = seen(replace(table, features={n: x * float("inf") for n, x in table.features.items()}))
    replicas = Replicas(build_heads(concat, inputs_of(part), {"input_norm": "none"}, [4]))
    with pytest.raises(MmfuseError, match=r"diverged.* seed 4.*learning_rate"):
        fit(replicas, FitJob(part, [replace(QUICK, seeds=(4,), epochs=2)], [4]))


class Killed(Exception):  # noqa: N818 - as sudden as the real thing
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [1, 4])
def test_going_on_equals_never_stopping(tmp_path: Path, after: int) -> None:
    """Killed after some epochs and continued from the file, every bit and epoch is the same."""
    table, place, plan = made_table(90), tmp_path / "deep" / "state.safetensors", QUICK
    whole, history = fitted(table, plan)
    part, write = seen(table), resume.checkpoint_writer(place, 0.0)

    def keep(replicas: Replicas, progress: Progress) -> None:
        write(replicas, progress)
        if len(progress.history) == after:
            raise Killed

    job = FitJob(part, [plan] * 2, plan.seeds, keep=keep)
    with pytest.raises(Killed):
        fit(Replicas(heads_of(part, plan.seeds)), job)
    other = Replicas(heads_of(part, plan.seeds))
    progress = resume.read_checkpoint(place, other)
    assert progress is not None
    assert len(progress.history) == after
    rest = fit(other, FitJob(part, [plan] * 2, plan.seeds), progress)
    assert same(whole, other)
    assert rest == history


def test_a_damaged_file_of_an_unfinished_training_is_named(tmp_path: Path) -> None:
    """The error says which file and what to do."""
    place = tmp_path / "state.safetensors"
    place.write_bytes(b"nonsense")
    with pytest.raises(MmfuseError, match=r"state\.safetensors is damaged"):
        resume.read_checkpoint(place, Replicas(heads_of(made_table(30), [0])))


def test_an_interrupted_command_goes_on_by_itself(home: Home) -> None:
    """The same command again takes up where it stopped, and leaves nothing unfinished behind."""
    words = {"width": "8", "epochs": "5", "seeds": "0,1"}
    whole = train("concat", "made", home=home, options=words)
    numbers: list[int] = []

    def stop(epoch: Epoch) -> None:
        numbers.append(epoch.number)
        if epoch.number == 3 and len(numbers) == 3:
            raise Killed

    def again() -> RunRecord:
        return train("concat", "made", home=home, options=words, on_epoch=stop, keep_seconds=0.0)

    with pytest.raises(Killed):
        again()
    assert len(list((home.runs / ".unfinished").iterdir())) == 1
    record = again()
    assert numbers == [1, 2, 3, 3, 4, 5]
    for name, value in record.state().items():
        assert np.array_equal(value, whole.state()[name])
    assert not list((home.runs / ".unfinished").iterdir())


def test_a_run_is_recorded_whole(home: Home) -> None:
    """Scores, baselines, history, predictions and state agree with each other."""
    words = {"epochs": "4", "seeds": "3,5", "width": 8, "missing_rate": "0.3"}
    run = train("concat", "made", home=home, options=words)
    assert run == list_runs(home)[0]
    assert [s.pattern for s in run.scores] == ["rate 0.3", "rate 0.3"]
    assert {s.split for s in run.scores} == {"val", "test"}
    assert set(run.baselines) == {"majority", "logistic"}
    assert 0.2 < run.missing_rate < 0.3
    assert run.absent["train"] > 0.3
    assert run.options == {"width": 8, "dropout": 0.1, "input_norm": "zscore"}
    assert run.tags == {"data": "synthetic", "weights": "weight-free"}
    assert run.epochs == (4, 4)
    state = run.state()
    learned = sum(v[0].size for n, v in state.items() if n.endswith(("weight", "bias", "holder")))
    assert run.parameters == learned - state["class_weight"][0].size
    test = next(s for s in run.scores if s.split == "test")
    predictions = run.predictions()
    targets = made_table(120).samples.targets
    for number, seed in enumerate((3, 5)):
        mine = predictions.filter((predictions["seed"] == seed) & (predictions["split"] == "test"))
        chosen = np.array(mine["outputs"].to_list()).argmax(1)
        accuracy = (chosen == targets[mine["row"].to_numpy()]).mean()
        assert test.metrics["accuracy"][number] == pytest.approx(accuracy)
        probabilities = softmax(np.array(mine["outputs"].to_list()))  # V20: of the same predictions
        loss = log_loss(probabilities, targets[mine["row"].to_numpy()])
        assert test.metrics["log_loss"][number] == pytest.approx(loss, rel=1e-5)
    assert run.costs["macs"] == (6 + 5 + 4) * 8 + 3 * 8 * 8 + 8 * 3
    assert rebuild(run, torch.device("cpu")).count == 2


def test_a_grid_of_rates_is_trained_side_by_side(home: Home) -> None:
    """Each setting is a run of its own in one group, equal to the run it would be alone."""
    words = {"epochs": "4", "seeds": "0,1", "width": "8"}
    runs = train_all("concat", "made", home=home, options=words | {"learning_rate": "1e-3,1e-2"})
    assert [run.plan["learning_rate"] for run in runs] == [1e-3, 1e-2]
    assert len({run.group for run in runs}) == 1
    alone = train("concat", "made", home=home, options=words | {"learning_rate": "1e-2"})
    for name, value in alone.state().items():
        assert np.allclose(value, runs[1].state()[name], atol=1e-4), name
    values = [np.mean(run.scores[0].metrics["accuracy"]) for run in runs]
    assert best_of(runs) is runs[int(np.argmax(values))]


def test_settings_that_shape_the_computation_are_not_stacked() -> None:
    """Rates share a stack; widths and epochs do not."""
    plan = Plan()
    grid = [
        Setting(plan, {"width": 8}),
        Setting(replace(plan, learning_rate=0.1), {"width": 8}),
        Setting(plan, {"width": 16}),
        Setting(replace(plan, epochs=3), {"width": 8}),
    ]
    assert stackable(grid) == [[0, 1], [2], [3]]


def test_a_head_in_a_file_trains_and_is_found_again(home: Home, tmp_path: Path) -> None:
    """The file's text is stored with the run, which can be rebuilt once the file is gone."""
    file = tmp_path / "mine.py"
    file.write_text(HEAD)
    run = train(str(file), "made", home=home, options={"epochs": "3", "width": "4"})
    file.unlink()
    assert "-mine-made-" in run.id
    replicas = rebuild(run, torch.device("cpu"))
    assert replicas.head.tokens.placeholder.shape == (3, 4)  # type: ignore[union-attr]
    (run.path / "method.py").write_text(HEAD + "# changed")
    with pytest.raises(MmfuseError, match="is not what"):
        rebuild(run, torch.device("cpu"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "conkat"}, "did you mean concat"),
        ({"options": {"widht": "3"}}, "did you mean width"),
        ({"dataset": "other"}, "mmfuse extract --dataset other"),
        ({"features": ["lens/image", "nose/smell"]}, "nose/smell"),
        ({"method": "./no.py"}, "no such file"),
    ],
)
def test_mistakes_are_reported(home: Home, asked: dict[str, Any], message: str) -> None:
    """Each error names what is wrong and what would be right."""
    with pytest.raises(MmfuseError, match=message):
        train(**({"method": "concat", "dataset": "made", "home": home} | asked))


def test_class_weights_change_what_is_learned(home: Home) -> None:
    """Weighted training gives other weights, and the classes' weights are in the state."""
    words = {"epochs": "2", "seeds": "0", "width": "8"}
    plain = train("concat", "made", home=home, options=words)
    weighted = train("concat", "made", home=home, options=words | {"class_weights": "true"})
    assert (plain.state()["class_weight"] == 1).all()
    assert not np.allclose(weighted.state()["class_weight"], 1, atol=1e-3)
    assert not np.array_equal(plain.state()["out.weight"], weighted.state()["out.weight"])


def test_a_task_that_a_method_does_not_have_is_refused_by_its_source_alone(tmp_path: Path) -> None:
    """By the constant TASKS, before the method is imported."""
    home = Home(tmp_path)
    fill_store(home, made_table(60, task=VALUE))
    with pytest.raises(MmfuseError, match="mla is for classes and labels, and the target of made"):
        checked_request("mla", "made", home=home)
    assert checked_request("late", "made", home=home).infos


def test_words_become_values_once_before_torch_is_imported(home: Home) -> None:
    """A request has typed values; only what the method's source does not tell stays a word."""
    words = {"width": "4,8", "stem": "gru", "score": "gat", "epochs": "3", "dropout": 0.5}
    request = checked_request("clarga", "made", home=home, options=words)
    assert request.settings == {
        "width": [4, 8],
        "stem": ["gru"],
        "score": Untyped("gat"),
        "epochs": [3],
        "dropout": [0.5],
    }
    first, second = grid_of(request)
    assert first.options == {"width": 4, "stem": "gru", "score": "gat", "dropout": 0.5}
    assert (second.options["width"], second.plan.epochs) == (8, 3)


def test_a_place_for_runs_that_cannot_be_written_is_reported_before_training(home: Home) -> None:
    """A file where runs go is reported at once, and no epoch is trained."""
    home.runs.write_text("not a folder")
    epochs: list[Epoch] = []
    with pytest.raises(MmfuseError, match="a file is in the way"):
        train("concat", "made", home=home, options={"epochs": 1}, on_epoch=epochs.append)
    assert epochs == []


def test_a_file_that_builds_no_head_is_named(home: Home, tmp_path: Path) -> None:
    """One line says what `build` gave instead."""
    path = tmp_path / "three.py"
    path.write_text("def build(inputs):\n    return 3\n")
    with pytest.raises(MmfuseError, match=r"three.py: build\(\) gave int, not a FusionHead"):
        train(str(path), "made", home=home)
