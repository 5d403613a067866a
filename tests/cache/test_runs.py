"""Run records on disk."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cache.errors import MmfuseError
from cache.layout import Home
from cache.maintenance.gc import collect_garbage, plan_gc
from cache.runs import (
    Labels,
    RunRecord,
    RunStream,
    Scores,
    check_writable,
    delete_run,
    label_run,
    latest_group,
    list_runs,
    load_run,
    new_id,
    write_run,
)
from cache.samples import Task
from mmfuse_cli.main import app
from pipelines.reports import runs

STREAM = RunStream(
    "lens/image", "lens", "f" * 64, "image", width=4, sequence=False, weights="weight-free"
)
TABLE = pl.DataFrame({"epoch": [1]})


def record(home: Home, run: str = "20260101-concat-made-abc123", **changes: Any) -> RunRecord:
    """A record with a value in every field."""
    plain = RunRecord(
        id=run,
        group="g",
        dataset="mug/pkm_t1",
        snapshot="s",
        method="concat",
        method_digest="",
        task=Task("classes", ("a", "b")),
        streams=(STREAM,),
        options={"width": 8, "limit": None},
        plan={"epochs": 3},
        seeds=(0, 1),
        parameters=10,
        scale=(0.0, 1.0),
        tags={"data": "real", "weights": "weight-free"},
        absent={"train": 0.1},
        missing_rate=0.0,
        costs={"macs": 1.0},
        versions={"torch": "2"},
        device="cpu",
        seconds=1.5,
        epochs=(3, 3),
        created="2026-01-01T00:00:00+00:00",
        notes=("a remark",),
        path=home.runs / run,
    )
    return replace(plain, **changes)


def written(home: Home, **changes: Any) -> RunRecord:
    """A record on disk."""
    made = record(home, **changes)
    write_run(made, {"w": np.arange(6.0).reshape(2, 3)}, TABLE, TABLE)
    return made


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field, the state, and the tables survive the disk."""
    home = Home(tmp_path)
    made = written(home)
    found = load_run(home, made.id)
    assert found == made
    assert np.array_equal(found.state()["w"], np.arange(6.0).reshape(2, 3))
    assert found.history().equals(TABLE)


def test_a_window_into_a_matrix_is_saved_as_its_values(tmp_path: Path) -> None:
    """Columns of a larger array, which do not lie together in memory, come back right."""
    home = Home(tmp_path)
    made, matrix = record(home), np.arange(12.0).reshape(2, 6)
    write_run(made, {"w": matrix[:, 1:3], "t": matrix.T}, TABLE, TABLE)
    assert np.array_equal(made.state()["w"], matrix[:, 1:3])
    assert np.array_equal(made.state()["t"], matrix.T)


