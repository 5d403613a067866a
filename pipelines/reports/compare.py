"""Compare runs on the same test rows: paired differences, permutation tests, Holm correction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.runs import RunRecord
from cache.snapshots import read_snapshot
from pipelines.metrics.metrics import metric_terms
from pipelines.metrics.significance import DRAWS, MetricTerms, Paired, holm, paired
from pipelines.progress import Track, untracked
from pipelines.reports.runs import evidence_tags, metric_spread, run_labels
from pipelines.reports.table import Cell, Table, count_of, decimal, interval
from pipelines.training.train import best_of


def compare(
    home: Home,
    runs: Sequence[RunRecord],
    against: str | None = None,
    *,
    track: Track = untracked,
) -> Table:
    """Compare every run of a dataset with one of them, on the test rows that all of them scored.

    Args:
        home: where they are.
        runs: at least two of one dataset; a dataset's only run is left out.
        against: id of the reference; default: the best run on validation rows.
        track: progress over the runs.

    Raises:
        MmfuseError: where no two runs scored the same rows.
    """
    rows: list[_Row] = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        group = [run for run in runs if run.dataset == dataset]
        if len(group) < 2:
            continue
        reference = _reference(group, against)
        base = _metric_terms(home, reference)
        named = list(zip(group, run_labels(group), strict=True))
        for run, name in track(named, f"compare runs on {dataset}", len(named)):
            scores = (metric_spread(run.scores, "val"), metric_spread(run.scores, "test"))
            if run.id == reference.id:
                rows.append(_Row(dataset, name, scores, None, evidence_tags(run)))
                continue
            ids, own = _metric_terms(home, run)
            if not np.array_equal(ids, base[0]):
                raise MmfuseError(f"{run.id} and {reference.id} scored different test rows")
            rows.append(_Row(dataset, name, scores, paired(own, base[1]), evidence_tags(run)))
    if not any(row.found for row in rows):
        raise MmfuseError("two runs of one dataset are needed: mmfuse train --method A --method B")
    return _table(rows)


@dataclass(frozen=True)
class _Row:
    """One run: validation and test scores, and the test against the reference (None: itself)."""

    dataset: str
    name: str
    scores: tuple[Cell, Cell]
    found: Paired | None
    tags: str


def _table(rows: Sequence[_Row]) -> Table:
    columns = (
        "dataset", "method", "val", "test", "difference", "95 % interval", "p", "p (Holm)",
        "data × weights",
    )  # fmt: skip
    adjusted = holm([row.found.p for row in rows if row.found])
    corrected = iter(adjusted)
    whole: list[tuple[Cell, ...]] = []
    for row in rows:
        shown: tuple[Cell, ...] = ("reference", None, None, None)
        if row.found:
            low_high = interval(row.found.low, row.found.high)
            change = decimal(row.found.difference, "+")
            shown = (change, low_high, row.found.p, next(corrected))
        whole.append((row.dataset, row.name, *row.scores, *shown, row.tags))
    notes = (
        "difference: test score minus the reference's on the same rows, mean over replicas",
        f"p: paired permutation test over rows, {DRAWS:,} draws; Holm: corrected over "
        f"{count_of(len(adjusted), 'test')}",
        "p accounts for the sampling of rows, not of seeds: see the ± of the scores",
    )
    return Table("runs compared", columns, tuple(whole), notes)


def _reference(runs: Sequence[RunRecord], against: str | None) -> RunRecord:
    """The run asked for, else the best on validation rows (never on test rows)."""
    for run in runs:
        if against is not None and run.id.startswith(against):
            return run
    return best_of(runs)


def _metric_terms(home: Home, run: RunRecord) -> tuple[NDArray[np.int64], MetricTerms]:
    """Numbers of the test rows, and the metric's terms of each row, mean over replicas."""
    samples = read_snapshot(run.snapshot, DatasetPaths.of(home, run.dataset))
    if not any(scores.split == "test" for scores in run.scores):
        raise MmfuseError(
            f"{run.id} is a trial that a sweep did not choose, so it has no test scores; to "
            f"compare it, train it by itself"
        )
    table = run.predictions().filter(pl.col("split") == "test")
    found: list[MetricTerms] = []
    rows = np.zeros(0, np.int64)
    for seed in run.seeds:
        own = table.filter(pl.col("seed") == seed).sort("row")
        rows = own["row"].to_numpy().astype(np.int64)
        outputs = np.array(own["outputs"].to_list(), np.float64).reshape(len(own), -1)
        found.append(metric_terms(run.task, outputs, samples.targets[rows]))
    above = np.mean([piece[0] for piece in found], axis=0)
    below = np.mean([piece[1] for piece in found], axis=0)
    return rows, (above, below)
