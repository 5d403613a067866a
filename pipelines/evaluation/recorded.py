"""Recorded scores of a run; metrics that an older version did not write, from stored outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.runs import RunRecord, Scores
from cache.snapshots import read_snapshot
from pipelines.metrics.metrics import METRICS, RECALL, replica_scores


@dataclass(frozen=True)
class StoredOutputs:
    """Outputs of a run on the rows of a split, as trained.

    Attributes:
        rows: (N,) their numbers in the dataset.
        outputs: (R, N, C) logits; for `value` (R, N, 1) in units of the target.
        targets: of these rows.
    """

    rows: NDArray[np.int64]
    outputs: NDArray[np.float64]
    targets: NDArray[Any]


def stored_outputs(run: RunRecord, split: str) -> StoredOutputs | None:
    """Outputs that were stored beside the record; None where this split was not scored.

    Raises:
        MmfuseError: if the dataset's samples are gone.
    """
    table = run.predictions().filter(pl.col("split") == split)
    if not len(table):
        return None
    home = Home(run.path.parent.parent)
    samples = read_snapshot(run.snapshot, DatasetPaths.of(home, run.dataset))
    each = []
    rows = np.zeros(0, np.int64)
    for seed in run.seeds:
        own = table.filter(pl.col("seed") == seed).sort("row")
        rows = own["row"].to_numpy().astype(np.int64)
        each.append(np.array(own["outputs"].to_list(), np.float64).reshape(len(own), -1))
    return StoredOutputs(rows, np.stack(each), samples.targets[rows])


def recorded_scores(run: RunRecord, metrics: Sequence[str]) -> list[Scores]:
    """All scores of a run so far, in the order of `RunRecord.scores`.

    Scores as trained have these metrics if the task has them: what version 0.1.0 did not write is
    computed from the stored outputs, where these and the dataset's samples are still there.

    Args:
        run: the run.
        metrics: names that are needed; `recall` is that of each class.
    """
    needed = {name for name in metrics if name in METRICS[run.task.kind]}
    by_class = RECALL in metrics and run.task.kind == "classes"
    found: list[Scores] = []
    trained: set[str] = set()  # splits whose scores as trained, the first ones, were seen
    for scores in run.scores:
        lacks = not scores.metrics.keys() >= needed or (by_class and not scores.per_class)
        is_first = scores.split not in trained
        trained.add(scores.split)
        found.append(_completed(run, scores) if is_first and lacks else scores)
    return found


def _completed(run: RunRecord, scores: Scores) -> Scores:
    try:
        stored = stored_outputs(run, scores.split)
    except (MmfuseError, OSError):
        return scores
    if stored is None or len(stored.rows) != scores.rows:
        return scores
    more = replica_scores(run.task, list(stored.outputs), stored.targets)
    names = [*METRICS[run.task.kind], *scores.metrics]
    metrics = {name: scores.metrics.get(name, more.metrics.get(name, [])) for name in names}
    return replace(scores, metrics=metrics, per_class=more.per_class)
