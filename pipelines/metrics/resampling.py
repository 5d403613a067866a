"""Metrics of resampled rows, many samples at once: for intervals and permutation tests.

A sample is a vector of counts: how often each row occurs in it. Metrics that are means over rows,
or ratios of sums, take one matrix product; so do those of sums by class or by bin. Metrics of ranks
sort the rows once and accumulate counts in that order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.samples import Task
from pipelines.metrics.metrics import (
    BINS,
    Array,
    brier_terms,
    calibration_bins,
    first_label_is_true,
    is_constant,
    log_loss_terms,
    ratio,
    rounded_to_seven,
    sigmoid,
    softmax,
)

MetricTerms = tuple[Array, Array]
"""Numerators and denominators, (N,) each: the metric of any sample is sum / sum of theirs."""
Resampler = Callable[[Array], Array]
"""(N, S) counts of rows, a sample a column → (S,) the metric of each sample."""


def resampler(task: Task, name: str, outputs: Array, targets: NDArray[Any]) -> Resampler:
    """A function from samples of these rows to their metric; NaN where it is undefined.

    Args:
        task: of the targets.
        name: of the metric, one of `METRICS` of the task.
        outputs: (N, C) logits; for `value` (N,) or (N, 1). Not finite ones make the metric NaN.
        targets: as for `metrics.scores`.
    """
    outputs = np.asarray(outputs, np.float64)
    if not np.isfinite(outputs).all():
        return lambda counts: np.full(counts.shape[1], np.nan)
    terms = metric_terms(task, name, outputs, targets)
    if terms is not None:
        return of_terms(terms, np.nan if name == "acc2_non0" else 0.0)
    if task.kind == "classes":
        return _of_classes(name, softmax(outputs), np.asarray(targets, np.int64))
    if task.kind == "labels":
        return _of_labels(name, sigmoid(outputs), np.asarray(targets).astype(bool))
    return _of_values(name, outputs.reshape(len(outputs)), np.asarray(targets, np.float64))


def metric_terms(
    task: Task, name: str, outputs: Array, targets: NDArray[Any]
) -> MetricTerms | None:
    """A metric as a ratio of sums over rows; None for a metric that is none.

    Args:
        task: of the targets.
        name: of the metric.
        outputs: finite, as for `resampler`.
        targets: as for `metrics.scores`.
    """
    kinds = {"classes": _class_terms, "labels": _label_terms, "value": _value_terms}
    found = kinds[task.kind](name, outputs, np.asarray(targets))
    if found is None:
        return None
    above, below = found if isinstance(found, tuple) else (found, np.ones(len(outputs)))
    return np.asarray(above, np.float64), np.asarray(below, np.float64)


def of_terms(terms: MetricTerms, empty: float = 0.0) -> Resampler:
    """The resampler of a ratio of sums; `empty` is 0 / 0."""
    above, below = terms

    def metric(counts: Array) -> Array:
        total = below @ counts
        return np.where(total > 0, ratio(above @ counts, total), empty)

    return metric


def _class_terms(name: str, outputs: Array, targets: NDArray[Any]) -> Any:  # noqa: ANN401
    if name == "accuracy":
        return outputs.argmax(1) == targets
    if name == "log_loss":
        return log_loss_terms(softmax(outputs), targets)
    return brier_terms(softmax(outputs), targets) if name == "brier" else None


def _label_terms(name: str, outputs: Array, targets: NDArray[Any]) -> Any:  # noqa: ANN401
    truth, chosen = targets.astype(bool), outputs >= 0
    both, either = 2.0 * (truth & chosen).sum(1), truth.sum(1) + chosen.sum(1)
    if name == "micro_f1":
        return both, either
    if name == "samples_f1":
        return ratio(both, either)
    if name == "hit_at_1":
        return first_label_is_true(outputs, truth)
    if name == "subset_accuracy":
        return (truth == chosen).all(1)
    return (truth == chosen).mean(1) if name == "label_accuracy" else None


def _value_terms(name: str, outputs: Array, targets: NDArray[Any]) -> Any:  # noqa: ANN401
    outputs, targets = outputs.reshape(len(outputs)), targets.astype(np.float64)
    if name == "mae":
        return np.abs(outputs - targets)
    if name == "acc2_has0":
        return (outputs >= 0) == (targets >= 0)
    if name == "acc2_non0":
        some = targets != 0
        return some & ((outputs > 0) == (targets > 0)), some
    return rounded_to_seven(outputs) == rounded_to_seven(targets) if name == "acc7" else None


def _of_classes(name: str, probabilities: Array, targets: NDArray[np.int64]) -> Resampler:
    count = probabilities.shape[1]
    if name in ("auroc", "auprc"):
        ranked = _auroc if name == "auroc" else _average_precision
        each = [ranked(probabilities[:, c], targets == c) for c in range(count)]
        return partial(_mean_defined, each)
    if name == "ece":
        place, gap = calibration_bins(probabilities, targets)
        sums = _sums_by(place, BINS, gap)
        return lambda counts: np.abs(sums(counts)).sum(0) / counts.sum(0)
    return _of_confusion(name, targets, probabilities.argmax(1), count)


def _of_confusion(
    name: str, targets: NDArray[np.int64], chosen: NDArray[np.int64], count: int
) -> Resampler:
    """Metrics of the rows, the predictions and the hits of each class."""
    rows, predictions = _sums_by(targets, count), _sums_by(chosen, count)
    hits = _sums_by(targets, count, (chosen == targets).astype(np.float64))

    def metric(counts: Array) -> Array:
        support, named, right = rows(counts), predictions(counts), hits(counts)  # (C, S) each
        f1 = ratio(2 * right, support + named)
        if name == "balanced_accuracy":
            return ratio(ratio(right, support).sum(0), (support > 0).sum(0))
        if name == "macro_f1":
            return ratio(f1.sum(0), (support + named > 0).sum(0))
        values = f1 if name == "weighted_f1" else ratio(right, named)  # or weighted_precision
        return _divided((values * support).sum(0), support.sum(0))

    return metric


def _of_labels(name: str, probabilities: Array, truth: NDArray[np.bool_]) -> Resampler:
    if name in ("auroc", "auprc"):
        ranked = _auroc if name == "auroc" else _average_precision
        each = [ranked(probabilities[:, c], truth[:, c]) for c in range(truth.shape[1])]
        return partial(_mean_defined, each)
    chosen = probabilities >= 0.5
    both, either = 2.0 * (truth & chosen), truth.astype(np.float64) + chosen

    def metric(counts: Array) -> Array:
        f1 = ratio(both.T @ counts, either.T @ counts)  # (C, S)
        if name == "macro_f1":
            return np.asarray(f1.mean(0))
        support = truth.T @ counts
        return ratio((f1 * support).sum(0), support.sum(0))

    return metric


def _of_values(name: str, outputs: Array, targets: Array) -> Resampler:
    if name in ("f1_has0", "f1_non0"):
        some = np.ones(len(targets), bool) if name == "f1_has0" else targets != 0
        pairs = [x >= 0 if name == "f1_has0" else x > 0 for x in (targets[some], outputs[some])]
        truth, chosen = (pair.astype(np.int64) for pair in pairs)
        inner = _of_confusion("weighted_f1", truth, chosen, 2)
        return lambda counts: inner(counts[some])
    if name == "spearman":
        ranks = _midranks(outputs), _midranks(targets)
        return lambda counts: _correlation(counts, ranks[0](counts), ranks[1](counts))
    if name == "pearson":
        if is_constant(outputs) or is_constant(targets):
            return lambda counts: np.full(counts.shape[1], np.nan)
        a, b = (values[:, None] - values.mean() for values in (outputs, targets))
        return lambda counts: _correlation(counts, a, b)
    squares = (outputs - targets) ** 2
    if name == "rmse":
        return lambda counts: np.sqrt(ratio(squares @ counts, counts.sum(0)))
    centred = (targets - targets.mean())[:, None]

    def metric(counts: Array) -> Array:
        return 1 - _divided(squares @ counts, counts.sum(0) * _variance(counts, centred))

    constant = is_constant(targets)
    return (lambda counts: np.full(counts.shape[1], np.nan)) if constant else metric


def _sums_by(
    places: NDArray[np.int64], count: int, values: Array | None = None
) -> Callable[[Array], Array]:
    """(N, S) counts → (count, S) sums of the rows' values (else of ones) by place."""
    from scipy.sparse import csr_array  # a quarter of a second, which accuracy has no need of

    rows = np.arange(len(places))
    values = np.ones(len(places)) if values is None else values
    matrix = csr_array((values, (places, rows)), shape=(count, len(places)))
    return lambda counts: np.asarray(matrix @ counts)


