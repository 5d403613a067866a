"""The line on how a training ended."""

from pathlib import Path

import polars as pl
import pytest
from made import fill_store, made_table

from cache.layout import Home
from pipelines.reports.notes import training_ends
from pipelines.training.train import train, train_all

WORDS = {"width": "4", "batch_size": "16"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with features of three streams, the dataset `made`."""
    fill_store(Home(tmp_path), made_table(60))
    return Home(tmp_path)


def test_a_training_that_used_all_epochs_says_so(home: Home) -> None:
    """One line over all seeds and settings of a method."""
    words = {**WORDS, "epochs": "2", "seeds": "0,1", "learning_rate": "1e-3,1e-4"}
    runs = train_all("concat", "made", home=home, options=words)
    assert len(runs) == 2
    assert training_ends(runs) == ["concat on made: used all 2 epochs"]


@pytest.mark.parametrize(
    ("monitor", "reason"),
    [("task", "no lower validation loss"), ("score", "no better validation accuracy")],
)
def test_a_training_that_stopped_early_says_when_and_why(home: Home, monitor, reason) -> None:
    """The epochs of the seeds, the maximum, what did not improve, and for how long."""
    words = {**WORDS, "epochs": "200", "patience": "2", "learning_rate": "0.03"}
    run = train("concat", "made", home=home, options={**words, "monitor": monitor, "seeds": "0,1"})
    low, high = min(run.epochs), max(run.epochs)
    assert high < 200  # random targets are soon learnt by heart
    span = str(low) if low == high else f"{low}–{high}"
    expected = f"concat on made: stopped after {span} of 200 epochs: {reason} for 2 epochs"
    assert training_ends([run]) == [expected]


def test_replicas_may_differ_and_stages_are_named(home: Home) -> None:
    """Those that stopped are counted; a method with stages has a part for each."""
    run = train("concat", "made", home=home, options={**WORDS, "epochs": "3", "seeds": "0,1"})
    history = run.history().filter((pl.col("seed") == 0) | (pl.col("epoch") < 3))
    stopped = history.with_columns(patience=pl.lit(1), monitor=pl.lit("loss"))
    stopped.write_parquet(run.path / "history.parquet")
    assert training_ends([run]) == [
        "concat on made: 1 of 2 replicas stopped after 2 of 3 epochs: no lower validation loss "
        "for 1 epoch; the others used all"
    ]
    both = [stopped.with_columns(stage=pl.lit("align"), of=pl.lit(9)), history]
    pl.concat(both, how="vertical_relaxed").write_parquet(run.path / "history.parquet")
    (line,) = training_ends([run])
    assert line.startswith("concat on made: align stopped after 2–3 of 9 epochs: no lower")
    assert ", then fit 1 of 2 replicas stopped after 2 of 3 epochs" in line


def test_a_run_of_an_older_version_is_described_by_its_plan(home: Home) -> None:
    """Its history lacks the maximum of a stage."""
    run = train("concat", "made", home=home, options={**WORDS, "epochs": "2", "seeds": "0"})
    run.history().drop("of", "monitor", "patience").write_parquet(run.path / "history.parquet")
    assert training_ends([run]) == ["concat on made: used all 2 epochs"]
