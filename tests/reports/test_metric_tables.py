"""Tables of metrics: methods and baselines by each one asked for, recall by class, old records."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import VALUE, fill_store, made_table
from project import ROOT
from typer.testing import CliRunner

import mmfuse
from cache.layout import Home
from cache.runs import Scores
from cache.samples import Task
from mmfuse_cli.main import app
from pipelines.evaluation.recorded import recorded_scores
from pipelines.features.missing import MissingPattern
from pipelines.metrics.metrics import METRICS, score
from pipelines.reports import recall
from pipelines.reports import runs as results
from pipelines.reports.compare import compare
from pipelines.training.train import train

WORDS = {"epochs": "3", "seeds": "0,1", "width": "4"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    """Features of three streams of 100 rows, of classes and of values."""
    home = Home(tmp_path_factory.mktemp("home"))
    fill_store(home, made_table(100))
    fill_store(home, made_table(100, VALUE), "prices")
    return home


@pytest.fixture(scope="module")
def trained(home) -> list[mmfuse.RunRecord]:
    """Two methods on classes."""
    return [train(method, "made", home=home, options=WORDS) for method in ("concat", "late")]


def typed(home: Home, *words: str) -> list[dict]:
    """Tables of a command as JSON."""
    done = CliRunner().invoke(app, ["--home", str(home.root), "--json", *words])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["tables"]


def on_test(run: mmfuse.RunRecord) -> Scores:
    """Scores on test rows as trained."""
    return next(one for one in run.scores if one.split == "test")


def rows_of(table: mmfuse.Table, label: str) -> list[dict]:
    """Records of one method."""
    return [row for row in table.records() if row["label"] == label]


def test_baselines_have_the_metrics_of_the_methods(trained) -> None:
    """Every metric is a block of rows: runs, then logistic and majority, each with its numbers."""
    names = METRICS["classes"]
    rows = results.train_table(trained, names).records()
    assert [row["metric"] for row in rows] == [name for name in names for _ in range(4)]
    assert [row["label"] for row in rows[:4]] == ["concat", "late", "logistic", "majority"]
    for row in rows:
        assert row["test_mean"] is not None, row
    scores = on_test(trained[1])
    (ece,) = [row for row in rows if (row["metric"], row["label"]) == ("ece", "late")]
    assert ece["test_values"] == scores.metrics["ece"]
    assert ece["runs"] == [trained[1].id]


def test_a_metric_that_is_better_when_lower_is_told(trained) -> None:
    """Where metrics were asked for; the default table needs no such line."""
    asked = results.train_table(trained, ["ece", "auroc", "brier"])
    assert "lower is better: ece, brier" in asked.notes
    assert not any("lower" in note for note in results.train_table(trained).notes)


def test_an_evaluation_shows_every_metric_asked_for_with_its_change(home, trained) -> None:
    """Change and interval are those of the metric; methods stand side by side for each."""
    patterns = [MissingPattern.named("image")]
    done = [mmfuse.evaluate(home, run, patterns, metrics=["ece", "macro_f1"]) for run in trained]
    rows = results.evaluation_table(done).records()
    assert [(row["label"], row["metric"], row["missing"]) for row in rows] == [
        (method, metric, pattern)
        for method in ("concat", "late")
        for metric in ("ece", "macro_f1")
        for pattern in ("complete", "without image")
    ]
    for complete, without in zip(rows[::2], rows[1::2], strict=True):
        assert complete["change"] is complete["interval_low"] is None
        assert without["change"] == pytest.approx(without["score_mean"] - complete["score_mean"])
        assert without["interval_low"] <= without["change"] <= without["interval_high"]
        assert without["linear_mean"] != without["majority_mean"]
    first, second = results.robustness_tables(done)
    assert (first.title[:14], second.title[:19]) == ("made: test ece", "made: test macro_f1")
    assert done[0].rows[1].difference == done[0].rows[1].differences["ece"]


def test_recall_of_each_class_stands_by_methods(home, trained) -> None:
    """As trained and under each pattern; the mean over classes is the balanced accuracy."""
    (table,) = recall.recall_tables(trained)
    assert table.headings == ["class", "rows", "concat", "late", "logistic", "majority"]
    rows, scores = rows_of(table, "concat"), on_test(trained[0])
    assert [row["class"] for row in rows] == ["a", "b", "c"]
    assert sum(row["rows"] for row in rows) == scores.rows
    means = [row["recall_mean"] for row in rows]
    assert np.mean(means) == pytest.approx(np.mean(scores.metrics["balanced_accuracy"]))
    common = [row["recall_mean"] for row in rows_of(table, "majority")]
    assert sorted(common) == [0.0, 0.0, 1.0]
    done = [mmfuse.evaluate(home, run, [MissingPattern.named("image")]) for run in trained]
    whole, without = recall.pattern_recall_tables(done)
    assert whole.records() == table.records()
    assert without.title == "made: recall of test rows by class, without image"


def test_of_hundreds_of_classes_the_worst_are_shown_and_all_are_recorded(trained) -> None:
    """Twenty in the text, the lowest recall first, with how many there are; JSON has each."""
    names = tuple(f"class {number}" for number in range(300))
    each = [number / 300 for number in range(300)]
    each[7] = float("nan")  # without test rows
    per_class = {"recall": [each[::-1]], "rows": [[3] * 300]}
    scores = Scores("complete", "test", 900, 0.0, {"accuracy": [0.5]}, per_class)
    run = replace(trained[0], task=Task("classes", names), path=trained[0].path.parent / "many")
    run.path.mkdir()
    run.add_scores([scores])
    (table,) = recall.recall_tables([run])
    shutil.rmtree(run.path)
    shown = [row[0] for row in table.texts()]
    assert len(shown) == 20
    assert shown[:3] == ["class 299", "class 298", "class 297"]
    assert "class 292" not in shown
    assert table.sentences[0] == "20 of 300 shown"
    assert "classes: those of the lowest recall of concat first" in table.notes
    assert len(table.records()) == 300
    assert table.records()[-1]["recall_mean"] is None


def test_commands_show_the_metrics_asked_for(home, trained) -> None:
    """Late's accuracy beside its calibration; every metric; those of another task are refused."""
    run = ["--run", ",".join(one.id for one in trained)]
    (table, *_) = typed(home, "eval", *run, "--metric", "accuracy,ece", "--missing", "text")
    found = {(row["label"], row["metric"]): row["score_mean"] for row in table["rows"]
             if row["missing"] == "complete"}  # fmt: skip
    scores = on_test(trained[1])
    assert found["late", "ece"] == pytest.approx(np.mean(scores.metrics["ece"]))
    assert found["late", "accuracy"] == pytest.approx(np.mean(scores.metrics["accuracy"]))
    tables = typed(home, "report", *run, "--all-metrics")
    assert {row["metric"] for row in tables[0]["rows"]} == set(METRICS["classes"])
    assert [each["name"] for each in tables] == ["scores", "recall"]
    page = (home.root / "report.html").read_text(encoding="utf-8")
    assert all(f"test {name} by missing pattern" in page for name in METRICS["classes"])
    assert "recall of test rows by class" in page
    (table,) = typed(home, "compare", *run, "--all-metrics")
    assert {row["metric"] for row in table["rows"]} == set(METRICS["classes"])
    for command in ("eval", "compare", "report"):
        done = CliRunner().invoke(
            app, ["--home", str(home.root), command, *run, "--metric", "rmse"]
        )
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert "no metric for classes named 'rmse'" in line
        assert "known: accuracy, auprc" in line
    words = ["compare", *run, "--metric", "recall"]
    done = CliRunner().invoke(app, ["--home", str(home.root), *words])
    assert done.exit_code == 2
    assert "balanced_accuracy is its mean" in done.stderr


