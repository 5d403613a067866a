"""Data frames and dicts of Python objects: cells of every type work, or are one error."""

import datetime
import enum
import io
import uuid
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image

import mmfuse
from cache.errors import MmfuseError
from pipelines.data.values.mixed_cells import datetimes_of, plain_columns
from pipelines.media.cells import read
from pipelines.model import as_frame

COUNT = 40
ZONE = datetime.timezone(datetime.timedelta(hours=-2))
MOMENT = datetime.datetime(2021, 3, 4, 5)


class Colour(enum.Enum):
    """Members that are no words or numbers."""

    RED = 1
    BLUE = 2


class Size(enum.IntEnum):
    """Members that are numbers."""

    LARGE = 3


class Opaque:
    """An object without words."""


def cells_of(column, notes=None):
    """The cells that a column of a dict becomes."""
    data = {"c": column}
    frame = as_frame(data) if notes is None else as_frame(data, notes.append)
    return frame["c"].to_list()


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ([Path("a/b.png"), "c.png", None], ["a/b.png", "c.png", None]),
        ([bytearray(b"x"), memoryview(b"y"), b"z"], [b"x", b"y", b"z"]),
        ([pd.NA, 2.5, float("nan")], [None, 2.5, None]),
        ([pd.NaT, pd.Timestamp(MOMENT)], [None, MOMENT]),
        ([np.datetime64("NaT"), np.datetime64(MOMENT, "ns")], [None, MOMENT]),
        (np.array(["2021-03-01", "NaT"], "M8[M]"), [datetime.date(2021, 3, 1), None]),
        ([np.timedelta64(5, "s"), pd.Timedelta("2s")], [datetime.timedelta(0, s) for s in (5, 2)]),
        ([np.float32(0.5), np.int8(2)], [0.5, 2]),
        ([Fraction(1, 4), 1], [0.25, 1]),
        ([Size.LARGE, 4], [3, 4]),
        ([{"b", "a"}, frozenset()], [["a", "b"], []]),
        ([[pd.NaT, pd.Timestamp(MOMENT)], [None]], [[None, MOMENT], [None]]),
        ([[pd.NA, 1], [2.5]], [[None, 1], [2.5]]),
        ([np.zeros(2), None, np.ones(3, np.int8)], [[0, 0], None, [1, 1, 1]]),
        ([np.zeros((2, 3)), None, np.ones((1, 3))], [[[0] * 3] * 2, None, [[1] * 3]]),
        ([[1, "a"], [2, None]], [["1", "a"], ["2", None]]),
        ([[1, 2], [3, [4]], [5]], [[1, 2], None, [5]]),
        ([{1: Path("a"), "x": 2}, None], [{"1": "a", "x": 2}, None]),
        (np.zeros((2, 3)), [[0, 0, 0]] * 2),
        (pd.Categorical(["u", None]), ["u", None]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (range(2), [0, 1]),
    ],
)
def test_objects_become_the_cells_that_they_mean(column, cells):
    """Paths, times, missing values, arrays and sets."""
    found = cells_of(column)
    found = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in found]
    assert found == cells


def test_moments_with_and_without_a_zone_stand_in_one_column():
    """Those without are in UTC, as everywhere."""
    column = as_frame({"c": [MOMENT, MOMENT.replace(tzinfo=ZONE)]})["c"]
    hours = datetimes_of(column).dt.hour().to_list()
    assert hours == [5, 7]


