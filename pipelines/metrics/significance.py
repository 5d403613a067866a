"""Significance: paired bootstrap intervals, permutation tests, and Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.metrics import ratio

MetricTerms = tuple[NDArray[np.float64], NDArray[np.float64]]  # numerators and denominators per row

RESAMPLES = 2000
DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """Change of a run's primary metric, mean over replicas, with its 95 % interval.

    The interval is that of a paired bootstrap: test rows and replicas are sampled with replacement
    2,000 times, the same sample for both patterns; it spans the 2.5 to the 97.5 percentile.
    """

    mean: float
    low: float
    high: float


def bootstrap(
    complete: MetricTerms,
    hidden: MetricTerms,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Bootstrap the difference hidden - complete of a metric that is a ratio of sums over rows.

    Args:
        complete: numerators and denominators, (R, N) each; see `metrics.metric_terms`.
        hidden: the same rows under a pattern.
        resamples: bootstrap samples of rows and replicas.
        seed: random seed.
    """
    count, rows = complete[0].shape
    generator = np.random.default_rng(seed)
    changes = []
    for start in range(0, resamples, 100):
        size = min(100, resamples - start)
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size).astype(np.float64)
        replicas = generator.integers(0, count, (size, count))
        change = _resampled(hidden, weights) - _resampled(complete, weights)  # (R, size)
        changes.append(np.take_along_axis(change.T, replicas, 1).mean(1))
    ones = np.ones((1, rows))
    mean = float((_resampled(hidden, ones) - _resampled(complete, ones)).mean())
    low, high = np.percentile(np.concatenate(changes), [2.5, 97.5])
    return Difference(mean, float(low), float(high))


@dataclass(frozen=True)
class Paired:
    """One run compared with another on the same rows, by the task's primary metric.

    Attributes:
        difference: run - reference, mean over replicas.
        low, high: 95 % interval, paired bootstrap over rows.
        p: p-value of a permutation test that swaps the two runs' outputs row by row at random
            (two-sided, never 0).
    """

    difference: float
    low: float
    high: float
    p: float


def paired(
    run: MetricTerms, reference: MetricTerms, *, draws: int = DRAWS, seed: int = 0
) -> Paired:
    """Compare two runs row by row: bootstrap interval and permutation test.

    Args:
        run: numerators and denominators of the metric, (N,) each, mean over replicas.
        reference: of the same rows.
        draws: samples of the bootstrap and of the permutation test.
        seed: random seed.

    Source: E. W. Noreen, Computer-Intensive Methods for Testing Hypotheses (1989): approximate
    randomisation, p = (1 + as large) / (1 + draws).
    """
    generator = np.random.default_rng(seed)
    rows = len(run[0])
    ones = np.ones((1, rows))
    (seen,) = _resampled(run, ones) - _resampled(reference, ones)
    resampled, swapped = [], []
    for start in range(0, draws, 500):
        size = min(500, draws - start)
        counts = generator.multinomial(rows, np.full(rows, 1 / rows), size).astype(np.float64)
        resampled.append(_resampled(run, counts) - _resampled(reference, counts))
        swap = generator.random((size, rows)) < 0.5
        first = [np.where(swap, b, a).sum(1) for a, b in zip(run, reference, strict=True)]
        second = [np.where(swap, a, b).sum(1) for a, b in zip(run, reference, strict=True)]
        swapped.append(ratio(*first) - ratio(*second))
    low, high = np.percentile(np.concatenate(resampled), [2.5, 97.5])
    as_large = int((np.abs(np.concatenate(swapped)) >= abs(seen) - 1e-12).sum())
    return Paired(float(seen), float(low), float(high), (1 + as_large) / (1 + draws))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for multiple tests: adjusted p-values, in the order given.

    Source: S. Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def _resampled(terms: MetricTerms, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, samples): the metric of each sample, in which row n occurs `counts[sample, n]` times."""
    above, below = terms
    return ratio(above @ counts.T, below @ counts.T)