def test_training_shows_the_metrics_asked_for(home) -> None:
    """Every one of a value task, and none that is of classes alone."""
    words = ["--epochs", "2", "--seeds", "1", "--all-metrics"]
    (table,) = typed(home, "train", "prices", "--method", "concat", *words)
    of_ridge = [row["metric"] for row in table["rows"] if row["label"] == "ridge"]
    assert of_ridge == list(METRICS["value"])
    assert {row["method"] for row in table["rows"]} == {"concat", "ridge", "majority"}


def test_a_difference_is_tested_by_the_metric_itself(home, trained) -> None:
    """The difference is that of the scores; Holm counts every test of the table."""
    table = compare(home, trained, trained[0].id, ["accuracy", "macro_f1", "auroc"])
    rows = [row for row in table.records() if not row["reference"]]
    assert [row["metric"] for row in rows] == ["accuracy", "macro_f1", "auroc"]
    for row in rows:
        first, second = (np.mean(on_test(run).metrics[row["metric"]]) for run in trained)
        assert row["difference"] == pytest.approx(second - first, abs=1e-6)
        assert row["interval_low"] <= row["difference"] <= row["interval_high"]
        assert 0 < row["p"] <= row["p_holm"] <= 1
    assert any("Holm: corrected over 3 tests" in note for note in table.notes)
    assert any("2,000 of macro_f1, auroc" in note for note in table.notes)


