"""The tabular encoder: each block against its formula, and what training rows alone decide."""

import json
import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmfuseError
from pipelines.encoders import tabular
from pipelines.encoding.encoder import FittedEncoder
from pipelines.media.payloads import Unreadable


def _fitted(rows, **options):
    encoder = tabular.build(**options)
    encoder.fit("tabular", rows)
    return encoder


def _encode(encoder, rows):
    return np.stack(encoder.encode("tabular", [encoder.prepare("tabular", r)[0] for r in rows]))


def test_a_number_is_centred_scaled_and_squashed():
    """The value is z / sqrt(1 + (z/3)^2) with z = (x - median) / (q75 - q25) of training rows."""
    train = [1.0, 2.0, 4.0, 8.0, 100.0]
    encoder = _fitted([{"x": x} for x in train])
    low, median, high = np.percentile(train, [25, 50, 75])
    for x in (-3.0, 4.0, 7.5, 1e9):
        z = (x - median) / (high - low)
        assert _encode(encoder, [{"x": x}])[0, 0] == pytest.approx(z / math.sqrt(1 + (z / 3) ** 2))


def test_infinity_is_the_end_of_the_scale():
    """Plus and minus infinity become +3 and -3, the limits of the squashing."""
    encoder = _fitted([{"x": float(x)} for x in range(9)])
    found = _encode(encoder, [{"x": math.inf}, {"x": -math.inf}])
    assert np.allclose(found[:, 0], [3, -3])


def test_many_columns_are_scaled_as_each_alone():
    """Missing, infinite, constant and skewed columns at once, against numpy one by one."""
    random = np.random.default_rng(7)
    values = random.normal(size=(41, 30)) * 10.0 ** random.integers(-3, 4, 30)
    values[random.random(values.shape) < 0.2] = math.nan
    values[random.random(values.shape) < 0.05] = math.inf
    values[:, 3], values[:, 4], values[:30, 5] = 2.0, math.nan, 0.0
    rows = [{f"c{k}": float(x) for k, x in enumerate(row)} for row in values]
    encoder = _fitted(rows)
    learnt = {column["name"]: column for column in encoder.columns}
    found, place = _encode(encoder, rows), 0
    for k, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if not len(known) or known.min() == known.max():
            assert learnt.get(f"c{k}", {"spread": 0})["spread"] == 0
            place += f"c{k}" in learnt
            continue
        low, median, high = np.percentile(known, [25, 50, 75])
        scale = high - low if high > low else (known.max() - known.min()) / 2
        with np.errstate(invalid="ignore"):
            z = (np.clip(column, -1e30, 1e30) - median) / scale
            expected = np.where(np.isnan(column), 0, z / np.sqrt(1 + (z / 3) ** 2))
        assert np.allclose(found[:, place], expected, atol=1e-6)
        assert (found[:, place + 1] == np.isnan(column)).all()
        place += 2
    assert place == found.shape[1]


def test_a_number_that_is_mostly_one_value_still_varies():
    """Where the quartiles agree, half the whole range is the scale."""
    encoder = _fitted([{"x": 0.0}] * 9 + [{"x": 4.0}])
    assert _encode(encoder, [{"x": 4.0}])[0, 0] == pytest.approx(2 / math.sqrt(1 + 4 / 9))


def test_missing_is_said_only_where_training_knew_it():
    """A column gets a place for missing cells only if a training cell was missing."""
    encoder = _fitted([{"x": 1.0, "y": 1.0}, {"x": None, "y": 2.0}, {"x": 3.0, "y": 3.0}])
    assert encoder.kinds["tabular"] == 3
    x, said, y = _encode(encoder, [{"x": math.nan, "y": 3.0}])[0]
    assert (x, said) == (0.0, 1.0)
    assert y > 0


