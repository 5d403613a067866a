"""The series encoder: its statistics against naive loops, and what training rows alone decide."""

import json

import numpy as np
import pytest

from cache.errors import MmfuseError
from pipelines.encoders import series
from pipelines.media.payloads import Unreadable


def _fitted(rows, **options):
    encoder = series.build(**options)
    encoder.fit("series", rows)
    return encoder


def _encode(encoder, rows):
    return encoder.encode("series", [encoder.prepare("series", row)[0] for row in rows])


@pytest.fixture
def rows():
    """Ten series of three variables, some values missing."""
    random = np.random.default_rng(0)
    found = [
        random.normal([0, 5, -3], [1, 9, 0.1], (n, 3)).astype(np.float32) for n in range(3, 13)
    ]
    found[2][1:3, 1] = np.nan
    return found


def test_statistics_equal_naive_loops(rows):
    """Mean, deviation, extremes, ends, least-squares slope, share known, and means of windows."""
    encoder = _fitted(rows, windows=2)
    whole = np.concatenate(rows)
    for row, found in zip(rows, _encode(encoder, rows), strict=True):
        for variable in range(3):
            low, middle, high = np.nanpercentile(whole[:, variable].astype(float), [25, 50, 75])
            scaled = (row[:, variable] - middle) / (high - low)
            known = [(t, x) for t, x in enumerate(scaled) if not np.isnan(x)]
            xs = [x for _, x in known]
            slope = np.polyfit([t / (len(row) - 1) for t, _ in known], xs, 1)[0]
            half = round(len(row) / 2)
            parts = [[x for t, x in known if (t < half) == first] for first in (True, False)]
            expected = [
                np.mean(xs), np.std(xs), min(xs), max(xs), xs[0], xs[-1], slope,
                len(xs) / len(row), *(np.mean(part) if part else 0 for part in parts),
            ]  # fmt: skip
            assert np.allclose(found.reshape(3, 10)[variable], expected, atol=1e-4)


def test_a_sequence_keeps_every_step_and_says_what_is_missing(rows):
    """(T, 2 V): scaled values with 0 where missing, then ones where missing."""
    encoder = _fitted(rows, sequence=True)
    assert encoder.kinds["series"] == 6
    for row, found in zip(rows, _encode(encoder, rows), strict=True):
        assert found.shape == (len(row), 6)
        assert np.array_equal(found[:, 3:] == 1, np.isnan(row))
        assert (found[:, :3][np.isnan(row)] == 0).all()


def test_one_variable_may_be_a_plain_row(rows):
    """(T,) is one variable."""
    flat = [row[:, 0] for row in rows]
    (a,), (b,) = (_encode(_fitted(flat), [one]) for one in (flat[0], flat[0][:, None]))
    assert np.array_equal(a, b)


def test_the_state_survives_json(rows):
    """A restored encoder gives bit-equal vectors."""
    encoder, again = series.build(), series.build()
    again.restore(json.loads(json.dumps(encoder.fit("series", rows))))
    for a, b in zip(_encode(encoder, rows), _encode(again, rows), strict=True):
        assert np.array_equal(a, b)


def test_bad_series_are_unreadable_and_unfitted_is_refused(rows):
    """No value, infinity or other variables cost their cell; encoding unfitted is an error."""
    encoder = _fitted(rows)
    bad = {
        "empty": np.full((3, 3), np.nan, np.float32),
        "non-finite": np.full((3, 3), np.inf, np.float32),
        "wrong-type": np.zeros((3, 2), np.float32),
    }
    for reason, values in bad.items():
        with pytest.raises(Unreadable, match=reason):
            encoder.prepare("series", values)
    with pytest.raises(MmfuseError, match="fitted"):
        series.build().encode("series", rows)
    with pytest.raises(MmfuseError, match="no training row"):
        series.build().fit("series", [])
