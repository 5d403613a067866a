"""Tables: what cells look like, and that nothing is lost on the way to JSON."""

import json
import math
import statistics
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reports.table import Column, Spread, Table, bytes_text, count_of, counts_text, text

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


EVERY = (
    "name", Column.spread("test"), Column.change("change"), Column.interval("95 % interval"),
    Column.bytes("size"), Column.milliseconds("head", "head_seconds"),
    Column.time("when (UTC)", "created"), Column.flag("ready", "ready"), Column.words("tags"),
    Column.reasons("failed"), Column.pair("data × weights", "data", "weights"),
    Column.number("cosine", "cosine", ".6f"), Column.hidden("run"),
)  # fmt: skip
FULL = (
    "a", Spread((0.5, 0.7)), 0.25, (-0.5, 0.125), 1500, 0.0125, "2026-11-27T15:00:01+00:00", True,
    ["x", "y"], {"late": 1, "empty": 2}, ("real", "random"), 0.99999987, "r1",
)  # fmt: skip


def test_records_hold_numbers_where_the_text_holds_words():
    """Nothing that was formatted for people is in JSON: every fact is a field of its own."""
    table = Table("t", EVERY, (FULL,), ("note",), "facts")
    assert table.texts() == [[
        "a", "0.600 ± 0.141", "+0.250", "-0.500 … +0.125", "1.5 kB", "12.50", "2026-11-27 15:00",
        "yes", "x, y", "3 (2 empty, 1 late)", "real × random", "1.000000",
    ]]  # fmt: skip
    (record,) = json.loads(json.dumps(table.records(), allow_nan=False))
    assert record == {
        "name": "a", "test_mean": 0.6, "test_std": pytest.approx(0.02**0.5),
        "test_values": [0.5, 0.7], "change": 0.25, "interval_low": -0.5, "interval_high": 0.125,
        "bytes": 1500, "head_seconds": 0.0125, "created": "2026-11-27T15:00:01+00:00",
        "ready": True, "tags": ["x", "y"], "failed": 3,
        "failed_reasons": [{"reason": "empty", "count": 2}, {"reason": "late", "count": 1}],
        "data": "real", "weights": "random", "cosine": 0.99999987, "run": "r1",
    }  # fmt: skip
    assert list(record) == table.fields
    assert table.document() == {
        "name": "facts", "title": "t", "rows": table.records(), "notes": ["note"],
    }  # fmt: skip


def test_what_is_not_there_is_null_in_every_field():
    """Records have the same fields whatever is known; the text has a dash."""
    table = Table("t", EVERY, (FULL, (None,) * len(FULL)))
    known, unknown = table.records()
    assert known.keys() == unknown.keys()
    assert set(unknown.values()) == {None}
    assert set(table.texts()[1]) == {"-"}


def test_json_keeps_every_replica_and_no_nan():
    """Machines get all values; what is undefined is null, since NaN is not JSON."""
    columns = ("name", Column.spread("score"), Column.interval("interval"), Column.change("change"))
    cells = ("a", Spread((0.5, math.nan)), (math.nan, 1.0), math.nan)
    table = Table("t", columns, (cells,))
    (record,) = json.loads(json.dumps(table.records(), allow_nan=False))
    assert record == {
        "name": "a", "score_mean": None, "score_std": None, "score_values": [0.5, None],
        "interval_low": None, "interval_high": 1.0, "change": None,
    }  # fmt: skip
    assert table.texts() == [["a", "-", "-", "-"]]


def test_a_single_value_has_no_deviation_in_records():
    """The standard deviation of one is unknown, not 0."""
    (record,) = Table("t", (Column.spread("test"),), ((Spread((0.5,)),),)).records()
    assert record == {"test_mean": 0.5, "test_std": None, "test_values": [0.5]}


def test_a_data_frame_has_the_fields_of_the_records():
    """In their order, of numbers and lists; also of no rows at all."""
    frame = Table("t", EVERY, (FULL, (None,) * len(FULL))).to_polars()
    assert frame.columns == Table("t", EVERY, ()).to_polars().columns
    assert frame.to_dicts()[0] == Table("t", EVERY, (FULL,)).records()[0]
    assert frame["bytes"].to_list() == [1500, None]


SCORES = (
    ("concat", "complete", 0.9, "r1"), ("concat", "without a", 0.5, "r1"),
    ("late", "complete", 0.8, "r2"), ("late", "without a", 0.6, "r2"),
    ("late", "complete", 0.7, "r3"),
)  # fmt: skip


def test_words_of_a_column_may_stand_across():
    """The text has one row for each method, the records one for each score; none is lost."""
    columns = ("method", "missing", "score", Column.hidden("run"))
    table = Table("t", columns, SCORES, across=("missing", "score"))
    assert table.headings == ["method", "complete", "without a"]
    assert table.texts() == [
        ["concat", "0.900", "0.500"], ["late", "0.800", "0.600"], ["late", "0.700", "-"],
    ]  # fmt: skip
    assert [(row["missing"], row["score"], row["run"]) for row in table.records()] == [
        row[1:] for row in SCORES
    ]
    assert table.numeric() == [False, True, True]


def test_a_limit_is_of_the_text_alone_and_is_told():
    """Machines get all rows; people are told how many there are."""
    table = Table("t", ("n",), tuple((n,) for n in range(1200)), ("note",), limit=2)
    assert table.texts() == [["0"], ["1"]]
    assert table.sentences == ["2 of 1,200 shown", "note"]
    assert len(table.records()) == 1200
    assert table.document()["notes"] == ["note"]
    assert Table("t", ("n",), ((1,),), ("note",), limit=2).sentences == ["note"]


def test_a_table_is_short_in_a_prompt_and_a_table_in_a_notebook():
    """Words of the data are escaped, control characters written out, notes below."""
    table = Table("<t>", ("a", Column.hidden("b")), (("<b>\x1b", 1),), ("n & m",), "facts", limit=5)
    assert repr(table) == "<Table facts: 1 row, 2 fields>"
    page = ET.fromstring(f"<div>{table._repr_html_()}</div>")
    assert [cell.text for cell in page.iter("td")] == ["<b>\\x1b"]
    assert [cell.text for cell in page.iter("th")] == ["a"]
    assert page.find("h2").text == "<t>"
    assert page.find("p").text == "n & m"
