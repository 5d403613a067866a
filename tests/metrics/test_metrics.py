"""Metrics against scikit-learn, naive loops and golden values."""

import warnings
from typing import get_args

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk

from cache.errors import MmfuseError
from cache.samples import Task
from pipelines.metrics.metrics import (
    LOWER_IS_BETTER,
    METRICS,
    PRIMARY,
    MetricName,
    calibration_error,
    check_metric,
    is_better_by,
    mean_cosine,
    recall_at,
    recalls,
    replica_scores,
    score,
    scores,
    softmax,
)

CLASSES = Task("classes", tuple("abcd"))
LABELS = Task("labels", tuple("abcd"))
VALUE = Task("value", ("y",))
TASKS = [CLASSES, LABELS, VALUE]


def some_rows(task, seed=0, count=200, *, ties=False):
    """Outputs with some truth in them, and targets; with ties many outputs are equal."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(count, task.outputs))
    if task.kind == "classes":
        targets = rng.integers(0, 4, count)
        outputs[np.arange(count), targets] += 0.7
    elif task.kind == "labels":
        targets = (rng.random((count, 4)) < 0.4).astype(np.float32)
        outputs += targets
    else:
        targets = rng.normal(size=count)
        outputs[:, 0] += targets
    if ties:
        outputs = np.round(outputs)
        targets = np.round(targets) if task.kind == "value" else targets
    return outputs, targets


def of_classes(logits, y, count=4):
    """What scikit-learn and loops say of classes; a class without rows has no AUROC or AUPRC."""
    p, chosen, there = softmax(logits), logits.argmax(1), np.unique(y)
    both = [c for c in there if (y != c).any()]
    mean = lambda values: np.mean(list(values)) if len(list(values)) else np.nan  # noqa: E731
    aurocs = [sk.roc_auc_score(y == c, p[:, c]) for c in both]
    auprcs = [sk.average_precision_score(y == c, p[:, c]) for c in there]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without rows
        return {
            "accuracy": sk.accuracy_score(y, chosen),
            "balanced_accuracy": sk.balanced_accuracy_score(y, chosen),
            "macro_f1": sk.f1_score(y, chosen, average="macro", zero_division=0),
            "weighted_f1": sk.f1_score(y, chosen, average="weighted", zero_division=0),
            "weighted_precision": sk.precision_score(
                y, chosen, average="weighted", zero_division=0
            ),
            "auroc": mean(aurocs),
            "auprc": mean(auprcs),
            "log_loss": sk.log_loss(y, p, labels=range(count)),
            "brier": np.mean(((p - np.eye(count)[y]) ** 2).sum(1)),
            "ece": looped_calibration(p, y),
        }


def looped_calibration(p, y, bins=15):
    """|accuracy - confidence| over equal bins of confidence, weighed by their rows."""
    total = 0.0
    for b in range(bins):
        inside = [
            i
            for i in range(len(y))
            if b / bins <= p[i].max() < (b + 1) / bins or (b == bins - 1 and p[i].max() == 1)
        ]
        if inside:
            right = np.mean([p[i].argmax() == y[i] for i in inside])
            total += len(inside) / len(y) * abs(right - np.mean([p[i].max() for i in inside]))
    return total


def of_labels(logits, y):
    """What scikit-learn and loops say of labels."""
    p, chosen = 1 / (1 + np.exp(-logits)), logits >= 0
    found = {
        f"{average}_f1": sk.f1_score(y, chosen, average=average, zero_division=0)
        for average in ("micro", "macro", "weighted", "samples")
    }
    return found | {
        "hit_at_1": np.mean([y[i, p[i].argmax()] for i in range(len(y))]),
        "subset_accuracy": sk.accuracy_score(y, chosen),
        "label_accuracy": 1 - sk.hamming_loss(y, chosen),
        "auroc": sk.roc_auc_score(y, p),
        "auprc": sk.average_precision_score(y, p),
    }


def seven(value):
    """The nearest whole number from -3 to 3, by Python's own rounding."""
    return round(min(3, max(-3, value)))


def of_values(o, y):
    """What scikit-learn and scipy say of values, and loops over their signs."""
    o, some = o[:, 0], y != 0
    return {
        "mae": sk.mean_absolute_error(y, o),
        "rmse": sk.root_mean_squared_error(y, o),
        "r2": sk.r2_score(y, o),
        "pearson": scipy.stats.pearsonr(y, o).statistic,
        "spearman": scipy.stats.spearmanr(y, o).statistic,
        "acc2_has0": sk.accuracy_score(y >= 0, o >= 0),
        "f1_has0": sk.f1_score(y >= 0, o >= 0, average="weighted"),
        "acc2_non0": sk.accuracy_score(y[some] > 0, o[some] > 0),
        "f1_non0": sk.f1_score(y[some] > 0, o[some] > 0, average="weighted"),
        "acc7": np.mean([seven(a) == seven(b) for a, b in zip(y, o, strict=True)]),
    }  # fmt: skip


