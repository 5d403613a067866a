"""Significance: paired bootstrap intervals, permutation tests, and Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.metrics import Array
from pipelines.metrics.resampling import MetricTerms, Resampler, of_terms

RESAMPLES = 2000
DRAWS = 10_000
CELLS = 2_000_000  # of a block of counts, samples × rows: 16 MB


@dataclass(frozen=True)
class Difference:
    """Change of a metric of a run, mean over replicas, with its 95 % interval.

    The interval is that of a paired bootstrap: test rows and replicas are sampled with replacement
    2,000 times, the same sample for both patterns; it spans the 2.5 to the 97.5 percentile. It is
    NaN where the metric is undefined in some of the samples.
    """

    mean: float
    low: float
    high: float


def bootstrap(
    complete: Sequence[Resampler],
    hidden: Sequence[Resampler],
    rows: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Bootstrap the difference hidden - complete of a metric.

    Args:
        complete: the metric of samples of the rows, of each replica.
        hidden: the same under a pattern.
        rows: N.
        resamples: bootstrap samples of rows and replicas.
        seed: random seed.
    """
    count = len(complete)
    generator = np.random.default_rng(seed)
    changes = []
    for size in _blocks(resamples, rows, 100):
        counts = _columns(generator.multinomial(rows, np.full(rows, 1 / rows), size))
        replicas = generator.integers(0, count, (size, count))
        change = np.stack([h(counts) - c(counts) for h, c in zip(hidden, complete, strict=True)])
        changes.append(np.take_along_axis(change.T, replicas, 1).mean(1))
    ones = np.ones((rows, 1))
    each = [float((h(ones) - c(ones))[0]) for h, c in zip(hidden, complete, strict=True)]
    low, high = np.percentile(np.concatenate(changes), [2.5, 97.5])
    return Difference(float(np.mean(each)), float(low), float(high))


@dataclass(frozen=True)
class Paired:
    """One run compared with another on the same rows, by one metric.

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
    """Compare two runs by a metric that is a ratio of sums over rows.

    Args:
        run: numerators and denominators of the metric, (N,) each, mean over replicas.
        reference: of the same rows.
        draws: samples of the bootstrap and of the permutation test.
        seed: random seed.
    """
    above, below = (np.concatenate(pair) for pair in zip(run, reference, strict=True))
    return paired_by([of_terms((above, below))], len(run[0]), draws=draws, seed=seed)


def paired_by(
    pools: Sequence[Resampler], rows: int, *, draws: int = DRAWS, seed: int = 0
) -> Paired:
    """Compare two runs by any metric: bootstrap interval and permutation test.

    The metric itself is computed of every sample, so it need not be a mean over rows. Under the
    null hypothesis the outputs of a row, of all replicas at once, could as well be the other run's.

    Args:
        pools: the metric of samples of 2N rows, the run's N before the reference's; one for each
            pair of replicas.
        rows: N.
        draws: samples of the bootstrap and of the permutation test.
        seed: random seed.

    Source: E. W. Noreen, Computer-Intensive Methods for Testing Hypotheses (1989): approximate
    randomisation, p = (1 + as large) / (1 + draws).
    """
    generator = np.random.default_rng(seed)
    (seen,) = _change(pools, np.ones((rows, 1)), np.zeros((rows, 1)))
    resampled, swapped = [], []
    for size in _blocks(draws, rows, 500):
        counts = _columns(generator.multinomial(rows, np.full(rows, 1 / rows), size))
        resampled.append(_change(pools, counts, np.zeros_like(counts)))
        swap = _columns(generator.random((size, rows)) < 0.5)
        swapped.append(_change(pools, 1 - swap, swap))
    low, high = np.percentile(np.concatenate(resampled), [2.5, 97.5])
    as_large = ~(np.abs(np.concatenate(swapped)) < abs(seen) * (1 - 1e-9) - 1e-12)  # or undefined
    p = (1 + int(as_large.sum())) / (1 + draws) if np.isfinite(seen) else float("nan")
    return Paired(float(seen), float(low), float(high), p)


def _change(pools: Sequence[Resampler], own: Array, other: Array) -> Array:
    """(S,) metric of the first run less that of the second, mean over pairs of replicas.

    Args:
        pools: as for `paired_by`.
        own: (N, S) counts of each run's own rows.
        other: (N, S) counts of the rows that it has of the other run.
    """
    first, second = np.concatenate([own, other]), np.concatenate([other, own])
    return np.asarray(np.mean([pool(first) - pool(second) for pool in pools], 0))


def _columns(samples: NDArray[Any]) -> Array:
    """(S, N) → (N, S) as numbers, rows together in memory."""
    return np.ascontiguousarray(samples.T, np.float64)


def _blocks(total: int, rows: int, most: int) -> list[int]:
    """Sizes that add up to the total, each at most `most` and at most `CELLS` counts."""
    size = max(1, min(most, CELLS // rows))
    return [min(size, total - start) for start in range(0, total, size)]


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
