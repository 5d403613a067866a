"""Metrics of classification, multi-label and regression, as functions of arrays.

The first metric of a task is its primary one: accuracy, micro F1 or mean absolute error. All but
recall by class are one number; it is one a class.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cache.errors import unknown
from cache.runs import Scores
from cache.samples import Task

Array = NDArray[np.float64]
TaskKind = Literal["classes", "labels", "value"]
ClassMetric = Literal[
    "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "weighted_precision", "auroc",
    "auprc", "log_loss", "brier", "ece",
]  # fmt: skip
LabelMetric = Literal[
    "micro_f1", "macro_f1", "weighted_f1", "samples_f1", "hit_at_1", "subset_accuracy",
    "label_accuracy", "auroc", "auprc",
]  # fmt: skip
ValueMetric = Literal[
    "mae", "rmse", "r2", "pearson", "spearman", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0",
    "acc7",
]  # fmt: skip
MetricName = Literal[ClassMetric, LabelMetric, ValueMetric]
METRICS: dict[TaskKind, tuple[str, ...]] = {
    "classes": get_args(ClassMetric),
    "labels": get_args(LabelMetric),
    "value": get_args(ValueMetric),
}
"""Names of the metrics of each task, the primary one first."""
LOWER_IS_BETTER = frozenset({"log_loss", "ece", "brier", "mae", "rmse"})
PRIMARY: dict[TaskKind, str] = {kind: names[0] for kind, names in METRICS.items()}
RECALL = "recall"
"""Recall of each class: metric words may name it, and it has a table of its own."""
BINS = 15  # of confidence, for the calibration error


def check_metric(word: str, kinds: Iterable[TaskKind], more: Iterable[str] = ()) -> str:
    """The word, if a task of one of these kinds has such a metric.

    Args:
        word: that was typed.
        kinds: of tasks.
        more: further names that are allowed.

    Raises:
        MmfuseError: for another word; it names those that exist.
    """
    kinds = list(dict.fromkeys(kinds))
    known = {*(name for kind in kinds for name in METRICS[kind]), *more}
    if word not in known:
        raise unknown(f"metric for {' or '.join(kinds)}", word, known)
    return word


def scores(task: Task, outputs: Array, targets: NDArray[np.generic]) -> dict[str, float]:
    """Every metric of the task, the primary one first; NaN where a metric is undefined.

    Outputs that are not finite make every metric NaN.

    Args:
        task: decides which metrics.
        outputs: (N, C) logits; for `value` (N,) or (N, 1) in units of the target.
        targets: (N,) class numbers, (N, C) zeros and ones, or (N,) values.
    """
    return _computed(task, METRICS[task.kind], outputs, targets)


def score(task: Task, name: str, outputs: Array, targets: NDArray[np.generic]) -> float:
    """One metric of `scores`."""
    return _computed(task, (name,), outputs, targets)[name]


def _computed(
    task: Task, names: Sequence[str], outputs: Array, targets: NDArray[np.generic]
) -> dict[str, float]:
    outputs = np.asarray(outputs, np.float64)
    if not np.isfinite(outputs).all():
        return dict.fromkeys(names, float("nan"))
    rows: ClassRows | LabelRows | ValueRows
    with np.errstate(over="ignore", invalid="ignore"):  # of huge values
        if task.kind == "classes":
            rows = ClassRows(softmax(outputs), np.asarray(targets, np.int64))
            return {name: _CLASSES[name](rows) for name in names}
        if task.kind == "labels":
            rows = LabelRows(sigmoid(outputs), np.asarray(targets))
            return {name: _LABELS[name](rows) for name in names}
        rows = ValueRows(outputs.reshape(len(outputs)), np.asarray(targets, np.float64))
        return {name: _VALUES[name](rows) for name in names}


def recalls(outputs: Array, targets: NDArray[np.generic]) -> tuple[Array, Array]:
    """Recall and number of rows of each class, (C,) both; recall is NaN without rows.

    Args:
        outputs: (N, C) logits; not finite ones make every recall NaN.
        targets: (N,) class numbers.
    """
    rows = ClassRows(np.asarray(outputs, np.float64), np.asarray(targets, np.int64))
    found = np.full(rows.support.shape, np.nan)
    if np.isfinite(outputs).all():
        np.divide(rows.right, rows.support, out=found, where=rows.support > 0)
    return found, rows.support


def replica_scores(
    task: Task,
    outputs: Sequence[Array],
    targets: NDArray[np.generic],
    *,
    pattern: str = "complete",
    split: str = "test",
    realised: float = 0.0,
) -> Scores:
    """`Scores` of R replicas: every metric, and recall by class of a task of classes.

    Args:
        task: of the targets.
        outputs: (N, C) of each replica, as for `scores`.
        targets: as for `scores`.
        pattern: label of the missing pattern.
        split: whose rows these are.
        realised: share of present cells that the pattern hid.
    """
    each = [scores(task, one, targets) for one in outputs]
    metrics = {name: [one[name] for one in each] for name in METRICS[task.kind]}
    found = Scores(pattern, split, len(targets), realised, metrics)
    if task.kind == "classes":
        pairs = [recalls(one, targets) for one in outputs]
        found.per_class[RECALL] = [recall.tolist() for recall, _ in pairs]
        found.per_class["rows"] = [pairs[0][1].tolist()]
    return found


class ClassRows:
    """Rows of single-label classification, with what several metrics need.

    Args:
        probabilities: (N, C).
        targets: (N,) class numbers.
    """

    def __init__(self, probabilities: Array, targets: NDArray[np.int64]) -> None:
        self.probabilities, self.targets = probabilities, targets
        self.chosen = probabilities.argmax(1)

    @cached_property
    def hits(self) -> Array:
        """Confusion matrix (C, C)."""
        return confusion(self.targets, self.chosen, self.probabilities.shape[1])

    @cached_property
    def support(self) -> Array:
        """(C,) rows of each class."""
        return np.asarray(self.hits.sum(1))

    @cached_property
    def named(self) -> Array:
        """(C,) rows that were predicted to be of each class."""
        return np.asarray(self.hits.sum(0))

    @cached_property
    def right(self) -> Array:
        """(C,) rows of each class that were predicted."""
        return self.hits.diagonal()

    @cached_property
    def f1(self) -> Array:
        """(C,) F1 of each class; 0 where it is neither true nor predicted."""
        return ratio(2 * self.right, self.support + self.named)

    def weighted(self, values: Array) -> float:
        """Mean over classes, weighed by their rows."""
        return float((values * self.support).sum() / self.support.sum())

    def by_class(self, metric: "Callable[[Array, NDArray[np.bool_]], float]") -> float:
        """Mean of a metric of each class against the rest, where it is defined."""
        count = self.probabilities.shape[1]
        return _mean_defined(
            metric(self.probabilities[:, c], self.targets == c) for c in range(count)
        )


_CLASSES: dict[str, Callable[[ClassRows], float]] = {
    "accuracy": lambda rows: float((rows.chosen == rows.targets).mean()),
    "balanced_accuracy": lambda rows: float(
        ratio(rows.right, rows.support)[rows.support > 0].mean()
    ),
    "macro_f1": lambda rows: float(rows.f1[rows.support + rows.named > 0].mean()),
    "weighted_f1": lambda rows: rows.weighted(rows.f1),
    "weighted_precision": lambda rows: rows.weighted(ratio(rows.right, rows.named)),
    "auroc": lambda rows: rows.by_class(auroc),
    "auprc": lambda rows: rows.by_class(average_precision),
    "log_loss": lambda rows: log_loss(rows.probabilities, rows.targets),
    "brier": lambda rows: float(brier_terms(rows.probabilities, rows.targets).mean()),
    "ece": lambda rows: calibration_error(rows.probabilities, rows.targets),
}


class LabelRows:
    """Rows of multi-label classification at 0.5, with what several metrics need.

    Args:
        probabilities: (N, C).
        targets: (N, C) zeros and ones.
    """

    def __init__(self, probabilities: Array, targets: NDArray[np.generic]) -> None:
        self.probabilities, self.truth = probabilities, targets.astype(bool)
        self.chosen = probabilities >= 0.5
        both = self.truth & self.chosen
        self.right, self.row_right = both.sum(0).astype(np.float64), both.sum(1).astype(np.float64)
        self.support, self.named = self.truth.sum(0), self.chosen.sum(0)

    @cached_property
    def f1(self) -> Array:
        """(C,) F1 of each label."""
        return ratio(2 * self.right, self.support + self.named)

    def by_label(self, metric: "Callable[[Array, NDArray[np.bool_]], float]") -> float:
        """Mean of a metric of each label, where it is defined."""
        columns = range(self.truth.shape[1])
        return _mean_defined(metric(self.probabilities[:, c], self.truth[:, c]) for c in columns)


_LABELS: dict[str, Callable[[LabelRows], float]] = {
    "micro_f1": lambda rows: float(
        ratio(2 * rows.right.sum(), rows.support.sum() + rows.named.sum())
    ),
    "macro_f1": lambda rows: float(rows.f1.mean()),
    "weighted_f1": lambda rows: float(ratio((rows.f1 * rows.support).sum(), rows.support.sum())),
    "samples_f1": lambda rows: float(
        ratio(2 * rows.row_right, rows.truth.sum(1) + rows.chosen.sum(1)).mean()
    ),
    # Share of rows whose most probable label is true.
    "hit_at_1": lambda rows: float(first_label_is_true(rows.probabilities, rows.truth).mean()),
    "subset_accuracy": lambda rows: float((rows.truth == rows.chosen).all(1).mean()),
    "label_accuracy": lambda rows: float((rows.truth == rows.chosen).mean()),
    "auroc": lambda rows: rows.by_label(auroc),
    "auprc": lambda rows: rows.by_label(average_precision),
}


class ValueRows:
    """Rows of regression; (N,) both.

    `acc2_has0` compares y ≥ 0 with ŷ ≥ 0 on all rows, `acc2_non0` y > 0 with ŷ > 0 where y ≠ 0;
    `acc7` rounds half to even after clipping to [-3, 3]: metrics of sentiment (methods.md 5.3).
    """

    def __init__(self, outputs: Array, targets: Array) -> None:
        self.outputs, self.targets = outputs, targets
        self.error = outputs - targets

    @cached_property
    def has0(self) -> tuple[float, float]:
        """Accuracy and weighted F1 of y ≥ 0."""
        return _binary_scores(self.targets >= 0, self.outputs >= 0)

    @cached_property
    def non0(self) -> tuple[float, float]:
        """Accuracy and weighted F1 of y > 0 where y ≠ 0."""
        some = self.targets != 0
        return _binary_scores(self.targets[some] > 0, self.outputs[some] > 0)


_VALUES: dict[str, Callable[[ValueRows], float]] = {
    "mae": lambda rows: float(np.abs(rows.error).mean()),
    "rmse": lambda rows: float(np.sqrt((rows.error**2).mean())),
    "r2": lambda rows: r2(rows.outputs, rows.targets),
    "pearson": lambda rows: pearson(rows.outputs, rows.targets),
    "spearman": lambda rows: pearson(midranks(rows.outputs), midranks(rows.targets)),
    "acc2_has0": lambda rows: rows.has0[0],
    "f1_has0": lambda rows: rows.has0[1],
    "acc2_non0": lambda rows: rows.non0[0],
    "f1_non0": lambda rows: rows.non0[1],
    "acc7": lambda rows: float(
        (rounded_to_seven(rows.outputs) == rounded_to_seven(rows.targets)).mean()
    ),
}


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Probabilities of labels."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))


def confusion(targets: NDArray[np.int64], chosen: NDArray[np.int64], count: int) -> Array:
    """Confusion matrix (C, C) of counts: rows = true class, columns = predicted class."""
    cells = np.bincount(targets * count + chosen, minlength=count * count)
    return cells.reshape(count, count).astype(np.float64)


def log_loss(probabilities: Array, targets: NDArray[np.int64]) -> float:
    """Mean -log probability of the true class, probabilities clipped to [eps, 1 - eps]."""
    return float(log_loss_terms(probabilities, targets).mean())


def log_loss_terms(probabilities: Array, targets: NDArray[np.int64]) -> Array:
    """(N,) -log probability of the true class."""
    true = probabilities[np.arange(len(targets)), targets]
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(true, eps, 1 - eps)))


def brier_terms(probabilities: Array, targets: NDArray[np.int64]) -> Array:
    """(N,) squared distance of the probabilities to the true class's, summed over classes."""
    squares = (probabilities**2).sum(1)
    return np.asarray(squares - 2 * probabilities[np.arange(len(targets)), targets] + 1)


