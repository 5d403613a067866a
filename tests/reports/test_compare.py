"""Comparisons of runs: Holm against its definition, paired tests against naive loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.metrics.significance import holm, paired

CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def right(answers):
    """Pieces of an accuracy: right or wrong, out of one."""
    return np.array(answers, np.float64), np.ones(len(answers))


@given(CHANCES)
def test_holm_is_its_definition(chances):
    """Adjusted p is the largest of (m - k) p over the smaller p and itself, at most 1."""
    order = sorted(range(len(chances)), key=lambda number: chances[number])
    for place, number in enumerate(order):
        steps = [(len(chances) - k) * chances[order[k]] for k in range(place + 1)]
        assert holm(chances)[number] == pytest.approx(min(1.0, max(steps)))


@given(CHANCES)
def test_holm_never_makes_a_difference_clearer(chances):
    """No adjusted p is below its own, and their order stays."""
    adjusted = holm(chances)
    assert all(after >= before for after, before in zip(adjusted, chances, strict=True))
    assert [adjusted[k] for k in np.argsort(chances)] == sorted(adjusted)


def test_the_permutation_test_agrees_with_every_swap_counted():
    """On eight rows the p of random swaps is that of all 256, within chance."""
    a, b = [1, 1, 1, 1, 0, 1, 1, 0], [0, 1, 0, 0, 1, 1, 0, 0]
    seen = abs(sum(a) - sum(b))
    swaps = [
        abs(sum(x - y if keep else y - x for x, y, keep in zip(a, b, kept, strict=True)))
        for kept in itertools.product([True, False], repeat=8)
    ]
    exact = np.mean([swap >= seen for swap in swaps])
    assert paired(right(a), right(b)).p == pytest.approx(exact, abs=0.02)


def test_a_run_does_not_differ_from_itself():
    """The same answers: difference 0, interval 0 to 0, p = 1."""
    found = paired(right([1, 0, 1, 1]), right([1, 0, 1, 1]))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_clear_difference_is_found_and_turns_round():
    """90 against 60 right of 100: the interval is above zero; swapped, it is below."""
    a, b = right([1] * 90 + [0] * 10), right([1] * 60 + [0] * 40)
    found, turned = paired(a, b), paired(b, a)
    assert found.difference == pytest.approx(0.3)
    assert found.low > 0 > turned.high
    assert found.p < 0.001
    assert turned.difference == pytest.approx(-0.3)


def test_p_is_rarely_small_where_nothing_differs():
    """Of 100 pairs of equally good random answers about five have p below 0.05."""
    generator = np.random.default_rng(0)
    small = 0
    for _ in range(100):
        a, b = generator.random((2, 60)) < 0.7
        small += paired(right(a), right(b), draws=400).p < 0.05
    assert small <= 11


def test_metrics_that_are_ratios_are_compared_as_ratios():
    """Of a metric of sums over sums (micro F1) the difference is that of the ratios."""
    a = (np.array([2.0, 0.0, 4.0]), np.array([2.0, 2.0, 5.0]))
    b = (np.array([0.0, 2.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    assert paired(a, b).difference == pytest.approx(6 / 9 - 4 / 9)