class _Cumulated:
    """Counts of the rows below each of some values, and of those that equal it.

    Args:
        values: (K,) of the rows that are counted.
        rows: (K,) their numbers among the N.
        at: (P,) the values that are asked about.
    """

    def __init__(self, values: Array, rows: NDArray[np.int64], at: Array) -> None:
        order = np.argsort(values, kind="stable")
        self.rows = rows[order]
        self.first = np.searchsorted(values[order], at, "left")
        self.last = np.searchsorted(values[order], at, "right")

    def __call__(self, counts: Array) -> tuple[Array, Array, Array]:
        """(N, S) counts → (P, S) counts below, (P, S) below or equal, and (S,) in total."""
        total = np.zeros((len(self.rows) + 1, counts.shape[1]))
        for place, row in enumerate(self.rows):  # twice as fast as np.cumsum
            np.add(total[place], counts[row], out=total[place + 1])
        return total[self.first], total[self.last], total[-1]


def _auroc(values: Array, positive: NDArray[np.bool_]) -> Resampler:
    """As `metrics.auroc`."""
    above, other = np.flatnonzero(positive), np.flatnonzero(~positive)
    negatives = _Cumulated(values[other], other, values[above])

    def metric(counts: Array) -> Array:
        below, upto, total = negatives(counts)
        own = counts[above]  # (P, S)
        return _divided((own * (below + upto)).sum(0) / 2, own.sum(0) * total)

    return metric


