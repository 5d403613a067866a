"""Evaluation: a run × missing patterns → scores, against complete data and simple baselines.

Imports no torch: what takes it is in `pipelines.evaluation.score`, so that a mistake is answered at
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.layout import Home
from cache.runs import RunRecord, Scores, load_run
from pipelines.features.missing import MissingPattern

RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """How much a run's first metric changed, mean over replicas, with its 95 % interval.

    The interval is that of a paired bootstrap: test rows and replicas are drawn with replacement
    2,000 times, the same draw for both patterns, and the 2.5 and 97.5 percentiles taken.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One pattern.

    Attributes:
        scores: of the run on test rows.
        difference: to complete data; None for the complete pattern itself.
        single: the modality whose linear probe is best on validation rows with what is left, and
            the probe's scores on test rows under the same pattern.
        majority: of the train rows' most frequent class.
        linear: logistic or ridge regression on the concatenation, under the same pattern.
    """

    scores: Scores
    difference: Difference | None
    single: tuple[str, Scores]
    majority: Scores
    linear: Scores


@dataclass(frozen=True)
class Evaluation:
    """A run under patterns, the complete one first.

    Attributes:
        run: its record.
        metric: the task's first metric, which differences are of.
        rows: one a pattern.
        notes: remarks that belong under the table.
    """

    run: RunRecord
    metric: str
    rows: tuple[Comparison, ...]
    notes: tuple[str, ...]


def evaluate(
    home: Home,
    run: str | RunRecord,
    patterns: Sequence[MissingPattern],
    *,
    device: str = "auto",
) -> Evaluation:
    """Score a run on its test rows under missing patterns; scores are kept beside the record.

    Args:
        home: where features and runs are.
        run: a record, its id, or a beginning of it.
        patterns: what to hide; the complete pattern is always scored, first.
        device: auto, cpu, cuda.

    Raises:
        MmfuseError: for an unknown run or modality (naming what there is), or features that are
            gone or belong to other samples.
    """
    record = load_run(home, run) if isinstance(run, str) else run
    sequences = {stream.modality for stream in record.streams if stream.sequence}
    for pattern in patterns:
        pattern.check(record.modalities, sequences)
    from pipelines.evaluation.score import score  # torch: not needed where something is wrong

    return score(home, record, list(dict.fromkeys([MissingPattern(), *patterns])), device)


def bootstrap(
    complete: tuple[NDArray[np.float64], NDArray[np.float64]],
    hidden: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference hidden - complete of a metric that is a ratio of sums over rows.

    Args:
        complete: numerators and denominators, (R, N) each; see `metrics.pieces`.
        hidden: the same rows under a pattern.
        resamples: draws of rows and replicas.
        seed: of the draws.
    """
    count, rows = complete[0].shape
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, 100):
        size = min(100, resamples - start)
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size).astype(np.float64)
        replicas = generator.integers(0, count, (size, count))
        change = _ratios(hidden, weights.T) - _ratios(complete, weights.T)  # (R, size)
        drawn.append(np.take_along_axis(change.T, replicas, 1).mean(1))
    ones = np.ones((rows, 1))
    mean = float((_ratios(hidden, ones) - _ratios(complete, ones)).mean())
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return Difference(mean, float(low), float(high))


def _ratios(
    pieces: tuple[NDArray[np.float64], NDArray[np.float64]], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    above, below = pieces[0] @ weights, pieces[1] @ weights
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
