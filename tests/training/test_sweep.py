"""Sweeping: chosen on validation rows, resumed after a kill, no trial lost or repeated."""

from collections import Counter

import numpy as np
import pytest
from prestarted import prestarted
from project import with_project
from typer.testing import CliRunner
from waiting import HANG, wait_until

from cache.errors import MmfuseError
from cache.layout import Home
from cache.runs import list_runs
from mmfuse_cli.main import app
from pipelines.reports import runs as results
from pipelines.reports.compare import compare
from pipelines.training.record import identity_of
from pipelines.training.sweep import sweep
from pipelines.training.train import train

GRID = {"learning_rate": "1e-3,1e-2", "width": "4,8", "epochs": "3", "seeds": "0,1"}
SCRIPT = """
import sys
from pathlib import Path
from cache.layout import Home
from pipelines.reports.compare import compare
from pipelines.training.sweep import sweep
grid = {"width": "4,6,8,10,12,14", "epochs": "12", "patience": "none", "seeds": "0"}
sweep("concat", "made", home=Home(Path(sys.argv[1])), options=grid, keep_seconds=0.0)
"""


def test_trials_are_ordered_by_validation_rows(home: Home) -> None:
    """Every setting of the grid is there once, the best validation mean first."""
    found = sweep("concat", "made", home=home, options=GRID)
    (means,) = [[
        np.mean(next(s for s in t.runs[0].scores if s.split == "val").metrics["accuracy"])
        for t in found.trials
    ]]  # fmt: skip
    assert means == sorted(means, reverse=True)
    settings = {(t.runs[0].plan["learning_rate"], t.runs[0].options["width"]) for t in found.trials}
    assert settings == {(1e-3, 4), (1e-3, 8), (1e-2, 4), (1e-2, 8)}
    assert found.trained == len(list_runs(home)) == 4


def test_what_has_been_trained_is_not_trained_again(home: Home) -> None:
    """A second sweep, and a wider one, take the runs that are there, those of `train` too."""
    own = train(
        "concat",
        "made",
        home=home,
        options=GRID | {"learning_rate": "1e-2", "width": "8"},
    )
    first = sweep("concat", "made", home=home, options=GRID)
    assert first.trained == 3
    assert own.id in {trial.runs[0].id for trial in first.trials}
    assert sweep("concat", "made", home=home, options=GRID).trained == 0
    assert sweep("concat", "made", home=home, options=GRID | {"width": "4,8,6"}).trained == 2
    assert sweep("concat", "made", home=home, options=GRID | {"epochs": "2"}).trained == 4


def test_more_trials_keep_those_of_before(home: Home) -> None:
    """Three at random are two at random and one more."""
    assert sweep("concat", "made", home=home, options=GRID, trials=2, seed=3).trained == 2
    assert sweep("concat", "made", home=home, options=GRID, trials=3, seed=3).trained == 1
    with pytest.raises(MmfuseError, match="at least 1"):
        sweep("concat", "made", home=home, options=GRID, trials=0)


def test_folds_of_a_setting_are_one_trial(home: Home) -> None:
    """Its value is the mean over folds and seeds."""
    words = {"folds": "3", "epochs": "2", "seeds": "0", "learning_rate": "1e-3,1e-2", "width": "4"}
    found = sweep("concat", "made", home=home, options=words)
    assert [len(trial.runs) for trial in found.trials] == [3, 3]
    values = [
        s.metrics["accuracy"][0] for r in found.trials[0].runs for s in r.scores if s.split == "val"
    ]
    assert found.trials[0].value == pytest.approx(np.mean(values))


def test_a_setting_that_diverges_costs_itself(home: Home) -> None:
    """The others are trained all the same, and it is named."""
    words = {
        "learning_rate": "1e-3,1e38",
        "epochs": "2",
        "seeds": "0",
        "clip": "none",
        "width": "4",
    }
    found = sweep("concat", "made", home=home, options=words | {"optimizer": "sgd"})
    assert [trial.runs[0].plan["learning_rate"] for trial in found.trials] == [1e-3]
    assert len(found.diverged) == 1
    assert "learning_rate=1e+38" in found.diverged[0]


def test_a_killed_sweep_goes_on_without_losing_or_repeating_a_trial(home: Home) -> None:
    """SIGKILL at several moments, then one sweep: six runs, each once, earlier ones untouched."""
    script = home.root / "sweeping.py"
    script.write_text(SCRIPT)
    start = lambda: prestarted().start([script, home.root], environment=with_project())  # noqa: E731
    killed, before = 0, set()
    for enough in (1, 3, 5):
        process = start()
        wait_until(
            lambda p=process, n=enough: (
                p.poll() is not None or len(list(home.runs.glob("*/run.json"))) >= n
            )
        )
        if process.poll() is None:
            process.kill()
            killed += 1
        process.communicate()
        there = {run.id for run in list_runs(home)}
        assert before <= there
        before = there
    assert killed > 0
    assert len(before) >= 1
    last = start()
    _, errors = last.communicate(timeout=HANG)
    assert last.returncode == 0, errors
    runs = list_runs(home)
    assert set(Counter(map(identity_of, runs)).values()) == {1}
    assert sorted(run.options["width"] for run in runs) == [4, 6, 8, 10, 12, 14]
    assert before <= {run.id for run in runs}
    assert len({run.group for run in runs}) == 1


def test_only_the_chosen_one_is_scored_on_test_rows(home: Home) -> None:
    """The others have neither test scores nor test predictions; `eval` takes the best."""
    words = ["--set", "learning_rate=1e-3,1e-2", "--set", "epochs=2", "--set", "width=4"]
    done = CliRunner().invoke(
        app,
        ["--home", str(home.root), "sweep", "--method", "concat", "--dataset", "made", *words],
    )
    assert done.exit_code == 0, done.output
    found = sweep("concat", "made", home=home, options={
        "learning_rate": "1e-3,1e-2", "epochs": "2", "width": "4", "seeds": "0,1,2",
    })  # fmt: skip
    assert found.trained == 0
    assert "test" not in results.sweep_table([trial.runs for trial in found.trials]).columns
    assert done.output.count("concat learning_rate=") == 2
    best, other = (trial.runs[0] for trial in found.trials)
    assert {scores.split for scores in best.scores} == {"val", "test"}
    assert set(best.predictions()["split"].unique()) == {"val", "test"}
    assert {scores.split for scores in other.scores} == {"val"}
    assert set(other.predictions()["split"].unique()) == {"val"}
    with pytest.raises(MmfuseError, match="has no test scores"):
        compare(home, [best, other])
    done = CliRunner().invoke(app, ["--home", str(home.root), "eval"])
    assert f"no --run: {best.id}, as the last sweep's best" in done.output
    assert {scores.split for scores in other.scores} == {"val"}
    alone = train("concat", "made", home=home, options={
        "learning_rate": repr(best.plan["learning_rate"]), "epochs": "2", "width": "4",
        "seeds": "0,1,2",
    })  # fmt: skip
    wanted = {s.split: s.metrics["accuracy"] for s in alone.scores}
    assert {
        s.split: s.metrics["accuracy"] for s in best.scores if s.pattern == "complete"
    } == wanted