@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ([Colour.BLUE, None], ["BLUE", None], "1 of 2 cells are Colour members and count as their"),
        ([uuid.UUID(int=7)], [str(uuid.UUID(int=7))], "UUID objects and count as their words"),
        (
            pd.IntervalIndex.from_breaks([0, 1, 2]),
            ["(0, 1]", "(1, 2]"],
            "2 of 2 cells are Interval objects and count as their words, such as '(0, 1]'",
        ),
        (
            pd.period_range("2021-03", periods=1, freq="M"),
            [datetime.datetime(2021, 3, 1)],
            "Period objects and count as the datetimes they start at",
        ),
        ([3j], ["3j"], "complex objects and count as their words"),
    ],
)
def test_what_becomes_a_word_is_told_once(column, cells, told):
    """Of every type that no file has."""
    notes = []
    assert cells_of(column, notes) == cells
    (note,) = notes
    assert note.startswith("column c: ")
    assert told in note


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I", "F"])
def test_pictures_are_cells(mode):
    """With the pixels that a file of them has."""
    grey = Image.fromarray(np.arange(0, 240, 15, np.uint8).reshape(4, 4))
    picture = grey.convert(mode)
    (cell,) = cells_of([picture])
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    assert np.array_equal(read("image", cell, None), read("image", buffer.getvalue(), None))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"c": [1, Opaque()]}, "column c: row 2 holds an object of type Opaque.*no words"),
        ({"c": [[1, len]]}, "column c.*builtin_function"),
        ({"c": [Image.new("RGB", (0, 0))]}, "column c: row 1 .* type Image"),
        ({"c": {1, 2}}, "column 'c' is a set"),
        ({"a": [1, 2], "b": [1]}, "'a' has 2 cells, 'b' has 1"),
        ({"a": 1, "b": [1, 2]}, "column 'a' is one cell"),
        ({1: [1], "1": [2]}, "two columns are named '1'"),
        (pd.DataFrame([[1, 2]], columns=["q", "q"]), "two columns are named 'q'"),
        (pl.DataFrame({"c": pl.Series([Opaque()], dtype=pl.Object)}), "column c: row 1"),
    ],
)
def test_what_cannot_be_a_table_is_one_error(data, message):
    """It names the column."""
    with pytest.raises(MmfuseError, match=message):
        as_frame(data)


def test_columns_of_objects_in_a_frame_of_polars_are_read():
    """The others stay as they are."""
    objects = pl.Series([Path("a"), None], dtype=pl.Object)
    frame = as_frame(pl.DataFrame({"o": objects, "n": pl.Series([1, 2], dtype=pl.UInt8)}))
    assert frame.to_dict(as_series=False) == {"o": ["a", None], "n": [1, 2]}
    assert frame["n"].dtype == pl.UInt8


def test_a_dict_of_single_cells_is_one_row():
    """Words, paths, numbers and arrays without an axis."""
    frame = as_frame({"a": 1, "b": "xyz", "c": None, "d": Path("p"), "e": np.array(2.5)})
    assert frame.row(0) == (1, "xyz", None, "p", 2.5)


def test_nan_in_lists_is_missing_in_any_frame():
    """As it is in a column of numbers, at any depth."""
    nan = float("nan")
    frame = pl.DataFrame({"a": [[nan, 1.0]], "b": [[[nan], [1.0]]], "c": [[1, 2]]})
    found = plain_columns(frame.with_columns(d=pl.col("a").cast(pl.Array(pl.Float32, 2))))
    assert found.row(0) == ([None, 1.0], [[None], [1.0]], [1, 2], [None, 1.0])


def test_fit_predict_and_report_take_what_a_session_has(tmp_path):
    """Columns named by numbers, pictures, one row of cells, a folder for the report."""
    level = [40 + 150 * (row % 2) + row for row in range(COUNT)]
    data = {
        "colour": [Colour(1 + row % 2) for row in range(COUNT)],
        "shot": [Image.new("RGB", (4, 4), (each, 0, 0)) for each in level],
        7: [("low", "high")[row % 2] for row in range(COUNT)],
    }
    model = mmfuse.fit(data, 7, home=tmp_path / "home", options={"epochs": 3, "seeds": (0,)})
    assert set(model.run.modalities) == {"table", "shot"}
    assert sum("Colour members" in note for note in model.notes) == 1
    found = model.predict({"colour": Colour.BLUE, "shot": data["shot"][1]})
    assert found.answers() == ["high"]
    assert "Colour members" in found.notes[0]
    assert model.report(tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").is_file()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MmfuseError, match=str(tmp_path / "file")):
        model.report(tmp_path / "file" / "page.html")
    with pytest.raises(MmfuseError, match="no column in the data frame named '8'"):
        mmfuse.fit(data, 8, home=tmp_path / "home")


@pytest.mark.parametrize("number", [2**64, 2**130])
def test_whole_numbers_too_large_for_64_bits_are_words_also_in_lists(number):
    """Labels may be ids of any length; none of them goes missing."""
    found = as_frame({"ids": [[number, 1], [3], None]})["ids"]
    assert found.to_list() == [[str(number), "1"], ["3"], None]