WANTED = {"classes": of_classes, "labels": of_labels, "value": of_values}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_every_metric_is_that_of_scikit_learn_or_a_loop(task, seed, ties) -> None:
    """None is left out, and each agrees to 1e-9, with many equal outputs and without."""
    outputs, targets = some_rows(task, seed, ties=ties)
    found, wanted = scores(task, outputs, targets), WANTED[task.kind](outputs, targets)
    assert list(found) == list(METRICS[task.kind])
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
        assert score(task, name, outputs, targets) == found[name]


@pytest.mark.parametrize(
    ("y", "chosen"),
    [
        ([0, 0, 1, 1, 1], [0, 2, 1, 1, 0]),  # 2 is only chosen, 3 is neither
        ([0, 0, 0, 0], [0, 0, 1, 0]),  # one class only
        ([2, 1], [0, 0]),  # the only class chosen has no rows
        ([3, 3, 3], [3, 3, 3]),
    ],
)
def test_absent_classes_count_as_scikit_learn_counts_them(y, chosen) -> None:
    """Left out where they have no rows and are not chosen; AUROC is undefined for one class."""
    logits = np.eye(4)[chosen] * 5 + np.arange(4) / 100
    found, wanted = scores(CLASSES, logits, np.array(y)), of_classes(logits, np.array(y))
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    assert np.isnan(found["auroc"]) == (len(set(y)) == 1)


def test_constant_outputs_are_no_better_than_chance() -> None:
    """AUROC one half, AUPRC the share of the class; as scikit-learn has them."""
    y = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    found, wanted = (
        of(np.zeros((8, 4)), y) for of in (lambda o, t: scores(CLASSES, o, t), of_classes)
    )
    assert found["auroc"] == 0.5
    assert found["auprc"] == pytest.approx(np.mean([3, 2, 1, 2]) / 8)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize(
    ("outputs", "targets", "undefined"),
    [
        (np.full(5, 0.3), np.arange(5.0), {"pearson", "spearman"}),
        (np.arange(5.0), np.full(5, 0.1), {"pearson", "spearman", "r2"}),
        (np.full(5, 0.3), np.full(5, 0.3), {"pearson", "spearman", "r2"}),
        (np.array([1.0]), np.array([2.0]), {"pearson", "spearman", "r2"}),
        (np.zeros(3), np.zeros(3), {"pearson", "spearman", "r2", "acc2_non0", "f1_non0"}),
    ],
)
def test_what_constant_values_do_not_define_is_nan(outputs, targets, undefined) -> None:
    """Without a warning; the errors are numbers all the same."""
    found = scores(VALUE, outputs, targets)
    assert {name for name, value in found.items() if np.isnan(value)} == undefined


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_correlations_do_not_depend_on_units(scale) -> None:
    """Values of any size have the correlation that they have in other units."""
    outputs, targets = some_rows(VALUE)
    plain, scaled = (scores(VALUE, outputs * s, targets * s) for s in (1, scale))
    for name in ("r2", "pearson", "spearman"):
        assert scaled[name] == pytest.approx(plain[name], abs=1e-9)


def test_huge_values_are_no_warning() -> None:
    """Squares that no number holds make infinite or undefined scores, and the MAE stays."""
    found = scores(VALUE, np.array([1e200, 0.0, 1.0]), np.array([0.0, 1.0, 2.0]))
    assert found["mae"] == pytest.approx(1e200 / 3)
    assert found["rmse"] == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_one_output_that_is_not_finite_undoes_every_metric(task, bad) -> None:
    """No score of a diverged head looks like one, recall by class included."""
    outputs, targets = some_rows(task, count=20)
    outputs[3, 0] = bad
    assert all(np.isnan(value) for value in scores(task, outputs, targets).values())
    if task.kind == "classes":
        assert np.isnan(recalls(outputs, targets)[0]).all()


def test_recall_of_each_class_is_scikit_learns() -> None:
    """NaN for a class without rows; its mean over the others is the balanced accuracy."""
    outputs, y = some_rows(CLASSES, count=90)
    y[y == 3] = 1
    found, rows = recalls(outputs, y)
    wanted = sk.recall_score(y, outputs.argmax(1), labels=range(3), average=None)
    assert found[:3] == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(found[3])
    assert rows.tolist() == np.bincount(y, minlength=4).tolist()
    assert np.nanmean(found) == pytest.approx(score(CLASSES, "balanced_accuracy", outputs, y))


def test_scores_of_replicas_stand_side_by_side() -> None:
    """One value a replica in every metric, and one row a replica in the recalls."""
    (first, y), (second, _) = some_rows(CLASSES, 0), some_rows(CLASSES, 1)
    found = replica_scores(CLASSES, [first, second], y, pattern="p", split="val", realised=0.25)
    assert (found.pattern, found.split, found.rows, found.realised_rate) == ("p", "val", 200, 0.25)
    each = [scores(CLASSES, outputs, y) for outputs in (first, second)]
    assert found.metrics == {name: [one[name] for one in each] for name in METRICS["classes"]}
    assert found.per_class["recall"] == [recalls(o, y)[0].tolist() for o in (first, second)]
    assert found.per_class["rows"] == [np.bincount(y).tolist()]
    assert replica_scores(VALUE, [np.zeros((2, 1))], np.arange(2.0)).per_class == {}


