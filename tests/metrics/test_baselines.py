"""Majority and linear baselines against scikit-learn."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from made import CLASSES, LABELS, VALUE, made_table, relabelled
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import Ridge

from cache.baselines import Baselines
from cache.layout import Home
from cache.samples import Task
from pipelines.features.statistics import class_weights, moments
from pipelines.metrics import baselines

TWO = Task("classes", ("a", "b"))


@pytest.mark.parametrize("task", [CLASSES, TWO, LABELS], ids=["classes", "two", "labels"])
def test_logistic_regression_minimises_the_penalised_loss(task) -> None:
    """At every penalty: the gradient of mean loss + penalty / 2 · |weights|² is near zero."""
    table = made_table(200, task)
    train = table.take(table.split("train"))
    x = baselines.design(train, tuple(table.features), moments(train)).double()
    weights = list(baselines._weights(x.float(), train.targets, task))
    for penalty, found in zip(baselines.PENALTIES, weights, strict=True):
        weight = found.double().requires_grad_()
        scale = task.outputs if task.kind == "labels" else 1
        loss = baselines._loss(task, x @ weight, train.targets) * scale
        loss = loss + penalty / 2 * weight[:-1].square().sum()
        (slope,) = torch.autograd.grad(loss, weight)
        assert slope.abs().max() < 0.02


def test_classes_without_rows_are_never_predicted() -> None:
    """Classes that no train row has: no weights, and far below the others everywhere."""
    table = made_table(200)
    x = baselines.design(table, tuple(table.features), moments(table))
    y = torch.where(table.targets == 1, 0, table.targets)
    for found in baselines._weights(x, y, CLASSES):
        assert (x @ found).argmax(1).ne(1).all()
    alone = torch.zeros_like(y)
    assert all((x @ found).argmax(1).eq(0).all() for found in baselines._weights(x, alone, CLASSES))


def test_of_many_rows_some_are_drawn(monkeypatch) -> None:
    """As many as allowed, the same every time, and the model says so."""
    table = made_table(300)
    whole = baselines.fit_linear(table)
    assert whole.remarks(CLASSES) == ()
    monkeypatch.setattr(baselines, "MOST_ROWS", 60)
    monkeypatch.setattr(baselines, "_FITTED", OrderedDict())
    found = baselines.fit_linear(table)
    train = len(table.split("train"))
    assert found.remarks(CLASSES) == (f"logistic is fitted on 60 of {train} train rows",)
    assert not torch.equal(found.weight, whole.weight)
    baselines._FITTED.clear()
    assert torch.equal(baselines.fit_linear(table).weight, found.weight)


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


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
def test_another_command_reads_what_one_has_fitted(task, tmp_path, monkeypatch) -> None:
    """The stored model is the fitted one, bit for bit; other numbers are fitted anew."""
    stored = Baselines(Home(tmp_path), "made", [])
    table = made_table(120, task)
    names = tuple(table.features)[:2]
    fitted = baselines.fit_linear(table, names, stored)
    monkeypatch.setattr(baselines, "_FITTED", OrderedDict())
    monkeypatch.setattr(baselines, "_fit", lambda *_: pytest.fail("it was fitted again"))
    found = baselines.fit_linear(table, names, stored)
    assert torch.equal(found.weight, fitted.weight)
    assert np.array_equal(found.outputs(table), fitted.outputs(table))
    assert (found.penalty, found.rows, found.of) == (fitted.penalty, fitted.rows, fitted.of)
    with pytest.raises(pytest.fail.Exception):
        baselines.fit_linear(relabelled(table, "val"), names, stored)
