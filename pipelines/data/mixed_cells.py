"""Columns of typed cells: build them from Python values, also where types are mixed.

Files such as JSON and Excel store numbers, words, dates and booleans as such, side by side in one
column. A `MIXED` column keeps what each cell was stored as, so that a stored 1.5 is never read by
the number format of the words around it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

MIXED = pl.Struct(
    {
        "stored number": pl.Float64,
        "stored moment": pl.Datetime("us", "UTC"),
        "stored word": pl.String,
    }
)
"""A cell as a number, or as a moment, or neither; and always as a word."""
_EXACT = 1 << 53  # whole floats up to here are written as whole numbers
_LARGEST = 1 << 63  # whole numbers from here on do not fit 64 bits
Note = Callable[[str], None]


def is_mixed(column: pl.Series) -> bool:
    """Whether cells of a column were stored with different types."""
    return column.dtype == MIXED


def words_of(column: pl.Series) -> pl.Series:
    """(N,) String, cells of any plain type as words: `5` for 5 and 5.0, `true`, ISO dates."""
    if is_mixed(column):
        return column.struct.field("stored word").alias(column.name)
    if column.dtype == pl.Boolean:
        return column.replace_strict({False: "false", True: "true"}, return_dtype=pl.String)
    if column.dtype.is_float():
        return _words_of_floats(column)
    words = column.cast(pl.String)
    if isinstance(column.dtype, pl.Datetime):
        words = words.str.replace(r"\.0+$", "").str.strip_suffix(" 00:00:00")
    return words


def numbers_of(column: pl.Series) -> pl.Series:
    """(N,) Float64, the cells of a mixed column that were stored as numbers."""
    return column.struct.field("stored number").alias(column.name)


def moments_of(column: pl.Series) -> pl.Series:
    """(N,) Datetime in UTC, the cells of a mixed column that were stored as dates."""
    return column.struct.field("stored moment").alias(column.name)


def plain_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The table in the types that columns are judged by.

    Categoricals become words, durations and times of day seconds, and NaN missing.
    """
    return frame.with_columns(_plain(column) for column in frame)


def column_of(name: str, values: Sequence[Any], tell: Note) -> pl.Series:
    """A column of Python values, as JSON or a data frame of objects has them.

    Objects become structs, at any depth. Where lists or objects stand among other cells, the
    fewer count as missing.

    Args:
        name: of the column.
        values: None, booleans, numbers, words, dates, bytes, lists or mappings.
        tell: called with a sentence on cells that count as missing.
    """
    cells = [None if value is None or _is_nan(value) else value for value in values]
    shapes = Counter(_shape(cell) for cell in cells if cell is not None)
    shape = shapes.most_common(1)[0][0] if shapes else "cell"
    odd = [row for row, cell in enumerate(cells) if cell is not None and _shape(cell) != shape]
    if odd:
        kinds = {"cell": "plain cells", "list": "lists", "object": "objects", "bytes": "bytes"}
        tell(
            f"column {name}: {len(odd)} of {len(cells)} cells are not {kinds[shape]} like the "
            f"others and count as missing, such as {str(cells[odd[0]])[:40]!r} in row {odd[0] + 1}"
        )
        for row in odd:
            cells[row] = None
    if shape == "object":
        return _struct(name, cells, tell)
    if shape in ("list", "bytes"):
        return pl.Series(name, cells, strict=False)
    types = {_type(cell) for cell in cells if cell is not None}
    too_large = any(isinstance(cell, int) and abs(cell) >= _LARGEST for cell in cells)
    if len(types) > 1 or too_large:
        return _mixed(name, cells)
    return pl.Series(name, cells, pl.String if types == {"word"} else None, strict=False)


def mixed_column(name: str, numbers: pl.Series, moments: pl.Series, words: pl.Series) -> pl.Series:
    """A mixed column: (N,) each; null where a cell has no word.

    Args:
        name: of the column.
        numbers: of cells that were stored as numbers, else null.
        moments: of cells that were stored as dates, else null.
        words: of all cells.
    """
    fields = [
        each.cast(dtype).alias(field.name)
        for each, field, dtype in zip(
            (numbers, moments, words), MIXED.fields, [f.dtype for f in MIXED.fields], strict=True
        )
    ]
    record = pl.when(pl.col(MIXED.fields[2].name).is_not_null()).then(pl.struct(pl.all()))
    return pl.DataFrame(fields).select(record.alias(name)).to_series()


def _mixed(name: str, cells: Sequence[Any]) -> pl.Series:
    numbers, moments, words = [], [], []
    for cell in cells:
        kind = None if cell is None else _type(cell)
        numbers.append(float(cell) if kind == "number" else None)
        moments.append(_moment(cell) if kind == "moment" else None)
        words.append(None if cell is None or not (word := _word(cell)).strip() else word)
    return mixed_column(
        name,
        pl.Series(numbers, dtype=pl.Float64),
        pl.Series(moments, dtype=pl.Datetime("us", "UTC")),
        pl.Series(words, dtype=pl.String),
    )


def _struct(name: str, cells: Sequence[Mapping[str, Any] | None], tell: Note) -> pl.Series:
    fields = dict.fromkeys(str(field) for cell in cells if cell is not None for field in cell)
    if not fields:
        return pl.Series(name, [None] * len(cells), pl.Null)
    inner = [
        column_of(field, [None if cell is None else cell.get(field) for cell in cells], tell)
        for field in fields
    ]
    there = pl.Series([cell is not None for cell in cells])
    return (
        pl.DataFrame(inner).select(pl.when(there).then(pl.struct(pl.all())).alias(name)).to_series()
    )


def _shape(cell: object) -> str:
    if isinstance(cell, Mapping):
        return "object"
    if isinstance(cell, bytes | bytearray):
        return "bytes"
    return "list" if isinstance(cell, list | tuple | np.ndarray) else "cell"


def _type(cell: object) -> str:
    if isinstance(cell, bool | np.bool_):
        return "boolean"
    if isinstance(cell, int | float | Decimal | np.number):
        return "number"
    if isinstance(cell, date):  # a datetime is one too
        return "moment"
    return type(cell).__name__ if isinstance(cell, time | timedelta) else "word"


def _word(cell: object) -> str:
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, float | np.floating):
        return _word_of_float(float(cell))
    if isinstance(cell, datetime):
        return cell.isoformat(" ").removesuffix(" 00:00:00")
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _moment(cell: date) -> datetime:
    if not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day, tzinfo=UTC)
    return cell.astimezone(UTC) if cell.tzinfo else cell.replace(tzinfo=UTC)


def _is_nan(value: object) -> bool:
    return isinstance(value, float | np.floating) and bool(value != value)  # noqa: PLR0124 - NaN


def _words_of_floats(column: pl.Series) -> pl.Series:
    cells = [None if v is None or _is_nan(v) else _word_of_float(v) for v in column.to_list()]
    return pl.Series(column.name, cells, pl.String)


def _word_of_float(value: float) -> str:
    return str(int(value)) if abs(value) < _EXACT and value == int(value) else repr(value)


def _plain(column: pl.Series) -> pl.Series:
    if column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if column.dtype == pl.Duration:
        return column.dt.total_microseconds() / 1e6
    if column.dtype == pl.Time:
        return column.cast(pl.Int64) / 1e9  # polars counts nanoseconds since midnight
    return column.fill_nan(None) if column.dtype.is_float() else column
