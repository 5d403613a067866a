"""Cells of several types in one column: each is read by what it was stored as, whatever is beside.

The representations are those of JSON, Excel and data frames of objects; `read_column` must give one
cell the same value alone and in any company.
"""

import datetime
import json

import openpyxl
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.table_files import read_table
from pipelines.data.values.column_types import ColumnType, infer, read_column
from pipelines.data.values.mixed_cells import column_of, is_mixed, plain_columns, words_of
from pipelines.model import as_frame

TYPES = [
    ColumnType("number"),
    ColumnType("number", ",", "."),
    ColumnType("number", unit="%"),
    ColumnType("date", date="dd.mm.yyyy"),
    ColumnType("date", date="iso"),
    ColumnType("category"),
    ColumnType("category", by_value=True),
    ColumnType("category", logical=True),
]
WORDS = [
    "", " ", "n/a", "1,5", "1.5", "1.234", "1.234,5", "12 %", "(3,5)", "TRUE", "true", "1e400",
    "04.05.2020", "2020-05-04", "2020-05-04T10:00:00Z", "a", "5", "5.0", "−2",
]  # fmt: skip
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([1 << 70, float("inf"), float("nan"), 1.5, 1.234, -9.25, 12.0]),
    st.sampled_from([datetime.date(2020, 5, 4), datetime.datetime(2020, 5, 4, 10)]),
    st.sampled_from(WORDS),
)


def read(cells, kind):
    """The values of cells as one column, dates as moments, and which do not fit."""
    reading = read_column(column_of("c", cells, lambda _: None), kind)
    values = reading.values
    if kind.kind == "date":
        values = values.cast(pl.Datetime("us"))
    return list(zip(values.to_list(), reading.unfit.to_list(), strict=True))


@given(cells=st.lists(CELLS, min_size=1, max_size=8), kind=st.sampled_from(TYPES))
def test_a_cell_means_the_same_alone_and_beside_any_other(cells, kind):
    """For every type of column and every pair of types of cells."""
    assert read(cells, kind) == [read([cell], kind)[0] for cell in cells]


def frames(folder, cells):
    """The same cells as JSON, JSON lines, Excel, and columns of Python and of pandas."""
    rows = [{"id": f"s{n}", "c": cell} for n, cell in enumerate(cells)]
    plain = [{k: str(v) if isinstance(v, datetime.date) else v for k, v in r.items()} for r in rows]
    (folder / "a.json").write_text(json.dumps(plain))
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    book = openpyxl.Workbook()
    book.active.append(["id", "c"])
    for row in rows:
        book.active.append(list(row.values()))
    book.save(folder / "a.xlsx")
    for name in ("a.json", "a.jsonl", "a.xlsx"):
        yield name, read_table(folder / name)
    columns = {name: [row[name] for row in rows] for name in ("id", "c")}
    yield "dict", as_frame(columns)
    yield "pandas", as_frame(pd.DataFrame(columns, dtype=object))


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        ([10.5, -9.5, "n/a"], ColumnType("number", ","), [10.5, -9.5, None]),
        ([1.234, 12, "1.234", "3,5"], ColumnType("number", ",", "."), [1.234, 12, 1234, 3.5]),
        ([62.5, "62.5 %"], ColumnType("number", unit="%"), [62.5, 62.5]),
        ([True, 3, "x"], ColumnType("number"), [None, 3, None]),
        (
            [True, "FALSE", "maybe"],
            ColumnType("category", logical=True),
            ["true", "false", "maybe"],
        ),
        ([1, 2.0, "A", "3"], ColumnType("category"), ["1", "2", "A", "3"]),
        (
            [datetime.date(2020, 3, 4), "05.03.2020", "x"],
            ColumnType("date", date="dd.mm.yyyy"),
            [datetime.date(2020, 3, 4), datetime.date(2020, 3, 5), None],
        ),
    ],
)
def test_stored_cells_beside_words_are_what_they_were_stored_as(tmp_path, cells, kind, values):
    """In every format that stores types."""
    for name, frame in frames(tmp_path, cells):
        reading = read_column(frame["c"], kind)
        found = reading.values
        if kind.kind == "date":
            found = found.cast(pl.Date)
        assert found.to_list() == values, name


def test_a_column_of_stored_numbers_is_not_judged_by_its_words(tmp_path):
    """Three words with commas beside forty stored numbers do not give these a format."""
    cells = [n + 0.125 for n in range(40)] + ["1,5", "n/a", "2,5"]
    for name, frame in frames(tmp_path, cells):
        assert is_mixed(frame["c"]), name
        kind = infer(frame["c"])
        assert kind.kind == "number"
        values = read_column(frame["c"], kind).values
        assert values.to_list()[:40] == cells[:40], name


def test_words_of_stored_cells():
    """A number is one word however it is stored; large whole numbers keep all digits."""
    cells = [5, 5.0, 2.5, True, None, " ", "x", 10**20, datetime.date(2020, 3, 4)]
    words = words_of(column_of("c", cells, print))
    assert words.to_list() == [
        "5", "5", "2.5", "true", None, None, "x", "1" + "0" * 20, "2020-03-04",
    ]  # fmt: skip


def test_lists_among_numbers_cost_their_cells():
    """The fewer count as missing, and that is said; objects become structs of typed cells."""
    told = []
    column = column_of("c", [1, 2, [3], 4], told.append)
    assert column.to_list() == [1, 2, None, 4]
    assert told == [
        "column c: 1 of 4 cells are not plain cells like the others and count as missing, "
        "such as '[3]' in row 3"
    ]
    nested = column_of("c", [{"a": 1}, {"a": "x", "b": [1]}, None], told.append)
    assert nested.is_null().to_list() == [False, False, True]
    assert is_mixed(nested.struct.field("a"))


def test_types_of_parquet_become_those_that_columns_are_judged_by():
    """Categoricals are words; durations and times of day seconds; NaN is missing."""
    frame = pl.DataFrame(
        {
            "word": pl.Series(["a", "b"], dtype=pl.Categorical),
            "span": [datetime.timedelta(minutes=1), None],
            "time": [datetime.time(0, 0, 2), datetime.time(1)],
            "value": [float("nan"), 1.0],
        }
    )
    assert plain_columns(frame).to_dict(as_series=False) == {
        "word": ["a", "b"], "span": [60.0, None], "time": [2.0, 3600.0], "value": [None, 1.0],
    }  # fmt: skip
