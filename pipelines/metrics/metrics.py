"""Metrics of classification, multi-label and regression, as functions of arrays.

The first metric of a task is its primary one: accuracy, micro F1 or mean absolute error.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from cache.samples import Task

Array = NDArray[np.float64]
LOWER_IS_BETTER = frozenset({"log_loss", "ece", "brier", "mae", "rmse"})
PRIMARY = {"classes": "accuracy", "labels": "micro_f1", "value": "mae"}


def scores(task: Task, outputs: Array, targets: NDArray[np.generic]) -> dict[str, float]:
    """Every metric of the task, the primary one first; NaN where a metric is undefined.

    Outputs that are not finite make every metric NaN.

    Args:
        task: decides which metrics.
        outputs: (N, C) logits; for `value` (N,) or (N, 1) in units of the target.
        targets: (N,) class numbers, (N, C) zeros and ones, or (N,) values.
    """
    outputs = np.asarray(outputs, np.float64)
    if not np.isfinite(outputs).all():
        return dict.fromkeys(scores(task, np.zeros_like(outputs), targets), float("nan"))
    if task.kind == "classes":
        return class_scores(softmax(outputs), np.asarray(targets, np.int64))
    if task.kind == "labels":
        return label_scores(1 / (1 + np.exp(-np.clip(outputs, -700, 700))), np.asarray(targets))
    return value_scores(outputs.reshape(len(outputs)), np.asarray(targets, np.float64))


def class_scores(probabilities: Array, targets: NDArray[np.int64]) -> dict[str, float]:
    """Metrics of single-label classification; (N, C) probabilities, (N,) class numbers."""
    count = probabilities.shape[1]
    chosen = probabilities.argmax(1)
    hits = confusion(targets, chosen, count)
    support, named, right = hits.sum(1), hits.sum(0), hits.diagonal()
    f1 = ratio(2 * right, support + named)
    seen, used = support > 0, (support + named) > 0
    onehot = np.eye(count)[targets]
    return {
        "accuracy": float((chosen == targets).mean()),
        "balanced_accuracy": float(ratio(right, support)[seen].mean()),
        "macro_f1": float(f1[used].mean()),
        "weighted_f1": float((f1 * support).sum() / support.sum()),
        "weighted_precision": float((ratio(right, named) * support).sum() / support.sum()),
        "auroc": _mean_defined(auroc(probabilities[:, c], targets == c) for c in range(count)),
        "log_loss": log_loss(probabilities, targets),
        "brier": float(((probabilities - onehot) ** 2).sum(1).mean()),
        "ece": calibration_error(probabilities, targets),
    }


def label_scores(probabilities: Array, targets: NDArray[np.generic]) -> dict[str, float]:
    """Metrics of multi-label classification at 0.5; both (N, C).

    `hit_at_1` is the share of rows whose most probable label is true.
    """
    truth, chosen = targets.astype(bool), probabilities >= 0.5
    right = (truth & chosen).sum(0).astype(np.float64)
    support, named = truth.sum(0), chosen.sum(0)
    f1 = ratio(2 * right, support + named)
    per_row = ratio(2.0 * (truth & chosen).sum(1), truth.sum(1) + chosen.sum(1))
    top = probabilities.argmax(1)
    columns = range(truth.shape[1])
    return {
        "micro_f1": float(ratio(2 * right.sum(), support.sum() + named.sum())),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(ratio((f1 * support).sum(), support.sum())),
        "samples_f1": float(per_row.mean()),
        "hit_at_1": float(truth[np.arange(len(top)), top].mean()),
        "subset_accuracy": float((truth == chosen).all(1).mean()),
        "label_accuracy": float((truth == chosen).mean()),
        "auroc": _mean_defined(auroc(probabilities[:, c], truth[:, c]) for c in columns),
    }


def value_scores(outputs: Array, targets: Array) -> dict[str, float]:
    """Metrics of regression, with those of sentiment in [-3, 3] (methods.md 5.3).

    `acc2_has0` compares y ≥ 0 with ŷ ≥ 0 on all rows, `acc2_non0` y > 0 with ŷ > 0 where y ≠ 0;
    `acc7` rounds half to even after clipping to [-3, 3]. `r` is NaN for constant outputs.
    """
    error = outputs - targets
    result = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
    result["r"] = pearson(outputs, targets)
    result["acc2_has0"], result["f1_has0"] = _binary_scores(targets >= 0, outputs >= 0)
    some = targets != 0
    result["acc2_non0"], result["f1_non0"] = _binary_scores(targets[some] > 0, outputs[some] > 0)
    result["acc7"] = float((_rounded_to_seven(outputs) == _rounded_to_seven(targets)).mean())
    return result


def metric_terms(task: Task, outputs: Array, targets: NDArray[np.generic]) -> tuple[Array, Array]:
    """The primary metric as a ratio of sums over rows, for resampling: numerators, denominators.

    Returns:
        Two (N,) arrays; the metric of any multiset of rows is sum / sum of theirs.
    """
    if task.kind == "classes":
        return (outputs.argmax(1) == targets).astype(np.float64), np.ones(len(outputs))
    if task.kind == "labels":
        truth, chosen = np.asarray(targets).astype(bool), outputs >= 0
        both = 2.0 * (truth & chosen).sum(1)
        return both, (truth.sum(1) + chosen.sum(1)).astype(np.float64)
    values = np.asarray(targets, np.float64)
    return np.abs(outputs.reshape(len(outputs)) - values), np.ones(len(outputs))


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def confusion(targets: NDArray[np.int64], chosen: NDArray[np.int64], count: int) -> Array:
    """Confusion matrix (C, C) of counts: rows = true class, columns = predicted class."""
    cells = np.bincount(targets * count + chosen, minlength=count * count)
    return cells.reshape(count, count).astype(np.float64)


def log_loss(probabilities: Array, targets: NDArray[np.int64]) -> float:
    """Mean -log probability of the true class, probabilities clipped to [eps, 1 - eps]."""
    true = probabilities[np.arange(len(targets)), targets]
    eps = np.finfo(np.float64).eps
    return float(-np.log(np.clip(true, eps, 1 - eps)).mean())


def calibration_error(probabilities: Array, targets: NDArray[np.int64], bins: int = 15) -> float:
    """Expected calibration error: mean |accuracy - confidence| over equal bins of confidence."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == targets
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(targets))


