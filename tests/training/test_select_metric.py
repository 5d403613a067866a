"""Selecting by a metric: epochs, settings and runs, the right way round, recorded and told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import CLASSES, VALUE, fill_store, made_table
from typer.testing import CliRunner

from cache.errors import MmfuseError
from cache.layout import Home
from cache.runs import RunRecord, list_runs
from mmfuse_cli.main import app
from pipelines.fusion.head import Stage
from pipelines.methods import concat
from pipelines.metrics.metrics import score
from pipelines.reports import runs as results
from pipelines.reports.html import report
from pipelines.training.loop import DivergedError, FitJob, decoded, fit, monitor_of
from pipelines.training.plan import Plan, selected_by
from pipelines.training.replicas import Replicas
from pipelines.training.run import build_heads, inputs_of, prepare
from pipelines.training.sweep import sweep
from pipelines.training.train import best_of, train, train_all

WORDS = {"epochs": "4", "seeds": "0,1", "width": "4"}
QUICK = Plan(epochs=8, batch_size=16, learning_rate=3e-2, seeds=(0, 1), patience=None)


def fitted(table, plan):
    """Replicas fitted on a table's train and validation rows, and the history."""
    part = table.take(np.flatnonzero(table.samples.splits != "test"))
    heads = build_heads(concat, inputs_of(part), {"width": 8}, plan.seeds)
    prepare(heads, part, plan)
    replicas = Replicas(heads)
    return replicas, fit(replicas, FitJob(part, [plan] * len(plan.seeds), plan.seeds))


@pytest.mark.parametrize(
    ("task", "metric", "sign"),
    [(CLASSES, "ece", 1), (CLASSES, "macro_f1", -1), (VALUE, "rmse", 1), (VALUE, "spearman", -1)],
)
def test_the_best_epoch_is_the_best_by_the_metric(task, metric, sign) -> None:
    """Lower errors and higher scores; the weights that come back have the best of all epochs."""
    table = made_table(120, task)
    replicas, history = fitted(table, replace(QUICK, monitor=metric))
    held = table.take(table.split("val"))
    logits = replicas.logits(held)
    now = [score(task, metric, *decoded(held, each)) for each in logits]
    monitored = np.array([epoch.monitored for epoch in history])
    assert sign * np.array(now) == pytest.approx(monitored.min(0), abs=1e-6)
    assert (monitored.argmin(0) < len(history) - 1).any() or metric != "ece"


def test_metrics_disagree_about_the_best_epoch() -> None:
    """What is selected by calibration is not what is selected by the task loss."""
    plan = replace(QUICK, learning_rate=0.3, epochs=12, schedule="constant")
    states = [
        fitted(made_table(120), replace(plan, monitor=name))[0].state for name in ("ece", "task")
    ]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_stage_with_a_loss_of_its_own_keeps_it() -> None:
    """Before the head has learned the task, a metric of it says nothing."""
    plan = Plan(monitor="ece")
    assert monitor_of(Stage("align", monitor="loss"), plan) == "loss"
    assert monitor_of(Stage("fit"), plan) == "ece"
    assert monitor_of(Stage("fit", monitor="score"), plan) == "ece"
    assert monitor_of(Stage("fit", monitor="score"), Plan()) == "score"
    assert monitor_of(Stage("fit"), Plan(monitor="loss")) == "loss"


def with_validation(run: RunRecord, folder, **values: float) -> RunRecord:
    """The run at another place, with these metrics on validation rows."""
    (scores,) = [one for one in run.scores if one.split == "val"]
    moved = replace(run, path=folder / str(len(list(folder.iterdir()))))
    moved.path.mkdir()
    metrics = scores.metrics | {name: [value] * 2 for name, value in values.items()}
    moved.add_scores([replace(scores, metrics=metrics)])
    return moved


