"""Columns of typed cells: build them from Python values, also where types are mixed.

Files such as JSON and Excel store numbers, words, dates and booleans as such, side by side in one
column. A `MIXED` column keeps what each cell was stored as, so that a stored 1.5 is never read by
the number format of the words around it.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
import polars as pl

from cache.errors import MmfuseError
from pipelines.data.values.objects import is_nan, plain_cells

MIXED = pl.Struct(
    {
        "stored number": pl.Float64,
        "stored datetime": pl.Datetime("us", "UTC"),
        "stored word": pl.String,
    }
)
"""A cell as a number, or as a datetime, or neither; and always as a word."""
_EXACT = 1 << 53  # whole floats up to here are written as whole numbers
_LARGEST = 1 << 63  # whole numbers from here on do not fit 64 bits
_SHAPES = {"cell": "plain cells", "list": "lists", "object": "objects", "bytes": "bytes"}
_DEEPEST = 4  # lists in lists that are looked into at once
_NUMBERS, _WORDS, _LISTS = {int, float, NoneType}, {str, NoneType}, {list, tuple, NoneType}
Note = Callable[[str], None]


def is_mixed(column: pl.Series) -> bool:
    """Whether cells of a column were stored with different types."""
    return column.dtype == MIXED


def words_of(column: pl.Series) -> pl.Series:
    """(N,) String, cells of any plain type as words: `5` for 5 and 5.0, `true`, ISO dates.

    Raises:
        MmfuseError: for lists, objects, and bytes that are no text.
    """
    if is_mixed(column):
        return column.struct.field("stored word").alias(column.name)
    if column.dtype == pl.Boolean:
        return column.replace_strict({False: "false", True: "true"}, return_dtype=pl.String)
    if column.dtype.is_float():
        return _words_of_floats(column)
    words = None
    if not column.dtype.is_nested():
        with contextlib.suppress(pl.exceptions.PolarsError):  # bytes that are no text
            words = column.cast(pl.String)
    if words is None:
        raise MmfuseError(
            f"column {column.name!r} holds {column.dtype}, which cannot be classes, ids, groups or "
            f"splits; name another column"
        )
    if isinstance(column.dtype, pl.Datetime):
        words = words.str.replace(r"\.0+$", "").str.strip_suffix(" 00:00:00")
    return words


def numbers_of(column: pl.Series) -> pl.Series:
    """(N,) Float64, the cells of a mixed column that were stored as numbers."""
    return column.struct.field("stored number").alias(column.name)


def datetimes_of(column: pl.Series) -> pl.Series:
    """(N,) Datetime in UTC, the cells of a mixed column that were stored as dates."""
    return column.struct.field("stored datetime").alias(column.name)


def plain_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The table in the types that columns are judged by.

    Categoricals become words, durations and times of day seconds, and NaN missing, also in lists.
    """
    return frame.with_columns(_plain(column) for column in frame)


def leaf_of(dtype: pl.DataType) -> tuple[pl.DataType, int]:
    """The type of what is in lists, or in lists of lists; how deep it lies, 0 in no list."""
    depth = 0
    while isinstance(dtype, pl.List | pl.Array):
        dtype, depth = dtype.inner, depth + 1  # type: ignore[assignment]
    return dtype, depth


def each_leaf(column: pl.Series, change: Callable[[pl.Expr], pl.Expr]) -> pl.Series:
    """Lists at any depth, arrays as lists too, with every value in them changed."""
    changed = change(pl.element())
    for _ in range(leaf_of(column.dtype)[1] - 1):
        changed = pl.element().list.eval(changed)
    return _with_lists(column).list.eval(changed)


