"""Comparing runs on the same test rows: paired differences, permutation tests, Holm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.runs import RunRecord
from cache.snapshots import read_snapshot
from pipelines.metrics.metrics import pieces
from pipelines.reports.runs import labels, score, tags
from pipelines.reports.table import Cell, Table, decimal, interval, several
from pipelines.training.request import best_of

DRAWS = 10_000
Pieces = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Paired:
    """One run against another on the same rows, by the task's first metric.

    Attributes:
        difference: run - reference, mean over replicas.
        low, high: 95 % interval, paired bootstrap over rows.
        p: chance of a difference at least as large if both were equally good, by swapping their
            answers row by row at random (two-sided, never 0).
    """

    difference: float
    low: float
    high: float
    p: float


def paired(run: Pieces, reference: Pieces, *, draws: int = DRAWS, seed: int = 0) -> Paired:
    """Compare two runs by what they did on each row.

    Args:
        run: numerators and denominators of the metric, (N,) each, mean over replicas.
        reference: of the same rows.
        draws: of the bootstrap and of the permutation test.
        seed: of both.

    Source: E. W. Noreen, Computer-Intensive Methods for Testing Hypotheses (1989): approximate
    randomisation, p = (1 + as large) / (1 + draws).
    """
    generator = np.random.default_rng(seed)
    rows = len(run[0])
    (seen,) = _ratio(run) - _ratio(reference)
    resampled, swapped = [], []
    for start in range(0, draws, 500):
        size = min(500, draws - start)
        counts = generator.multinomial(rows, np.full(rows, 1 / rows), size).astype(np.float64)
        resampled.append(_ratio(run, counts) - _ratio(reference, counts))
        swap = generator.random((size, rows)) < 0.5
        first = [np.where(swap, b, a).sum(1) for a, b in zip(run, reference, strict=True)]
        second = [np.where(swap, a, b).sum(1) for a, b in zip(run, reference, strict=True)]
        swapped.append(_divide(*first) - _divide(*second))
    low, high = np.percentile(np.concatenate(resampled), [2.5, 97.5])
    as_large = int((np.abs(np.concatenate(swapped)) >= abs(seen) - 1e-12).sum())
    return Paired(float(seen), float(low), float(high), (1 + as_large) / (1 + draws))


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests: adjusted p, in the order given.

    Source: S. Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted(range(len(chances)), key=lambda number: chances[number])
    adjusted, largest = [0.0] * len(chances), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[number]))
        adjusted[number] = largest
    return adjusted


def compare(home: Home, runs: Sequence[RunRecord], against: str | None = None) -> Table:
    """Every run of a dataset against one of them, on the test rows that all of them scored.

    Args:
        home: where they are.
        runs: at least two of one dataset; those alone in their dataset are left out.
        against: id of the reference, else the run that is best on validation rows.

    Raises:
        MmfuseError: where no two runs scored the same rows.
    """
    rows: list[tuple[Cell, ...]] = []
    chances: list[float] = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        group = [run for run in runs if run.dataset == dataset]
        if len(group) < 2:
            continue
        reference = _reference(group, against)
        base = _pieces(home, reference)
        for run, name in zip(group, labels(group), strict=True):
            scores = (score(run.scores, "val"), score(run.scores, "test"))
            if run.id == reference.id:
                rows.append((dataset, name, *scores, "reference", None, None, None, tags(run)))
                continue
            ids, own = _pieces(home, run)
            if not np.array_equal(ids, base[0]):
                raise MmfuseError(f"{run.id} and {reference.id} scored different test rows")
            found = paired(own, base[1])
            chances.append(found.p)
            low_high = interval(found.low, found.high)
            told = (decimal(found.difference, "+"), low_high, found.p)
            rows.append((dataset, name, *scores, *told, len(chances) - 1, tags(run)))
    if not chances:
        raise MmfuseError("two runs of one dataset are needed: mmfuse train --method A --method B")
    return _table(rows, holm(chances))


def _table(rows: Sequence[tuple[Cell, ...]], adjusted: Sequence[float]) -> Table:
    columns = (
        "dataset", "method", "val", "test", "difference", "95 % interval", "p", "p (Holm)",
        "data × weights",
    )  # fmt: skip
    whole = tuple(
        (*row[:7], adjusted[row[7]] if isinstance(row[7], int) else None, row[8]) for row in rows
    )
    notes = (
        "difference: test score minus the reference's on the same rows, replicas averaged",
        f"p: swapping answers row by row, {DRAWS:,} draws; Holm: over "
        f"{several(len(adjusted), 'test')}",
        "the test is over rows, not over trainings: seeds are in the ± of the scores",
    )
    return Table("runs compared", columns, whole, notes)


def _reference(runs: Sequence[RunRecord], against: str | None) -> RunRecord:
    """The run that was asked for, else the one best on validation rows (never on test rows)."""
    for run in runs:
        if against is not None and run.id.startswith(against):
            return run
    return best_of(runs)


def _pieces(home: Home, run: RunRecord) -> tuple[NDArray[np.int64], Pieces]:
    """Row numbers of the test rows and, of each, the metric's pieces, mean over replicas."""
    samples = read_snapshot(run.snapshot, DatasetPaths.of(home, run.dataset))
    if not any(scores.split == "test" for scores in run.scores):
        raise MmfuseError(
            f"{run.id} was tried by a sweep and not chosen, so no test row was scored with it; "
            f"to compare it, train it by itself"
        )
    table = run.predictions().filter(pl.col("split") == "test")
    found: list[Pieces] = []
    rows = np.zeros(0, np.int64)
    for seed in run.seeds:
        own = table.filter(pl.col("seed") == seed).sort("row")
        rows = own["row"].to_numpy().astype(np.int64)
        outputs = np.array(own["outputs"].to_list(), np.float64).reshape(len(own), -1)
        found.append(pieces(run.task, outputs, samples.targets[rows]))
    above = np.mean([piece[0] for piece in found], axis=0)
    below = np.mean([piece[1] for piece in found], axis=0)
    return rows, (above, below)


def _ratio(piece: Pieces, counts: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    above, below = piece
    if counts is None:
        counts = np.ones((1, len(above)))
    return _divide(counts @ above, counts @ below)


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.zeros_like(above)
    np.divide(above, below, out=found, where=below > 0)
    return found