def _average_precision(values: Array, positive: NDArray[np.bool_]) -> Resampler:
    """As `metrics.average_precision`."""
    above, other = np.flatnonzero(positive), np.flatnonzero(~positive)
    negatives = _Cumulated(values[other], other, values[above])
    positives = _Cumulated(values[above], above, values[above])

    def metric(counts: Array) -> Array:
        below, _, total = positives(counts)
        right = total - below  # (P, S) positive rows of no lower value
        below, _, others = negatives(counts)
        precision = ratio(right, right + others - below)
        return _divided((counts[above] * precision).sum(0), total)

    return metric


def _midranks(values: Array) -> Callable[[Array], Array]:
    """(N, S) counts → (N, S) ranks of the rows in each sample; equal values share their mean."""
    every = _Cumulated(values, np.arange(len(values)), values)

    def ranks(counts: Array) -> Array:
        below, upto, _ = every(counts)
        return (below + upto + 1) / 2

    return ranks


def _correlation(counts: Array, a: Array, b: Array) -> Array:
    """Pearson correlation of each sample, of values (N, 1) or (N, S); NaN where one is constant."""
    total = counts.sum(0)
    mean_a, mean_b = (counts * a).sum(0) / total, (counts * b).sum(0) / total
    together = (counts * a * b).sum(0) / total - mean_a * mean_b
    return _divided(together, np.sqrt(_variance(counts, a) * _variance(counts, b)))


def _variance(counts: Array, values: Array) -> Array:
    """Variance of each sample; exactly 0 where it is nothing but rounding."""
    total = counts.sum(0)
    squares, mean = (counts * values**2).sum(0) / total, (counts * values).sum(0) / total
    variance = squares - mean**2
    return np.where(variance > 1e-13 * squares, variance, 0.0)


def _mean_defined(each: Sequence[Resampler], counts: Array) -> Array:
    """Mean of several metrics of each sample, over those that are defined in it."""
    total, defined = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for metric in each:
        found = metric(counts)
        there = ~np.isnan(found)
        total += np.where(there, found, 0)
        defined += there
    return _divided(total, defined)


def _divided(above: Array, below: Array) -> Array:
    """Division with x / 0 = NaN."""
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))
