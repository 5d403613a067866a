"""Compare runs on the same test rows: paired differences, permutation tests, Holm correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.errors import MmfuseError
from cache.layout import Home
from cache.runs import RunRecord, find_runs
from cache.samples import Task
from pipelines.evaluation.recorded import StoredOutputs, recorded_scores, stored_outputs
from pipelines.metrics.metrics import METRICS
from pipelines.metrics.resampling import MetricTerms, metric_terms, resampler
from pipelines.metrics.significance import DRAWS, RESAMPLES, Paired, holm, paired, paired_by
from pipelines.progress import Track, untracked
from pipelines.reports.runs import (
    EVIDENCE,
    LABEL,
    evidence,
    metric_notes,
    metric_spread,
    run_labels,
    shown_metrics,
)
from pipelines.reports.table import Cell, Column, Spread, Table, count_of, decimal
from pipelines.training.train import best_of


def compare(
    home: Home,
    runs: RunRecord | str | Sequence[RunRecord | str],
    against: str | None = None,
    metrics: Sequence[str] = (),
    *,
    track: Track = untracked,
) -> Table:
    """Compare every run of a dataset with one of them, on the test rows that all of them scored.

    Args:
        home: where they are.
        runs: at least two of one dataset, as records, ids or prefixes of ids; a dataset's only run
            is left out.
        against: id of the reference; default: the best run on validation rows.
        metrics: by name; default: the task's first, and the one that selected the runs.
        track: progress over the runs.

    Raises:
        MmfuseError: where no two runs scored the same rows.
    """
    chosen = find_runs(home, runs)
    rows: list[_Row] = []
    for dataset in dict.fromkeys(run.dataset for run in chosen):
        group = [run for run in chosen if run.dataset == dataset]
        if len(group) < 2:
            continue
        reference = _reference(group, against)
        stored = {run.id: _outputs(run) for run in group}
        for run in track(group, f"compare runs on {dataset}", len(group)):
            if not np.array_equal(stored[run.id].rows, stored[reference.id].rows):
                raise MmfuseError(f"{run.id} and {reference.id} scored different test rows")
        every = [scores for run in group for scores in run.scores]
        rows += [
            _row(run, name, metric, reference, stored)
            for metric in shown_metrics(group, metrics, every=every)
            for run, name in zip(group, run_labels(group), strict=True)
        ]
    if not rows:
        raise MmfuseError("two runs of one dataset are needed: mmfuse train --method A --method B")
    return _table(rows, metrics)


@dataclass(frozen=True)
class _Row:
    """One run by one metric.

    Attributes:
        run: its record.
        name: its label.
        metric: by name.
        scores: on validation and on test rows.
        is_reference: whether the others are compared with it.
        difference: to the reference.
        found: the test against the reference; None for that itself and where there is none.
        draws: of the test.
        note: why there is no test.
    """

    run: RunRecord
    name: str
    metric: str
    scores: tuple[Cell, Cell]
    is_reference: bool = False
    difference: float | None = None
    found: Paired | None = None
    draws: int = 0
    note: str = ""


def _row(
    run: RunRecord,
    name: str,
    metric: str,
    reference: RunRecord,
    stored: Mapping[str, StoredOutputs],
) -> _Row:
    val, test = _scores(run, metric)
    start = _Row(run, name, metric, (val, test), is_reference=run.id == reference.id)
    if start.is_reference:
        return start
    own, base = stored[run.id], stored[reference.id]
    other = _scores(reference, metric)[1]
    if test is not None and other is not None:
        start = replace(start, difference=test.mean - other.mean)
    task = run.task
    if metric not in METRICS[task.kind]:
        return replace(start, note=f"{metric}: no test, since the method measured it itself")
    if not (np.isfinite(own.outputs).all() and np.isfinite(base.outputs).all()):
        return replace(start, note=f"{name}: no test, since some outputs are not finite")
    first, second = (_mean_terms(task, metric, each) for each in (own, base))
    if first is not None and second is not None:
        found = paired(first, second)
        return replace(start, difference=found.difference, found=found, draws=DRAWS)
    counts = len(own.outputs), len(base.outputs)
    if counts[0] != counts[1]:
        return replace(start, note=(
            f"{metric} of {name}: no test of {counts[0]} against {counts[1]} seeds, since it is no "
            "mean over rows: replicas change places in pairs"
        ))  # fmt: skip
    targets = np.concatenate([own.targets, base.targets])
    pools = [
        resampler(task, metric, np.concatenate(both), targets)
        for both in zip(own.outputs, base.outputs, strict=True)
    ]
    found = paired_by(pools, len(own.rows), draws=RESAMPLES)
    return replace(start, difference=found.difference, found=found, draws=RESAMPLES)


def _scores(run: RunRecord, metric: str) -> tuple[Spread | None, Spread | None]:
    """A metric on validation and on test rows."""
    recorded = recorded_scores(run, [metric])
    return metric_spread(recorded, "val", metric), metric_spread(recorded, "test", metric)


def _mean_terms(task: Task, metric: str, stored: StoredOutputs) -> MetricTerms | None:
    """The metric's terms of each row, mean over replicas; None where it is no ratio of sums."""
    each = [metric_terms(task, metric, one, stored.targets) for one in stored.outputs]
    pairs = [terms for terms in each if terms is not None]
    if not pairs:
        return None
    return np.mean([above for above, _ in pairs], 0), np.mean([below for _, below in pairs], 0)