def test_the_best_run_is_the_best_by_what_selected_it(home: Home, tmp_path) -> None:
    """Lowest ECE, highest F1; where plans differ, and by default, the primary metric."""
    run = train("concat", "made", home=home, options=WORDS)
    folder = tmp_path / "moved"
    folder.mkdir()
    first = with_validation(run, folder, accuracy=0.9, ece=0.3, macro_f1=0.2)
    second = with_validation(run, folder, accuracy=0.8, ece=0.1, macro_f1=0.4)
    third = with_validation(run, folder, accuracy=0.7, ece=float("nan"), macro_f1=float("nan"))

    def by(monitor: str, *runs: RunRecord) -> list[RunRecord]:
        return [replace(one, plan=one.plan | {"monitor": monitor}) for one in runs]

    for monitor, best in (("task", first), ("ece", second), ("macro_f1", second), ("loss", first)):
        for runs in ([third, first, second], [second, first, third]):
            assert best_of(by(monitor, *runs)).path == best.path
    mixed = [*by("ece", second), *by("macro_f1", first)]
    assert selected_by(mixed) == "accuracy"
    assert best_of(mixed).path == first.path


def test_settings_are_selected_by_the_metric(home: Home) -> None:
    """`train` gives the best setting by it, `sweep` ranks by it; each run records it."""
    options = WORDS | {"learning_rate": "1e-3,1e-1", "monitor": "log_loss"}
    chosen = train("concat", "made", home=home, options=options)
    losses = {
        run.id: np.mean(next(s for s in run.scores if s.split == "val").metrics["log_loss"])
        for run in list_runs(home)
    }
    assert chosen.id == min(losses, key=losses.__getitem__)
    assert chosen.plan["monitor"] == "log_loss"
    found = sweep("concat", "made", home=home, options=options)
    assert (found.metric, found.trained) == ("log_loss", 0)
    values = [trial.value for trial in found.trials]
    assert values == sorted(values)
    (first, _) = results.sweep_table([trial.runs for trial in found.trials]).records()
    assert (first["metric"], first["val_mean"]) == ("log_loss", pytest.approx(values[0]))
    assert sweep("concat", "made", home=home, options=options | {"monitor": "task"}).trained == 2


def test_what_selects_is_told_where_it_is_not_the_default(home: Home) -> None:
    """In the table with the metric itself, and always in the report."""
    plain = train("concat", "made", home=home, options=WORDS)
    by_ece = train("late", "made", home=home, options=WORDS | {"monitor": "ece"})
    told = "selected by ece on validation rows: epochs, settings and runs"
    assert not any("selected" in note for note in results.train_table([plain]).notes)
    table = results.train_table([by_ece])
    assert told in table.notes
    assert {row["metric"] for row in table.records()} == {"accuracy", "ece"}
    assert f"late: {told}" in results.train_table([plain, by_ece]).notes
    page = report(home, [plain, by_ece])
    assert f">{told}<" in page
    assert (
        ">selected on validation rows: epochs by task loss, settings and runs by accuracy<" in page
    )
    own_loss = replace(plain, plan=plain.plan | {"monitor": "loss"})
    assert "epochs by the method's own loss" in " ".join(results.train_table([own_loss]).notes)


def test_a_metric_of_another_task_is_refused_before_any_training(home: Home) -> None:
    """From Python and from the command line, in one line; so is recall, which is many numbers."""
    for options in ({"monitor": "mae"}, {"monitor": "task,mae"}):
        with pytest.raises(MmfuseError, match="no metric for classes named 'mae'"):
            train_all("concat", "made", home=home, options=WORDS | options)
    for words in (
        ["train", "--method", "concat", "--select-metric", "mae"],
        ["sweep", "--method", "concat", "--select-metric", "recall"],
        ["train", "--method", "concat", "--metric", "accuracy,rmse"],
        ["train", "--method", "concat", "--select-metric", "ece", "--set", "monitor=loss"],
    ):
        done = CliRunner().invoke(app, ["--home", str(home.root), *words, "--dataset", "made"])
        assert (done.exit_code, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert ("known: accuracy" in line) == ("--set" not in words)
    assert list_runs(home) == []


def test_an_undefined_metric_is_said_to_be_undefined(tmp_path) -> None:
    """One class alone in the validation rows has no AUROC: not the learning rate is to blame."""
    table = made_table(60)
    targets = table.samples.targets.copy()
    targets[table.split("val")] = 1
    samples = replace(table.samples, targets=targets)
    home = Home(tmp_path)
    fill_store(home, replace(table, samples=samples))
    with pytest.raises(DivergedError, match=r"auroc on validation rows .* these 12 rows do not"):
        train("concat", "made", home=home, options=WORDS | {"monitor": "auroc"})