def first_label_is_true(probabilities: Array, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether the most probable label of a row is true."""
    return np.asarray(truth[np.arange(len(truth)), probabilities.argmax(1)])


def calibration_error(probabilities: Array, targets: NDArray[np.int64]) -> float:
    """Expected calibration error: mean |accuracy - confidence| over equal bins of confidence."""
    place, gap = calibration_bins(probabilities, targets)
    gaps = np.bincount(place, weights=gap, minlength=BINS)
    return float(np.abs(gaps).sum() / len(targets))


def calibration_bins(
    probabilities: Array, targets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Array]:
    """(N,) bin of each row's confidence, and (N,) 1 or 0 for right or wrong, less confidence."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == targets
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1), right - confidence


def auroc(values: Array, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count half; NaN without positive or negative rows."""
    above, below = int(positive.sum()), int((~positive).sum())
    if not above or not below:
        return float("nan")
    ranks = midranks(values)
    return float((ranks[positive].sum() - above * (above + 1) / 2) / (above * below))


def average_precision(values: Array, positive: NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve: mean precision at the rows that are positive.

    Rows of one value enter together, as in scikit-learn's `average_precision_score`; NaN without
    positive rows.
    """
    total = int(positive.sum())
    if not total:
        return float("nan")
    _, number = np.unique(-values, return_inverse=True)
    found = np.bincount(number, weights=positive)  # by threshold, from the highest value down
    precision = np.cumsum(found) / np.cumsum(np.bincount(number))
    return float((found * precision).sum() / total)


def midranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[number])