def test_a_run_is_written_once(tmp_path: Path) -> None:
    """A second write of the same run is refused."""
    home = Home(tmp_path)
    written(home)
    with pytest.raises(MmfuseError, match="exists"):
        written(home)


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")]
)
def test_a_refusing_disk_is_a_clear_error(tmp_path: Path, monkeypatch, number, message) -> None:
    """A refused write leaves no run and no partial file; the error names the path."""
    home, sync, left = Home(tmp_path), os.fsync, 0
    check_writable(home)

    def refuse(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        for each in range(4):  # so many files has a run
            left = each
            with pytest.raises(MmfuseError, match=f"{tmp_path}.*{message}"):
                written(home)
        with pytest.raises(MmfuseError, match=f"{tmp_path}.*{message}"):
            record(home).add_scores([Scores("complete", "test", 5, 0.0, {"accuracy": [1.0]})])
        with pytest.raises(MmfuseError, match=f"{tmp_path}.*{message}"):
            check_writable(home)
    assert list_runs(home) == []
    assert list(tmp_path.rglob("*.partial")) == []
    assert written(home).path.is_dir()


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    """What a kill left behind is not listed."""
    home = Home(tmp_path)
    written(home)
    (home.runs / "20260101-half-made-000000").mkdir()
    assert [r.id for r in list_runs(home)] == ["20260101-concat-made-abc123"]


def test_scores_lie_beside_the_record(tmp_path: Path) -> None:
    """Scores come back in the order they were added, NaN included; a second time replaces."""
    run = written(Home(tmp_path))
    first = Scores("without a", "test", 5, 0.5, {"accuracy": [0.25, 0.5]})
    second = Scores("complete", "test", 5, 0.0, {"accuracy": [1.0, float("nan")]})
    run.add_scores([first, second])
    run.add_scores([first], "majority")
    run.add_scores([first], "single a b")
    assert run.scores[0] == first
    assert run.scores[1].metrics["accuracy"][0] == 1.0
    assert np.isnan(run.scores[1].metrics["accuracy"][1])
    assert run.baselines == {"majority": [first], "single a b": [first]}
    run.add_scores([replace(first, rows=6)])
    assert [s.rows for s in run.scores] == [6, 5]


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    """A beginning that fits one run is enough; two or none are errors."""
    home = Home(tmp_path)
    written(home)
    written(home, run="20260101-late-made-abc123")
    assert load_run(home, "20260101-la").method == "concat"
    with pytest.raises(MmfuseError, match="several runs"):
        load_run(home, "2026")
    with pytest.raises(MmfuseError, match="no run named"):
        load_run(home, "1999")


def test_the_latest_group_is_that_of_the_newest_run(tmp_path: Path) -> None:
    """All runs of the last command, oldest first; without runs the error says what to type."""
    home = Home(tmp_path)
    with pytest.raises(MmfuseError, match="mmfuse train"):
        latest_group(home)
    for number, group in enumerate(["old", "new", "new"]):
        when = f"2026-01-01T00:00:0{number}+00:00"
        written(home, run=f"r{number}", group=group, created=when)
    assert [r.id for r in latest_group(home)] == ["r1", "r2"]


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """The error says to upgrade."""
    home = Home(tmp_path)
    made = written(home)
    file = made.path / "run.json"
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(MmfuseError, match="newer mmfuse"):
        load_run(home, made.id)


def test_a_record_without_the_words_of_encoders_is_read(tmp_path: Path) -> None:
    """Version 0.1.0 wrote neither word nor options of a stream's encoder: they are empty."""
    home = Home(tmp_path)
    named = replace(STREAM, word="lens:wide", options={"size": 4})
    made = written(home, streams=(named,))
    (found,) = load_run(home, made.id).streams
    assert (found.word, found.options) == (named.word, named.options)
    file = made.path / "run.json"
    plain = json.loads(file.read_text())
    del plain["streams"][0]["word"], plain["streams"][0]["options"]
    file.write_text(json.dumps(plain))
    (old,) = load_run(home, made.id).streams
    assert (old.word, old.options) == ("", {})
    assert {old, named} == {STREAM}
    assert old.identity == named.identity == plain["streams"][0]


def test_past_runs_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    """Runs of a grid and of folds have their settings beside the method; streams stand apart."""
    home = Home(tmp_path)
    grid = [record(home, f"r{rate}", plan={"learning_rate": rate}) for rate in (0.1, 0.2)]
    assert [row[3] for row in runs.runs_table(grid).rows] == [
        "concat learning_rate=0.1", "concat learning_rate=0.2",
    ]  # fmt: skip
    folds = [record(home, f"f{n}", plan={"folds": 2, "fold": n}, seeds=(n,)) for n in range(2)]
    assert [row[3] for row in runs.runs_table(folds).rows] == ["concat fold=0", "concat fold=1"]
    assert runs.run_labels(folds) == ["concat", "concat"]
    other = record(home, streams=(replace(STREAM, name="lens/other"),))
    assert [row[3] for row in runs.runs_table([record(home), other]).rows] == ["concat", "concat"]


def test_runs_of_no_dataset_are_an_error(tmp_path: Path) -> None:
    """The datasets that have runs are named; a file for a home and --latest 0 are refused too."""
    written(Home(tmp_path))
    (tmp_path / "file").write_text("")

    def said(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 2
        return done.output

    home = ("--home", str(tmp_path))
    assert "no dataset with runs named 'nope' (known: mug/pkm_t1)" in said(
        *home, "runs", "--dataset", "nope"
    )
    assert "a file is in the way" in said("--home", str(tmp_path / "file"), "runs")
    for number in ("0", "-3"):
        assert "--latest" in said(*home, "runs", "--latest", number)
    assert CliRunner().invoke(app, [*home, "runs", "--dataset", "mug"]).exit_code == 0


def test_ids_are_readable_and_differ() -> None:
    """Date, method, dataset and six hex digits; a file's method goes by its stem."""
    assert new_id("./my_head.py", "mug/pkm_t1").split("-", 1)[1].startswith("my_head-mug-pkm_t1-")
    assert new_id("concat", "digits") != new_id("concat", "digits")


def test_tags_and_a_note_are_added_and_removed_beside_the_record(tmp_path: Path) -> None:
    """Each change leaves the others, and the record's own file stays as it was."""
    home = Home(tmp_path)
    made = written(home)
    before = (made.path / "run.json").read_bytes()
    assert made.labels == Labels()
    label_run(made, add=["paper", "été"], note="for table 2")
    label_run(made, add=["paper", "last"], remove=["été", "never there"])
    assert load_run(home, made.id).labels == Labels(("paper", "last"), "for table 2")
    label_run(made, note="")
    assert made.labels == Labels(("paper", "last"))
    assert (made.path / "run.json").read_bytes() == before


def test_a_deleted_run_is_gone_at_once_and_its_files_with_garbage_collection(
    tmp_path: Path,
) -> None:
    """Until then its folder can be moved back, whole."""
    home = Home(tmp_path)
    made, other = written(home), written(home, run="20260102-late-made-def456")
    files = {path.name for path in made.path.iterdir()}
    place = delete_run(home, made)
    assert [run.id for run in list_runs(home)] == [other.id]
    assert {path.name for path in place.iterdir()} == files
    place.rename(made.path)
    assert load_run(home, made.id).state()["w"].shape == (2, 3)
    delete_run(home, made)
    (item,) = plan_gc(home)
    assert (item.name, item.why) == (made.id, "deleted run")
    assert collect_garbage([item]) == item.bytes > 0
    assert not place.exists()
    assert [run.id for run in list_runs(home)] == [other.id]


def scored(run: RunRecord, test: float, metric: str = "accuracy") -> RunRecord:
    """The run with a score on test rows."""
    run.add_scores([Scores("complete", "test", 9, 0.0, {metric: [test, test]})])
    return run


@pytest.fixture
def three(tmp_path: Path) -> Home:
    """A home with three scored runs of two datasets and two methods."""
    home = Home(tmp_path)
    for name, method, dataset, score in (
        ("20260101-concat-a-aaaaaa", "concat", "mug/one", 0.9),
        ("20260102-late-a-bbbbbb", "late", "mug/two", 0.5),
        ("20260103-head-b-cccccc", "./own/head.py", "shop", 0.7),
    ):
        changes = {"method": method, "dataset": dataset, "created": f"{name[:4]}-{name[4:8]}"}
        scored(written(home, run=name, **changes), score)
    return home


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("", "abc"), ("mug", "ab"), ("--dataset mug/two", "b"), ("--method late", "b"),
        ("--method head,concat", "ac"), ("--method late shop", ""), ("--run 20260103", "c"),
        ("--run 20260103,20260101", "ca"), ("--sort test", "bca"), ("--sort test --latest 1", "a"),
    ],
)  # fmt: skip
def test_past_runs_are_filtered_and_sorted(three: Home, words: str, shown: str) -> None:
    """By dataset or group, by method, by prefix of the id; the best last."""
    if words == "--method late shop":
        done = CliRunner().invoke(app, ["--home", str(three.root), "runs", *words.split()])
        assert "no method with runs named 'late'" in done.output
        return
    done = CliRunner().invoke(app, ["--home", str(three.root), "--json", "runs", *words.split()])
    assert done.exit_code == 0, done.output
    (table,) = json.loads(done.stdout)["tables"]
    assert "".join(row["run"][-1] for row in table["rows"]) == shown
    assert all(row["tags"] == [] for row in table["rows"])
    assert "tags" not in CliRunner().invoke(app, ["--home", str(three.root), "runs"]).stdout


