"""Metrics of resampled rows are the metrics of those rows, and tests by them are tests."""

import itertools

import numpy as np
import pytest

from cache.samples import Task
from pipelines.metrics.metrics import METRICS, score
from pipelines.metrics.resampling import metric_terms, resampler
from pipelines.metrics.significance import bootstrap, paired, paired_by

TASKS = {
    "classes": Task("classes", tuple("abc")),
    "labels": Task("labels", tuple("abc")),
    "value": Task("value", ("y",)),
}
EVERY = [(kind, name) for kind, names in METRICS.items() for name in names]


def some_rows(kind, count, seed=0):
    """Outputs rounded so that some are equal, and targets with zeros among them."""
    rng = np.random.default_rng(seed)
    outputs = np.round(rng.normal(size=(count, TASKS[kind].outputs)), 1)
    targets = {
        "classes": rng.integers(0, 3, count),
        "labels": (rng.random((count, 3)) < 0.5).astype(np.float32),
        "value": np.round(rng.normal(size=count)),
    }[kind]
    if kind == "classes":
        outputs[np.arange(count), targets] += 0.5
    return outputs, targets


def samples_of(count, seed=1):
    """Counts of bootstrap samples, of few rows, and of one row alone: (N, S)."""
    rng = np.random.default_rng(seed)
    whole = rng.multinomial(count, np.full(count, 1 / count), 12)
    few = rng.multinomial(3, np.full(count, 1 / count), 6)
    return np.concatenate([np.ones((1, count)), whole, few, 4 * np.eye(count)[:2]]).T.astype(float)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_sample_has_the_metric_of_its_rows_written_out(kind, name) -> None:
    """Every metric of every sample, also of samples without some class or of one value alone."""
    outputs, targets = some_rows(kind, 40)
    counts = samples_of(40)
    found = resampler(TASKS[kind], name, outputs, targets)(counts)
    for sample, value in zip(counts.T.astype(int), found, strict=True):
        rows = np.repeat(np.arange(40), sample)
        wanted = score(TASKS[kind], name, outputs[rows], targets[rows])
        assert value == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_outputs_that_are_not_finite_have_no_metric_in_any_sample(kind, name) -> None:
    """As in the metric itself."""
    outputs, targets = some_rows(kind, 10)
    outputs[2, 0] = np.nan
    assert np.isnan(resampler(TASKS[kind], name, outputs, targets)(np.ones((10, 3)))).all()


@pytest.mark.parametrize("name", ["r2", "pearson", "spearman"])
def test_a_sample_of_one_row_alone_defines_no_correlation(name) -> None:
    """Rounding of a variance of nothing is not taken for a variance."""
    outputs, targets = np.random.default_rng(0).normal(5, 1, (2, 100)) / 3
    found = resampler(TASKS["value"], name, outputs, targets)(7 * np.eye(100))
    assert np.isnan(found).all()


def test_metrics_that_are_means_over_rows_have_terms() -> None:
    """Their sums give the metric; the others are none."""
    means = {
        "classes": {"accuracy", "log_loss", "brier"},
        "labels": {"micro_f1", "samples_f1", "hit_at_1", "subset_accuracy", "label_accuracy"},
        "value": {"mae", "acc2_has0", "acc2_non0", "acc7"},
    }
    for kind, name in EVERY:
        outputs, targets = some_rows(kind, 50)
        terms = metric_terms(TASKS[kind], name, outputs, targets)
        assert (terms is not None) == (name in means[kind]), name
        if terms is not None:
            wanted = score(TASKS[kind], name, outputs, targets)
            assert terms[0].sum() / terms[1].sum() == pytest.approx(wanted), name


def pool(kind, name, first, second, targets):
    """The metric of samples of two runs' rows."""
    both = np.concatenate([first, second]), np.concatenate([targets, targets])
    return resampler(TASKS[kind], name, *both)