def r2(outputs: Array, targets: Array) -> float:
    """Coefficient of determination; NaN where the targets are constant."""
    if is_constant(targets):
        return float("nan")
    spread = float(((targets - targets.mean()) ** 2).sum())
    return 1 - float(((outputs - targets) ** 2).sum()) / spread


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
    if is_constant(outputs) or is_constant(targets):
        return float("nan")
    a, b = outputs - outputs.mean(), targets - targets.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def is_constant(values: Array) -> bool:
    """Whether all values are one, to the rounding of their mean; so is a single one."""
    largest = np.abs(values).max(initial=0.0)
    return bool(np.abs(values - values.mean()).max(initial=0.0) <= 1e-12 * largest)


def is_better_by(name: str) -> Callable[[float, float], bool]:
    """Comparison of two scores of a metric: whether the first is better; NaN is the worst."""
    sign = -1 if name in LOWER_IS_BETTER else 1

    def is_better(first: float, second: float) -> bool:
        return sign * first > sign * second or (np.isnan(second) and not np.isnan(first))

    return is_better


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


def rounded_to_seven(values: Array) -> Array:
    """The nearest of the seven whole numbers from -3 to 3, halves to the even one."""
    return np.asarray(np.round(np.clip(values, -3, 3)))


def ratio(above: Array, below: Array) -> Array:
    """Division with 0 / 0 = 0, as scikit-learn's `zero_division=0`."""
    below = np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def _mean_defined(values: Iterable[float]) -> float:
    found = [v for v in values if not np.isnan(v)]
    return float(np.mean(found)) if found else float("nan")