def test_rare_and_unseen_categories_share_a_place():
    """Frequent categories have their own places; what is rare or new shares the last."""
    encoder = _fitted([{"c": c} for c in ["a"] * 5 + ["b"] * 3 + ["once"]])
    found = _encode(encoder, [{"c": c} for c in ("a", "b", "once", "new")])
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_no_column_takes_more_places_than_allowed():
    """Of many categories the most frequent keep their places and the rest share one."""
    rows = [{"c": f"c{i}"} for i in range(20) for _ in range(20 - i)]
    encoder = _fitted(rows, categories=4, rare=0.0)
    found = _encode(encoder, [{"c": f"c{i}"} for i in range(6)])
    assert found.shape == (6, 5)
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 4]


def test_dates_are_a_time_a_season_and_a_weekday_written_either_way():
    """A date and its ISO text give one block: scaled time, season, weekday; a year is a turn."""
    days = [date(2001, 1, 1), date(2004, 6, 15), date(2010, 12, 31), date(2015, 3, 9)]
    encoder = _fitted([{"d": day} for day in days])
    as_dates, as_text = (
        _encode(encoder, [{"d": d} for d in days]),
        _encode(encoder, [{"d": d.isoformat()} for d in days]),
    )
    assert as_dates.shape == (4, 5)
    assert np.array_equal(as_dates, as_text)
    assert (np.diff(as_dates[:, 0]) > 0).all()
    year_apart = _encode(encoder, [{"d": date(2003, 5, 1)}, {"d": date(2004, 5, 1)}])
    assert np.allclose(year_apart[0, 1:3], year_apart[1, 1:3], atol=0.02)
    week_apart = _encode(encoder, [{"d": date(2003, 5, 1)}, {"d": date(2003, 5, 8)}])
    assert np.allclose(week_apart[0, 3:5], week_apart[1, 3:5], atol=1e-5)


def test_a_row_of_another_table_is_refused():
    """A row with no column of the training rows would be encoded as if all cells were missing."""
    encoder = _fitted([{"x": float(x)} for x in range(9)])
    with pytest.raises(Unreadable, match="none of the columns"):
        encoder.prepare("tabular", {"height": 3.0})
    assert encoder.prepare("tabular", {"x": 3.0, "height": 3.0})[1] == 1


def test_restoring_the_state_through_json_gives_the_same_vectors():
    """What fit returns is JSON, and a fresh encoder that restores it encodes bit-equally."""
    rows = [{"x": float(i), "c": "ab"[i % 2], "d": f"20{i:02}-01-02"} for i in range(10, 30)]
    encoder = tabular.build()
    state = json.loads(json.dumps(encoder.fit("tabular", rows)))
    again = tabular.build()
    again.restore(state)
    assert isinstance(again, FittedEncoder)
    assert again.kinds == encoder.kinds
    assert np.array_equal(_encode(encoder, rows), _encode(again, rows))


def test_rows_outside_training_change_nothing():
    """A column or category that only other rows have adds no place."""
    encoder = _fitted([{"x": 1.0}, {"x": 2.0}, {"x": 5.0}])
    plain, extra = _encode(encoder, [{"x": 2.0}, {"x": 2.0, "later": "surprise"}])
    assert np.array_equal(plain, extra)


def test_unfitted_empty_and_constant_are_refused():
    """Encoding unfitted, a row without cells, and training rows that never vary are errors."""
    with pytest.raises(MmfuseError, match="fitted"):
        tabular.build().encode("tabular", [{"x": 1}])
    with pytest.raises(Unreadable, match="empty"):
        tabular.build().prepare("tabular", {"x": None})
    with pytest.raises(MmfuseError, match="nothing varies"):
        tabular.build().fit("tabular", [{"x": 1.0, "c": "a"}, {"x": 1.0, "c": "a"}])


_CELL = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**400), 10**400), st.floats(), st.text(), st.dates()
)


@given(st.lists(st.fixed_dictionaries({"a": _CELL, "b": _CELL}), min_size=2, max_size=12))
def test_any_row_gives_finite_numbers_of_the_declared_width(rows):
    """Whatever cells training had, every row encodes to D finite numbers within [-3, 3]."""
    encoder = tabular.build()
    try:
        encoder.fit("tabular", rows)
    except MmfuseError:
        return
    values = np.stack(encoder.encode("tabular", rows))
    assert values.shape == (len(rows), encoder.kinds["tabular"])
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 3
