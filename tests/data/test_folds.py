"""Cross-validation folds."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import CLASSES, LABELS, VALUE, fill_store, made_samples, made_table

from cache.errors import MmfuseError
from cache.layout import Home
from cache.samples import Task
from pipelines.data.splits import assign_folds, with_fold
from pipelines.evaluation.evaluate import evaluate
from pipelines.features.missing import MissingPattern
from pipelines.training.train import train_all


@given(groups=st.integers(5, 40), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_a_group_is_in_one_fold_and_every_row_in_one(groups: int, folds: int, seed: int) -> None:
    """No group is torn, and each fold has rows."""
    samples = made_samples(120)
    names = np.array([f"g{i % groups}" for i in range(120)], object)
    where = assign_folds(replace(samples, groups=names), folds, seed)
    assert set(where) == set(range(folds))
    for name in set(names):
        assert len(set(where[names == name])) == 1


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
def test_folds_are_even_in_rows_and_in_classes(task: Task) -> None:
    """Without groups, sizes differ by few rows and class shares by few points."""
    samples = made_samples(300, task)
    where = assign_folds(samples, 5)
    sizes = np.bincount(where)
    assert sizes.max() - sizes.min() <= 6
    if task.kind == "classes":
        counts = np.array([np.bincount(samples.targets[where == f], minlength=3) for f in range(5)])
        assert (counts.max(0) - counts.min(0)).max() <= 2


def test_each_row_is_tested_once() -> None:
    """Over the folds every row is in test once and in val once; rows in no split stay out."""
    samples = made_samples(50)
    samples.splits[7] = ""
    splits = np.array([with_fold(samples, 4, fold).splits for fold in range(4)])
    rows = np.arange(50) != 7
    assert ((splits == "test").sum(0)[rows] == 1).all()
    assert ((splits == "val").sum(0)[rows] == 1).all()
    assert (splits[:, 7] == "").all()


def test_the_seed_alone_changes_the_folds() -> None:
    """The same call gives the same folds."""
    samples = made_samples(60)
    assert np.array_equal(assign_folds(samples, 4), assign_folds(samples, 4))
    assert not np.array_equal(assign_folds(samples, 4), assign_folds(samples, 4, 1))


def test_folds_that_cannot_be_are_refused() -> None:
    """Fewer than three folds, fewer groups than folds, or a fold that there is not."""
    samples = made_samples(30)
    with pytest.raises(MmfuseError, match="at least 3"):
        assign_folds(samples, 2)
    few = replace(samples, groups=np.array(["a", "b"] * 15, object))
    with pytest.raises(MmfuseError, match="there are 2"):
        assign_folds(few, 3)
    with pytest.raises(MmfuseError, match="folds 0 to 3"):
        with_fold(samples, 4, 4)


def test_every_fold_is_a_run_of_one_group(tmp_path: Path) -> None:
    """Three folds are three runs whose test rows are all rows, and each can be evaluated."""
    home = Home(tmp_path)
    fill_store(home, made_table(90))
    words = {"folds": "3", "epochs": "3", "seeds": "0", "width": "8"}
    runs = train_all("concat", "made", home=home, options=words)
    assert [run.plan["fold"] for run in runs] == [0, 1, 2]
    assert len({run.group for run in runs}) == 1
    tested = [run.predictions().filter(split="test")["id"].to_list() for run in runs]
    assert sorted(chain(*tested)) == [f"row{i:04}" for i in range(90)]
    found = evaluate(home, runs[1], [MissingPattern.named("image")])
    recorded = next(s for s in runs[1].scores if s.split == "test")
    assert found.rows[0].scores == recorded


def test_a_stream_fitted_on_the_train_split_is_refused(tmp_path: Path) -> None:
    """Its statistics come from rows that a fold scores."""
    home = Home(tmp_path)
    fill_store(home, made_table(60), extra={"fitted_on": "0" * 32})
    with pytest.raises(MmfuseError, match="was fitted on the train split"):
        train_all("concat", "made", home=home, options={"folds": "3"})