def _table(rows: Sequence[_Row], asked: Sequence[str]) -> Table:
    columns = (
        "dataset", LABEL, "metric", Column.spread("val"), Column.spread("test"),
        Column(
            "difference",
            write=lambda cell: cell if isinstance(cell, str) else decimal(cell, "+"),
            split=lambda cell: (None if isinstance(cell, str) else cell,),
        ),
        Column.interval("95 % interval"), "p", Column("p (Holm)", ("p_holm",)), EVIDENCE,
        Column.hidden("method"), Column.hidden("run"), Column.hidden("reference"),
    )  # fmt: skip
    tested = [row.found.p for row in rows if row.found and np.isfinite(row.found.p)]
    corrected = iter(holm(tested))
    whole: list[tuple[Cell, ...]] = []
    for row in rows:
        shown: tuple[Cell, ...] = (row.difference, None, None, None)
        if row.is_reference:
            shown = ("reference", None, None, None)
        elif row.found:
            after = next(corrected) if np.isfinite(row.found.p) else None
            shown = (row.difference, (row.found.low, row.found.high), row.found.p, after)
        whole.append((
            row.run.dataset, row.name, row.metric, *row.scores, *shown, evidence(row.run),
            row.run.method, row.run.id, row.is_reference,
        ))  # fmt: skip
    notes = (*_notes(rows, len(tested)), *metric_notes([row.metric for row in rows], asked))
    return Table("runs compared", columns, tuple(whole), notes, "comparison")


def _notes(rows: Sequence[_Row], tests: int) -> list[str]:
    fewer = dict.fromkeys(row.metric for row in rows if row.draws == RESAMPLES)
    draws = f"{DRAWS:,} draws"
    if fewer:
        draws += f" ({RESAMPLES:,} of {', '.join(fewer)}, computed anew in each)"
    return [
        "difference: test score minus the reference's on the same rows, mean over replicas",
        f"p: paired permutation test over rows, {draws}; Holm: corrected over "
        f"{count_of(tests, 'test')}",
        "p accounts for the sampling of rows, not of seeds: see the ± of the scores",
        *dict.fromkeys(row.note for row in rows if row.note),
    ]


def _reference(runs: Sequence[RunRecord], against: str | None) -> RunRecord:
    """The run asked for, else the best on validation rows (never on test rows)."""
    for run in runs:
        if against is not None and run.id.startswith(against):
            return run
    return best_of(runs)


def _outputs(run: RunRecord) -> StoredOutputs:
    """Outputs on test rows.

    Raises:
        MmfuseError: for a run that was not scored on them.
    """
    stored = None
    if any(scores.split == "test" for scores in run.scores):
        stored = stored_outputs(run, "test")
    if stored is None:
        raise MmfuseError(
            f"{run.id} is a trial that a sweep did not choose, so it has no test scores; to "
            f"compare it, train it by itself"
        )
    return stored
