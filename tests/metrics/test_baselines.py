"""Majority and linear baselines against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import CLASSES, LABELS, VALUE, made_table, relabelled
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from pipelines.features.statistics import class_weights, moments
from pipelines.metrics import baselines
from pipelines.metrics.metrics import softmax


def test_logistic_regression_is_scikit_learns() -> None:
    """At the same penalty probabilities agree to 1e-3."""
    table = made_table(200)
    train = table.take(table.split("train"))
    seen = moments(train)
    x = baselines.design(train, tuple(table.features), seen)
    for penalty in (1e-1, 1e-2):
        start = torch.zeros(x.shape[1], 3)
        weight = baselines._logistic(x, train.targets, CLASSES, penalty, start)
        other = LogisticRegression(C=1 / (penalty * len(train)), max_iter=5000, tol=1e-8)
        other.fit(x[:, :-1].numpy(), train.samples.targets)
        found = softmax((x @ weight).double().numpy())
        assert np.abs(found - other.predict_proba(x[:, :-1].numpy())).max() < 1e-3


@pytest.mark.parametrize("rows", [200, 30])
def test_ridge_regression_is_scikit_learns(rows: int) -> None:
    """More rows than columns or fewer, outputs agree to 1e-4."""
    table = made_table(rows, VALUE)
    train = table.take(table.split("train"))
    x = baselines.design(train, tuple(table.features), moments(train))
    weight = baselines._ridge(x, train.targets, 0.1)
    other = Ridge(alpha=0.1 * len(train)).fit(x[:, :-1].double().numpy(), train.targets.numpy())
    wanted = other.predict(x[:, :-1].double().numpy())
    assert np.abs((x @ weight)[:, 0].numpy() - wanted).max() < 1e-4


def test_the_penalty_is_chosen_on_validation_rows() -> None:
    """With validation labels that say nothing, the strongest penalty is best."""
    table = made_table(300, absent=0.0)
    assert baselines.fit_linear(table).penalty < 1
    assert baselines.fit_linear(relabelled(table, "val")).penalty == 1


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
def test_test_rows_do_not_reach_the_baselines(task) -> None:
    """Random test labels leave weights and majority as they are."""
    table = made_table(100, task)
    one, other = baselines.fit_linear(table), baselines.fit_linear(relabelled(table, "test"))
    assert torch.equal(one.weight, other.weight)
    first, second = (
        baselines.majority(table, "val"),
        baselines.majority(relabelled(table, "test"), "val"),
    )
    assert str(first) == str(second)  # NaN is not equal to itself


def test_majority_is_scikit_learns_dummy() -> None:
    """Accuracy of the train rows' most frequent class on test rows."""
    table = made_table(100)
    targets, train, test = table.samples.targets, table.split("train"), table.split("test")
    dummy = DummyClassifier(strategy="most_frequent").fit(train[:, None], targets[train])
    wanted = dummy.score(test[:, None], targets[test])
    assert baselines.majority(table, "test").metrics["accuracy"] == [pytest.approx(wanted)]


@pytest.mark.parametrize("frames", [0, 4])
def test_the_design_does_not_see_what_is_absent(frames: int) -> None:
    """Columns are finite, 0 where absent, and the bits say which streams are there."""
    table = made_table(60, frames=frames)
    x = baselines.design(table, tuple(table.features), moments(table))
    assert x.isfinite().all()
    assert torch.equal(x[:, 15:18].bool(), table.present)
    assert not x[~table.present[:, 0], :6].any()


def test_a_linear_model_beats_the_majority_where_there_is_signal() -> None:
    """On data made with signal logistic regression is far above the majority class."""
    table = made_table(300)
    linear = baselines.linear_scores(baselines.fit_linear(table), table, "test")
    common = baselines.majority(table, "test")
    assert linear.metrics["accuracy"][0] > common.metrics["accuracy"][0] + 0.3


def test_class_weights_are_inverse_frequencies() -> None:
    """As scikit-learn's `balanced`; positive labels by absent / present."""
    table = made_table(100)
    counts = np.bincount(table.samples.targets, minlength=3)
    assert np.allclose(class_weights(table).numpy(), 100 / (3 * counts))
    many = made_table(100, LABELS)
    share = many.samples.targets.mean(0)
    assert np.allclose(class_weights(many).numpy(), (1 - share) / share, rtol=1e-5)


def test_a_fit_is_remembered_by_content_alone() -> None:
    """The same numbers give the same model at once; one other target or presence bit does not."""
    table = made_table(120)
    first = baselines.fit_linear(table)
    assert baselines.fit_linear(made_table(120)) is first
    assert baselines.fit_linear(table, tuple(table.features)[:1]) is not first
    present = table.present.clone()
    row = int(table.split("train")[0])
    present[row, 0] = ~present[row, 0]
    assert baselines.fit_linear(replace(table, present=present)) is not first
    targets = table.samples.targets.copy()
    targets[row] = (targets[row] + 1) % 3
    samples = replace(table.samples, targets=targets)
    assert baselines.fit_linear(replace(table, samples=samples)) is not first


def test_test_rows_have_no_part_in_a_fit() -> None:
    """Other test rows leave the model as it is: they are never looked at."""
    table = made_table(120)
    first = baselines.fit_linear(table)
    features = {name: x.clone() for name, x in table.features.items()}
    for x in features.values():
        x[table.split("test")] = 7.0
    assert baselines.fit_linear(replace(table, features=features)) is first