@pytest.mark.parametrize(
    ("kind", "name"), [("classes", "macro_f1"), ("classes", "auroc"), ("value", "spearman")]
)
def test_the_permutation_test_of_any_metric_agrees_with_every_swap_counted(kind, name) -> None:
    """On seven rows the p of random swaps of two replicas is that of all 128, within chance."""
    task, (first, targets), (second, _) = TASKS[kind], some_rows(kind, 7, 3), some_rows(kind, 7, 4)
    if kind == "classes":
        targets = np.array([0, 0, 1, 1, 2, 2, 0])
        first = first + 2 * np.eye(3)[targets]
    runs = [(first, second), (np.round(first * 1.3, 1), second[:, ::-1])]  # of two replicas

    def change(kept):
        keep = np.array(kept)[:, None]
        scored = lambda outputs: score(task, name, outputs, targets)  # noqa: E731
        pairs = [(np.where(keep, a, b), np.where(keep, b, a)) for a, b in runs]
        return np.mean([scored(a) - scored(b) for a, b in pairs])

    seen = change([True] * 7)
    exact = np.mean(
        [
            abs(change(kept)) >= abs(seen) - 1e-12
            for kept in itertools.product([True, False], repeat=7)
        ]
    )
    found = paired_by([pool(kind, name, a, b, targets) for a, b in runs], 7, draws=3000)
    assert found.difference == pytest.approx(seen)
    assert found.p == pytest.approx(exact, abs=0.03)


def test_of_a_mean_both_tests_are_one() -> None:
    """Accuracy by the terms of its rows, and computed anew in each draw."""
    (first, targets), (second, _) = some_rows("classes", 60, 0), some_rows("classes", 60, 5)
    task = TASKS["classes"]
    terms = [metric_terms(task, "accuracy", one, targets) for one in (first, second)]
    by_terms = paired(*terms, draws=500)
    anew = paired_by([pool("classes", "accuracy", first, second, targets)], 60, draws=500)
    assert (anew.difference, anew.low, anew.high, anew.p) == pytest.approx(
        (by_terms.difference, by_terms.low, by_terms.high, by_terms.p)
    )


@pytest.mark.parametrize("name", ["auroc", "ece", "macro_f1"])
def test_a_run_does_not_differ_from_itself_by_any_metric(name) -> None:
    """Difference 0, interval 0 to 0, p = 1."""
    outputs, targets = some_rows("classes", 30)
    found = paired_by([pool("classes", name, outputs, outputs, targets)], 30, draws=200)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_clear_difference_in_ranking_is_found() -> None:
    """Outputs that rank by the target against outputs at random; swapped, it turns round."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    good = np.stack([-y + rng.normal(size=80), y + rng.normal(size=80)], 1)
    poor = rng.normal(size=(80, 2))
    task = Task("classes", ("a", "b"))
    both = [
        resampler(task, "auroc", np.concatenate(pair), np.concatenate([y, y]))
        for pair in ((good, poor), (poor, good))
    ]
    found, turned = (paired_by([one], 80, draws=500) for one in both)
    assert found.low > 0 > turned.high
    assert found.p < 0.01
    assert turned.difference == pytest.approx(-found.difference)


def test_an_undefined_metric_has_no_p() -> None:
    """One class only has no AUROC: nothing is claimed."""
    outputs, _ = some_rows("classes", 10)
    found = paired_by([pool("classes", "auroc", outputs, outputs, np.zeros(10, int))], 10, draws=20)
    assert np.isnan([found.difference, found.low, found.high, found.p]).all()


def test_the_interval_of_a_change_in_any_metric_is_that_of_a_loop() -> None:
    """Macro F1 of the same sampled rows under both patterns, replicas sampled too, row by row."""
    task, (whole, targets) = TASKS["classes"], some_rows("classes", 25)
    complete = [whole, whole + 0.3 * some_rows("classes", 25, 7)[0]]
    hidden = [one + some_rows("classes", 25, 8)[0] for one in complete]
    by = lambda each: [resampler(task, "macro_f1", one, targets) for one in each]  # noqa: E731
    found = bootstrap(by(complete), by(hidden), 25, resamples=100)
    generator, changes = np.random.default_rng(0), []
    counts = generator.multinomial(25, np.full(25, 1 / 25), 100)
    for sample, replicas in zip(counts, generator.integers(0, 2, (100, 2)), strict=True):
        rows = np.repeat(np.arange(25), sample)
        scored = lambda outputs, r=rows: score(task, "macro_f1", outputs[r], targets[r])  # noqa: E731
        change = [scored(b) - scored(a) for a, b in zip(complete, hidden, strict=True)]
        changes.append(np.mean([change[r] for r in replicas]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(changes, [2.5, 97.5])))
