"""Missing rates that public code got wrong: rounded a batch at a time, or drawn anew a metric."""

import numpy as np
import pytest
import torch
from made import made_table

from pipelines import counter_rng
from pipelines.features.hiding import drop_modalities, hide
from pipelines.features.missing import MissingPattern


def test_v19_the_realised_rate_does_not_depend_on_the_batch_size():
    """V19: 1,000 rows in batches of 1, 3 and 64 lose the same cells at a rate of .9.

    The public code hides int(rate × batch) rows of each batch: .891, .666 and 0 of them.
    """
    table = made_table(1000, absent=0.0)
    pattern = MissingPattern.rate(0.9)
    whole = hide(table, pattern).table.present
    for size in (1, 3, 64):
        starts = range(0, len(table), size)
        cuts = [table.take(np.arange(s, min(s + size, len(table)))) for s in starts]
        parts = torch.cat([hide(part, pattern).table.present for part in cuts])
        assert torch.equal(parts, whole)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_v19_modality_dropout_has_its_rate_at_every_batch_size(size):
    """V19: training hides each cell with a probability, not a count rounded in each batch."""
    rows, gone = 1920, 0
    for number in range(rows // size):
        present = torch.ones(size, 3, dtype=torch.bool)
        left = drop_modalities(present, (0, 1, 2), torch.tensor(0.3), counter_rng.key(5, number))
        gone += int((~left).sum())
    expected = 0.3 - 0.3**3 / 3  # a sample's last one stays
    assert gone / (3 * rows) == pytest.approx(expected, abs=0.025)


def test_s12b_hiding_is_the_same_however_often_it_is_asked():
    """S12b and V20: every metric and every method sees the same hidden cells."""
    table = made_table(300)
    first, second = (hide(table, MissingPattern.rate(0.5)).table.present for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("protocol", ["bernoulli_guard", "bernoulli", "cpm_exact"])
def test_v14_a_rate_of_zero_hides_nothing(protocol):
    """V14: at rate 0 the realised rate is 0; in one public code it is the largest one."""
    table = made_table(50, absent=0.2)
    hidden = hide(table, MissingPattern.rate(0.0, 0, protocol))
    assert hidden.realised() == 0
    assert torch.equal(hidden.table.present, table.present)


def test_m10_hiding_does_not_depend_on_who_drew_before():
    """M10: the global random states of numpy and torch have no say, and are left as they were."""
    table, seen = made_table(200, absent=0.0), []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002 the very state that must not matter
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        seen.append(hide(table, MissingPattern.rate(0.5)).table.present)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(*seen)