def test_what_cannot_be_tested_is_refused_in_a_sentence(home, trained) -> None:
    """Replicas cannot change places in pairs where their numbers differ; means can be tested."""
    other = train("mean", "made", home=home, options=WORDS | {"seeds": "0"})
    table = compare(home, [trained[0], other], trained[0].id, ["accuracy", "macro_f1"])
    accuracy, macro = [row for row in table.records() if not row["reference"]]
    assert accuracy["p"] is not None
    assert (macro["p"], macro["interval_low"], macro["p_holm"]) == (None, None, None)
    assert macro["difference"] is not None
    assert any("macro_f1 of mean: no test of 1 against 2 seeds" in note for note in table.notes)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A home of version 0.1.0, whose records have no AUPRC and no recall."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "home-0.1.0.zip") as archive:
        archive.extractall(folder)
    return folder / "artifacts"


def test_what_an_old_record_lacks_is_computed_from_its_outputs(old) -> None:
    """As a new record has it; baselines, whose outputs are not stored, have a dash and one note."""
    (run,) = [one for one in mmfuse.list_runs(old) if one.method == "concat"]
    (row, logistic, majority) = results.train_table([run], ["auprc"]).records()
    outputs = run.predictions().filter(split="test")
    store = mmfuse.FeatureStore(old, "cards")
    targets, wanted = store.samples(store.streams()[0]).targets, []
    for seed in run.seeds:
        own = outputs.filter(seed=seed)
        logits = np.array(own["outputs"].to_list())
        wanted.append(score(run.task, "auprc", logits, targets[own["row"]]))
    assert row["test_values"] == pytest.approx(wanted)
    assert logistic["test_mean"] is majority["test_mean"] is None
    notes = results.train_table([run], ["auprc"]).notes
    assert len([note for note in notes if note.startswith("-: auprc of logistic, majority")]) == 1
    (table,) = recall.recall_tables([run])
    assert all(row["recall_mean"] is not None for row in rows_of(table, "concat"))
    assert all(row["recall_mean"] is None for row in rows_of(table, "logistic"))
    first = next(one for one in recorded_scores(run, ["auprc"]) if one.split == "test")
    assert first.metrics["accuracy"] == on_test(run).metrics["accuracy"]


def test_without_stored_outputs_an_old_record_has_a_dash_and_a_note(old, tmp_path) -> None:
    """Nothing is made up; what was recorded is shown, and r is called pearson."""
    shutil.copytree(old, tmp_path / "home")
    (run,) = [one for one in mmfuse.list_runs(tmp_path / "home") if one.method == "late"]
    shutil.rmtree(tmp_path / "home" / "features")
    table = results.train_table([run], ["auprc", "accuracy"])
    rows = {(row["label"], row["metric"]): row["test_mean"] for row in table.records()}
    assert rows["late", "auprc"] is None
    assert rows["late", "accuracy"] is not None
    assert len([note for note in table.notes if note.startswith("-: auprc of late, logistic")]) == 1
    file = run.path / "scores" / "complete.test.json"
    plain = json.loads(file.read_text())
    plain["metrics"] = {"mae": [1.0], "r": [0.25], "acc7": [0.5]}
    file.write_text(json.dumps(plain))
    assert list(on_test(run).metrics.items()) == [
        ("mae", [1.0]),
        ("pearson", [0.25]),
        ("acc7", [0.5]),
    ]