def column_of(name: str, values: Sequence[Any], tell: Note) -> pl.Series:
    """A column of Python values, as JSON or a data frame of objects has them.

    Mappings become structs, at any depth. Where lists or mappings stand among other cells, the
    fewer count as missing. Objects that no file has become values first, see `objects`.

    Args:
        name: of the column.
        values: None, booleans, numbers, words, dates, bytes, lists, mappings or other objects.
        tell: called with a sentence on cells that count as missing, or as words.

    Raises:
        MmfuseError: for an object without words, such as a function.
    """
    cells = plain_cells(name, values, tell)
    shapes = Counter(_shape(cell) for cell in cells if cell is not None)
    shape = shapes.most_common(1)[0][0] if shapes else "cell"
    odd = [row for row, cell in enumerate(cells) if cell is not None and _shape(cell) != shape]
    if odd:
        tell(_sentence(name, odd, cells, _SHAPES[shape]))
        for row in odd:
            cells[row] = None
    if shape == "object":
        return _struct(name, cells, tell)
    if shape == "list":
        return _lists(name, cells, tell)
    if shape == "bytes":
        return pl.Series(name, cells, pl.Binary)
    types = {_type(cell) for cell in cells if cell is not None}
    too_large = any(isinstance(cell, int) and abs(cell) >= _LARGEST for cell in cells)
    if len(types) > 1 or too_large:
        return _mixed(name, cells)
    return pl.Series(name, cells, pl.String if types == {"word"} else None, strict=False)


def mixed_column(
    name: str, numbers: pl.Series, datetimes: pl.Series, words: pl.Series
) -> pl.Series:
    """A mixed column: (N,) each; null where a cell has no word.

    Args:
        name: of the column.
        numbers: of cells that were stored as numbers, else null.
        datetimes: of cells that were stored as dates, else null.
        words: of all cells.
    """
    fields = [
        each.cast(dtype).alias(field.name)
        for each, field, dtype in zip(
            (numbers, datetimes, words), MIXED.fields, [f.dtype for f in MIXED.fields], strict=True
        )
    ]
    record = pl.when(pl.col(MIXED.fields[2].name).is_not_null()).then(pl.struct(pl.all()))
    return pl.DataFrame(fields).select(record.alias(name)).to_series()


def _mixed(name: str, cells: Sequence[Any]) -> pl.Series:
    numbers, datetimes, words = [], [], []
    for cell in cells:
        kind = None if cell is None else _type(cell)
        numbers.append(float(cell) if kind == "number" else None)
        datetimes.append(_datetime(cell) if isinstance(cell, date) else None)
        words.append(None if cell is None or not (word := _word(cell)).strip() else word)
    return mixed_column(
        name,
        pl.Series(numbers, dtype=pl.Float64),
        pl.Series(datetimes, dtype=pl.Datetime("us", "UTC")),
        pl.Series(words, dtype=pl.String),
    )


def _struct(name: str, cells: Sequence[Mapping[str, Any] | None], tell: Note) -> pl.Series:
    if not all(type(field) is str for cell in cells if cell is not None for field in cell):
        cells = [None if cell is None else {str(f): v for f, v in cell.items()} for cell in cells]
    fields = dict.fromkeys(field for cell in cells if cell is not None for field in cell)
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


def _lists(name: str, cells: Sequence[Any], tell: Note) -> pl.Series:
    """Lists of values, of lists or of mappings; numbers beside words, or too large, become words.

    A list is odd, and missing, where its values are nested otherwise than those of most lists.
    """
    there = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, np.ndarray) for cell in there):
        if len({cell.ndim for cell in there}) == 1:
            return _arrays(name, cells)
        cells = [None if cell is None else cell.tolist() for cell in cells]
    if _are_alike(cells):
        return pl.Series(name, cells, strict=False)
    plain = iter(plain_cells(name, [x for c in cells if c is not None for x in c], tell))
    rows = [None if cell is None else [next(plain) for _ in cell] for cell in cells]
    shapes = [{_shape(x) for x in row if x is not None} if row else set() for row in rows]
    alike = Counter(next(iter(each)) for each in shapes if len(each) == 1)
    shape = alike.most_common(1)[0][0] if alike else "cell"
    if odd := [row for row, each in enumerate(shapes) if not each <= {shape}]:
        tell(_sentence(name, odd, cells, f"lists of {_SHAPES[shape]}"))
        for row in odd:
            rows[row] = None
    values = [x for row in rows if row is not None for x in row]
    types = {_type(x) for x in values if x is not None} if shape == "cell" else set()
    if len(types) > 1 or any(isinstance(x, int) and abs(x) >= _LARGEST for x in values):
        values = [None if x is None else _word(x) for x in values]
    inner = column_of(f"{name}, inside its lists", values, tell)
    return _in_lists(name, inner, [None if row is None else len(row) for row in rows])