def test_the_true_class_at_probability_zero_costs_a_finite_loss() -> None:
    """Log loss is clipped, as scikit-learn's is."""
    found = scores(CLASSES, np.array([[1000.0, 0, 0, 0]]), np.array([1]))
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))


def test_golden_values_of_sentiment() -> None:
    """G8 of the method notes: has0, non0, acc7, MAE and r of five rows."""
    y = np.array([-1, 0, 2, 0.5, 3.2])
    found = scores(VALUE, np.array([-0.2, 0.1, 1.6, -0.5, 2.5]), y)
    wanted = {
        "acc2_has0": 0.8, "f1_has0": 0.819048, "acc2_non0": 0.75, "f1_non0": 0.766667,
        "acc7": 0.6, "mae": 0.6, "pearson": 0.915319,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)


def test_rounding_of_acc7_is_half_to_even_after_clipping() -> None:
    """0.5 is 0, 1.5 and 2.5 are 2, and 7 is 3."""
    y = np.array([0.0, 2.0, 2.0, 3.0])
    assert scores(VALUE, np.array([0.5, 1.5, 2.5, 7.0]), y)["acc7"] == 1.0


def test_full_confidence_is_in_the_last_bin() -> None:
    """A probability of exactly 1 counts: half of them wrong is an error of one half."""
    p = np.eye(4)[[0, 1]]
    assert calibration_error(p, np.array([0, 2])) == pytest.approx(0.5)


def test_less_error_is_better_and_more_accuracy_is_better() -> None:
    """Direction comes from the metric's name, and an undefined score is the worst."""
    for name in {name for names in METRICS.values() for name in names}:
        is_better = is_better_by(name)
        assert is_better(1.0, 2.0) == (name in LOWER_IS_BETTER)
        assert is_better(2.0, 1.0) == (name not in LOWER_IS_BETTER)
        assert not is_better(1.0, 1.0)
        assert is_better(1.0, np.nan)
        assert not is_better(np.nan, 1.0)
        assert not is_better(np.nan, np.nan)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_the_direction_of_a_metric_is_that_of_the_truth(task) -> None:
    """Perfect outputs are better than poor ones, by every metric."""
    poor, targets = some_rows(task, count=60)
    truth = np.eye(4)[targets] if task.kind == "classes" else targets.reshape(60, -1)
    right = truth if task.kind == "value" else 20 * truth - 10
    best, found = scores(task, right, targets), scores(task, poor, targets)
    for name, value in best.items():
        assert is_better_by(name)(value, found[name]), name


def test_an_unknown_metric_is_answered_with_those_that_exist() -> None:
    """So is one of another task."""
    assert check_metric("ece", ["classes"]) == "ece"
    assert check_metric("mae", ["classes", "value"]) == "mae"
    assert check_metric("match_r1", ["classes"], ["match_r1"]) == "match_r1"
    with pytest.raises(MmfuseError, match=r"no metric for classes named 'mae' .*known: accuracy"):
        check_metric("mae", ["classes"])
    with pytest.raises(MmfuseError, match="named 'acuracy'; did you mean accuracy"):
        check_metric("acuracy", ["classes"])


def test_the_names_of_all_metrics_are_one_type() -> None:
    """What a plan may name as its monitor is what there is."""
    assert set(get_args(MetricName)) == {name for names in METRICS.values() for name in names}
    assert PRIMARY == {"classes": "accuracy", "labels": "micro_f1", "value": "mae"}


def test_recall_at_k_by_a_loop() -> None:
    """R@k: whether a row's own vector is among the k nearest by cosine, row by row; 300 rows."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 5))
    made = real * rng.uniform(0.1, 3, (300, 1)) + rng.normal(size=real.shape)
    for most in (1, 5):
        hits = 0
        for row, query in enumerate(made):
            angles = [query @ x / np.linalg.norm(query) / np.linalg.norm(x) for x in real]
            hits += row in np.argsort(angles)[::-1][:most]
        assert recall_at(made, real, most) == pytest.approx(hits / 300)
    each = [q @ x / np.linalg.norm(q) / np.linalg.norm(x) for q, x in zip(made, real, strict=True)]
    assert mean_cosine(made, real) == pytest.approx(np.mean(each))


def test_vectors_without_a_difference_are_found_at_random() -> None:
    """All ties: R@k is k / N; one row alone has no other candidates."""
    same = np.ones((8, 3))
    assert recall_at(same, same, 1) == pytest.approx(1 / 8)
    assert recall_at(same, same, 5) == pytest.approx(5 / 8)
    assert recall_at(np.zeros((8, 3)), same, 1) == pytest.approx(1 / 8)
    assert np.isnan(recall_at(same[:1], same[:1], 1))
    assert np.isnan(mean_cosine(same[:0], same[:0]))