def test_runs_are_tagged_annotated_found_and_deleted_by_commands(three: Home) -> None:
    """What is changed needs --run; a wrong tag is answered with one that exists."""

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["--home", str(three.root), "runs", *words])
        return done.exit_code, done.output

    assert typed("--delete")[0] == typed("--tag", "x")[0] == 2
    assert typed("--run", "20260102", "--tag", "paper,main", "--note", "two\x1b[1m words")[0] == 0
    code, said = typed("--tagged", "paper")
    assert code == 0
    assert "paper, main" in said
    assert "two\\x1b[1m words" in said
    assert "1 of 1 run" in said
    assert "did you mean paper" in typed("--tagged", "papr")[1]
    typed("--run", "20260102", "--untag", "paper", "--note", "")
    assert load_run(three, "20260102").labels == Labels(("main",))
    code, said = typed("--run", "20260102", "--delete")
    assert code == 0
    assert "mmfuse cache gc --yes" in said
    assert [run.id[-6:] for run in list_runs(three)] == ["aaaaaa", "cccccc"]


def test_runs_are_ordered_by_score_where_lower_is_better_too(tmp_path: Path) -> None:
    """The best is last; what was not scored comes first."""
    home = Home(tmp_path)
    found = [written(home, run=f"20260101-concat-a-{n}{n}{n}{n}{n}{n}") for n in range(3)]
    for run, error in zip(found[:2], (0.2, 0.4), strict=True):
        scored(run, error, "mae")
    assert [run.id[-1] for run in runs.ordered(found[:2], "test")] == ["1", "0"]
    assert [run.id[-1] for run in runs.ordered(found, "test")] == ["2", "1", "0"]