def auroc(values: Array, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count half; NaN without positive or negative rows."""
    above, below = int(positive.sum()), int((~positive).sum())
    if not above or not below:
        return float("nan")
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[number]
    return float((ranks[positive].sum() - above * (above + 1) / 2) / (above * below))


def recall_at(made: Array, real: Array, most: int) -> float:
    """R@k of retrieval: share of rows whose own real vector is among the k of largest cosine.

    A row whose own vector ties with others counts by its probability of being among the k; NaN
    below two rows.

    Args:
        made: (N, D) queries.
        real: (N, D) their targets, row for row.
        most: k.
    """
    if len(made) < 2:
        return float("nan")
    queries, gallery = _directions(made), _directions(real)
    hits = 0.0
    for start in range(0, len(queries), 256):
        cosines = queries[start : start + 256] @ gallery.T  # (256, N)
        own = cosines[np.arange(len(cosines)), start + np.arange(len(cosines))][:, None]
        ahead = (cosines > own + 1e-12).sum(1)
        tied = (np.abs(cosines - own) <= 1e-12).sum(1) - 1
        hits += float(np.clip((most - ahead) / (tied + 1), 0, 1).sum())
    return hits / len(queries)


def mean_cosine(made: Array, real: Array) -> float:
    """Mean cosine similarity of paired vectors, (N, D) both; NaN without rows."""
    if not len(made):
        return float("nan")
    return float((_directions(made) * _directions(real)).sum(1).mean())


def pearson(outputs: Array, targets: Array) -> float:
    """Pearson correlation; NaN where either is constant."""
    a, b = outputs - outputs.mean(), targets - targets.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    tiny = 1e-12 * len(a) * max(1.0, float(np.abs(outputs).max()) * float(np.abs(targets).max()))
    return float((a * b).sum() / scale) if scale > tiny else float("nan")


def is_better_by(name: str) -> Callable[[float, float], bool]:
    """Comparison of two scores of a metric: whether the first is better than the second."""
    if name in LOWER_IS_BETTER:
        return lambda first, second: first < second
    return lambda first, second: first > second


def _directions(vectors: Array) -> Array:
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def _binary_scores(truth: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> tuple[float, float]:
    if not len(truth):
        return float("nan"), float("nan")
    hits = confusion(truth.astype(np.int64), chosen.astype(np.int64), 2)
    support = hits.sum(1)
    f1 = ratio(2 * hits.diagonal(), support + hits.sum(0))
    return float((truth == chosen).mean()), float((f1 * support).sum() / support.sum())


def _rounded_to_seven(values: Array) -> Array:
    return np.asarray(np.round(np.clip(values, -3, 3)))


def ratio(above: Array, below: Array) -> Array:
    """Division with 0 / 0 = 0, as scikit-learn's `zero_division=0`."""
    below = np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def _mean_defined(values: Iterable[float]) -> float:
    found = [v for v in values if not np.isnan(v)]
    return float(np.mean(found)) if found else float("nan")