def _are_alike(cells: Sequence[Any]) -> bool:
    """Whether lists hold numbers that polars has, or words alone, all at one depth."""
    for _ in range(_DEEPEST):
        cells = list(chain.from_iterable(cell for cell in cells if cell is not None))
        types = set(map(type, cells))
        if types <= _NUMBERS or types <= _WORDS:
            return not any(type(cell) is int and abs(cell) >= _LARGEST for cell in cells)
        if not types <= _LISTS:
            return False
    return False


def _arrays(name: str, cells: Sequence[Any]) -> pl.Series:
    """Arrays of as many axes each, of numbers, as lists of one type."""
    there = [cell for cell in cells if cell is not None]
    common = np.result_type(*there)
    parts = [None if cell is None else pl.Series(cell.astype(common)) for cell in cells]
    return pl.Series(name, [None if part is None else _with_lists(part) for part in parts])


def _with_lists(column: pl.Series) -> pl.Series:
    """The column with lists in place of arrays."""
    nested, depth = leaf_of(column.dtype)
    for _ in range(depth):
        nested = pl.List(nested)
    return column.cast(nested)


def _in_lists(name: str, inner: pl.Series, lengths: Sequence[int | None]) -> pl.Series:
    """Values one after another as lists of these lengths; None is a missing list."""
    parts, start = [], 0
    for length in lengths:
        parts.append(None if length is None else inner.slice(start, length))
        start += length or 0
    return pl.Series(name, parts, pl.List(inner.dtype))


def _sentence(name: str, odd: Sequence[int], cells: Sequence[Any], what: str) -> str:
    return (
        f"column {name}: {len(odd)} of {len(cells)} cells are not {what} like the others and "
        f"count as missing, such as {str(cells[odd[0]])[:40]!r} in row {odd[0] + 1}"
    )


def _shape(cell: object) -> str:
    if isinstance(cell, Mapping):
        return "object"
    if isinstance(cell, bytes):
        return "bytes"
    return "list" if isinstance(cell, list | tuple | np.ndarray) else "cell"


def _type(cell: object) -> str:
    if isinstance(cell, bool | np.bool_):
        return "boolean"
    if isinstance(cell, int | float | Decimal | np.number):
        return "number"
    if isinstance(cell, date):  # a datetime is one too
        return "datetime" if getattr(cell, "tzinfo", None) is None else "datetime of a zone"
    return type(cell).__name__ if isinstance(cell, time | timedelta) else "word"


def _word(cell: object) -> str:
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, float | np.floating):
        return _word_of_float(float(cell))
    if isinstance(cell, datetime):
        return cell.isoformat(" ").removesuffix(" 00:00:00")
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _datetime(cell: date) -> datetime:
    if not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day, tzinfo=UTC)
    return cell.astimezone(UTC) if cell.tzinfo else cell.replace(tzinfo=UTC)


def _words_of_floats(column: pl.Series) -> pl.Series:
    cells = [None if v is None or is_nan(v) else _word_of_float(v) for v in column.to_list()]
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
    leaf, depth = leaf_of(column.dtype)
    if not leaf.is_float():
        return column
    return each_leaf(column, lambda x: x.fill_nan(None)) if depth else column.fill_nan(None)
