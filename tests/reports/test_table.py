"""Tables: what cells look like, and that nothing is lost on the way to JSON."""

import json
import math
import statistics

from hypothesis import given
from hypothesis import strategies as st

from pipelines.reports.table import Spread, Table, bytes_text, count_of, counts_text, text

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=2, max_size=9))
def test_a_spread_is_mean_and_sample_deviation(values):
    """Mean and standard deviation agree with Python's statistics, for any replicas."""
    spread = Spread(tuple(values))
    assert math.isclose(spread.mean, statistics.fmean(values), abs_tol=1e-6)
    assert math.isclose(spread.std, statistics.stdev(values), rel_tol=1e-6, abs_tol=1e-6)


def test_one_replica_is_written_without_a_deviation():
    """A single seed has no spread to speak of."""
    assert str(Spread((0.5,))) == "0.500"


def test_several_replicas_are_written_with_their_deviation():
    """Two seeds of 0.4 and 0.6 are 0.500 ± 0.141."""
    assert str(Spread((0.4, 0.6))) == "0.500 ± 0.141"


def test_an_undefined_score_is_a_dash_not_a_number():
    """NaN among the replicas shows as nothing, never as a mean of the others."""
    assert str(Spread((0.5, math.nan))) == "-"


def test_cells_read_as_people_write_them():
    """Counts have thousands marks, numbers three places, nothing is a dash."""
    assert [text(12345), text(0.12345), text(None), text("a")] == ["12,345", "0.123", "-", "a"]


def test_small_numbers_keep_a_digit():
    """A p-value of 0.0002 is not written as 0, and smaller ones say so."""
    assert [text(0.0002), text(0.00001), text(0.0), text(float("nan"))] == [
        "0.0002",
        "<0.0001",
        "0.000",
        "-",
    ]


def test_large_numbers_are_powers_of_ten():
    """Errors of a value near 1e30 are read at a glance, and their column is still of numbers."""
    cells = (Spread((1e30,)), Spread((2e30, 4e30)), 1234567.8, -3e7, 999999.4, 12_345_678)
    said = ["1e+30", "3e+30 ± 1.414e+30", "1.235e+06", "-3e+07", "999999.400", "12,345,678"]
    assert [text(cell) for cell in cells] == said
    assert Table("", ("a",), tuple((cell,) for cell in cells)).numeric() == [True]


def test_columns_of_numbers_are_known():
    """Scores, counts, intervals and nothing are numbers; a word among them is not."""
    rows = ((Spread((0.5, 0.7)), 12345, "+0.1 … +0.2", "a"), (None, 1, "-0.1 … +0.2", 1))
    assert Table("", ("a", "b", "c", "d"), rows).numeric() == [True, True, True, False]


def test_reasons_are_counted_most_frequent_first():
    """The summary of failures names every reason once."""
    assert counts_text({"empty": 1, "truncated": 2}) == "3 (2 truncated, 1 empty)"
    assert counts_text({}) == "0"


def test_one_is_no_several():
    """A single thing has no plural, none and many have one."""
    said = [count_of(number, "run") for number in (0, 1, 2, 1797)]
    assert said == ["0 runs", "1 run", "2 runs", "1,797 runs"]


def test_sizes_are_powers_of_ten():
    """A kilobyte is a thousand bytes, as disks are sold."""
    assert [bytes_text(999), bytes_text(1500), bytes_text(2.5e9)] == ["999 B", "1.5 kB", "2.5 GB"]


def test_json_keeps_every_replica_and_no_nan():
    """Machines get all values; what is undefined is null, since NaN is not JSON."""
    table = Table("t", ("name", "score"), (("a", Spread((0.5, math.nan))),), ("note",))
    records = json.loads(json.dumps(table.records(), allow_nan=False))
    score = {"mean": None, "std": None, "values": [0.5, None]}
    assert records == {"title": "t", "rows": [{"name": "a", "score": score}], "notes": ["note"]}
