"""Metrics against scikit-learn and golden values."""

import numpy as np
import pytest
import sklearn.metrics as sk

from cache.samples import Task
from pipelines.metrics.metrics import (
    calibration_error,
    is_better_by,
    label_scores,
    mean_cosine,
    metric_terms,
    recall_at,
    scores,
    softmax,
    value_scores,
)

CLASSES = Task("classes", tuple("abcd"))
LABELS = Task("labels", tuple("abcd"))
VALUE = Task("value", ("y",))


@pytest.mark.parametrize("seed", range(3))
def test_class_metrics_are_scikit_learns(seed: int) -> None:
    """Accuracy, balanced accuracy, F1s, AUROC and log loss agree to 1e-9."""
    rng = np.random.default_rng(seed)
    y, logits = rng.integers(0, 4, 200), rng.normal(size=(200, 4))
    logits[np.arange(200), y] += 0.7
    found, p, chosen = scores(CLASSES, logits, y), softmax(logits), logits.argmax(1)
    wanted = {
        "accuracy": sk.accuracy_score(y, chosen),
        "balanced_accuracy": sk.balanced_accuracy_score(y, chosen),
        "macro_f1": sk.f1_score(y, chosen, average="macro"),
        "weighted_f1": sk.f1_score(y, chosen, average="weighted"),
        "weighted_precision": sk.precision_score(y, chosen, average="weighted"),
        "auroc": sk.roc_auc_score(y, p, multi_class="ovr"),
        "log_loss": sk.log_loss(y, p, labels=range(4)),
        "brier": np.mean(((p - np.eye(4)[y]) ** 2).sum(1)),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert next(iter(found)) == "accuracy"


def test_classes_that_are_never_seen_or_chosen_count_as_scikit_learn_counts_them() -> None:
    """A class absent from truth and choice is left out of macro F1; one only chosen counts 0."""
    y = np.array([0, 0, 1, 1, 1])
    logits = np.eye(4)[[0, 2, 1, 1, 0]] * 5
    found = scores(CLASSES, logits, y)
    wanted = sk.f1_score(y, logits.argmax(1), average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(wanted, abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(
        (sk.recall_score(y, logits.argmax(1), average=None, zero_division=0)[:2]).mean()
    )


def test_the_true_class_at_probability_zero_costs_a_finite_loss() -> None:
    """Log loss is clipped, as scikit-learn's is."""
    found = scores(CLASSES, np.array([[1000.0, 0, 0, 0]]), np.array([1]))
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))


@pytest.mark.parametrize("seed", range(3))
def test_label_metrics_are_scikit_learns(seed: int) -> None:
    """F1s, subset accuracy, label accuracy and AUROC agree to 1e-9; hit@1 by a loop."""
    rng = np.random.default_rng(seed)
    y = (rng.random((150, 4)) < 0.4).astype(np.float32)
    logits = rng.normal(size=(150, 4)) + y
    found, chosen = scores(LABELS, logits, y), logits >= 0
    p = 1 / (1 + np.exp(-logits))
    for average in ("micro", "macro", "weighted", "samples"):
        wanted = sk.f1_score(y, chosen, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(wanted, abs=1e-9), average
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(y, chosen), abs=1e-9)
    assert found["label_accuracy"] == pytest.approx(1 - sk.hamming_loss(y, chosen), abs=1e-9)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-9)
    assert found["hit_at_1"] == np.mean([y[i, p[i].argmax()] for i in range(150)])
    assert label_scores(p, y) == found


def test_golden_values_of_sentiment() -> None:
    """G8 of the method notes: has0, non0, acc7, MAE and r of five rows."""
    y = np.array([-1, 0, 2, 0.5, 3.2])
    found = value_scores(np.array([-0.2, 0.1, 1.6, -0.5, 2.5]), y)
    assert found["acc2_has0"] == pytest.approx(0.8)
    assert found["f1_has0"] == pytest.approx(0.819048, abs=1e-6)
    assert found["acc2_non0"] == pytest.approx(0.75)
    assert found["f1_non0"] == pytest.approx(0.766667, abs=1e-6)
    assert found["acc7"] == pytest.approx(0.6)
    assert found["mae"] == pytest.approx(0.6)
    assert found["r"] == pytest.approx(0.915319, abs=1e-6)


def test_value_metrics_are_numpys_and_scikit_learns() -> None:
    """MAE, RMSE and Pearson's r agree to 1e-9."""
    rng = np.random.default_rng(0)
    y, o = rng.normal(size=90), rng.normal(size=(90, 1))
    found = scores(VALUE, o, y)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, o[:, 0]), abs=1e-9)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, o[:, 0]), abs=1e-9)
    assert found["r"] == pytest.approx(np.corrcoef(y, o[:, 0])[0, 1], abs=1e-9)


def test_rounding_of_acc7_is_half_to_even_after_clipping() -> None:
    """0.5 is 0, 1.5 and 2.5 are 2, and 7 is 3."""
    y = np.array([0.0, 2.0, 2.0, 3.0])
    assert value_scores(np.array([0.5, 1.5, 2.5, 7.0]), y)["acc7"] == 1.0


def test_a_constant_output_has_no_correlation() -> None:
    """Pearson's r is NaN, without a warning."""
    assert np.isnan(value_scores(np.full(5, 0.3), np.arange(5.0))["r"])


def test_a_class_without_positive_rows_has_no_auroc() -> None:
    """AUROC is the mean over the classes that have both kinds of row, NaN if none has."""
    y = np.zeros(5, np.int64)
    assert np.isnan(scores(CLASSES, np.random.default_rng(0).normal(size=(5, 4)), y)["auroc"])


def test_weighted_recall_would_be_accuracy() -> None:
    """Weighted F1 is at most the mean of weighted precision and accuracy."""
    rng = np.random.default_rng(1)
    y, logits = rng.integers(0, 4, 100), rng.normal(size=(100, 4))
    found = scores(CLASSES, logits, y)
    assert found["weighted_f1"] <= (found["weighted_precision"] + found["accuracy"]) / 2 + 1e-12


def test_calibration_error_by_a_loop() -> None:
    """|accuracy - confidence| over 15 bins, weighed by their rows."""
    rng = np.random.default_rng(2)
    p, y = softmax(rng.normal(size=(300, 4)) * 2), rng.integers(0, 4, 300)
    total = 0.0
    for b in range(15):
        inside = [i for i in range(300) if b / 15 <= p[i].max() < (b + 1) / 15]
        if inside:
            right = np.mean([p[i].argmax() == y[i] for i in inside])
            total += len(inside) / 300 * abs(right - np.mean([p[i].max() for i in inside]))
    assert calibration_error(p, y) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
def test_pieces_sum_to_the_first_metric(task: Task) -> None:
    """Numerators over denominators, summed over rows, give the task's first metric."""
    rng = np.random.default_rng(3)
    outputs = rng.normal(size=(60, task.outputs))
    y = {
        "classes": rng.integers(0, 4, 60),
        "labels": (rng.random((60, 4)) < 0.5).astype(np.float32),
        "value": rng.normal(size=60),
    }[task.kind]
    above, below = metric_terms(task, outputs, y)
    assert above.sum() / below.sum() == pytest.approx(next(iter(scores(task, outputs, y).values())))


def test_less_error_is_better_and_more_accuracy_is_better() -> None:
    """Direction comes from the metric's name."""
    assert is_better_by("mae")(1.0, 2.0)
    assert is_better_by("accuracy")(2.0, 1.0)


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
