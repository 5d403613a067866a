"""Columns of typed cells: build them from Python values, also where types are mixed.

Files such as JSON and Excel store numbers, words, dates and booleans as such, side by side in one
column. A `MIXED` column keeps what each cell was stored as, so that a stored 1.5 is never read by
the number format of the words around it. Objects that no file has, as data frames may hold them,
become plain cells first.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from numbers import Rational
from pathlib import PurePath
from types import NoneType
from typing import Any

import numpy as np
import polars as pl

from cache.errors import MmfuseError

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
_SHAPES = {"cell": "plain cells", "list": "lists", "object": "objects", "bytes": "bytes"}
_DEEPEST = 4  # lists in lists that are looked into at once
_NUMBERS, _WORDS, _LISTS = {int, float, NoneType}, {str, NoneType}, {list, tuple, NoneType}
_STORED = frozenset(
    (NoneType, bool, int, float, str, bytes, list, tuple, dict, date, datetime, time, timedelta)
)
"""Types of cells that files have too."""
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


def moments_of(column: pl.Series) -> pl.Series:
    """(N,) Datetime in UTC, the cells of a mixed column that were stored as dates."""
    return column.struct.field("stored moment").alias(column.name)


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
    fewer count as missing. NaN, NaT and NA are missing. Paths become words, pictures of Pillow
    encoded bytes, arrays lists, sets sorted lists; other objects their words.

    Args:
        name: of the column.
        values: None, booleans, numbers, words, dates, bytes, lists, mappings or other objects.
        tell: called with a sentence on cells that count as missing, or as words.

    Raises:
        MmfuseError: for an object without words, such as a function.
    """
    cells = _plain_cells(name, values, tell)
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
        moments.append(_moment(cell) if isinstance(cell, date) else None)
        words.append(None if cell is None or not (word := _word(cell)).strip() else word)
    return mixed_column(
        name,
        pl.Series(numbers, dtype=pl.Float64),
        pl.Series(moments, dtype=pl.Datetime("us", "UTC")),
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


def _plain_cells(name: str, values: Sequence[Any], tell: Note) -> list[Any]:
    """The cells as types that files have, and arrays of numbers; None where missing."""
    if not _STORED.issuperset(map(type, values)):
        told: dict[str, list[Any]] = {}
        rules: dict[type, tuple[Callable[[Any], Any], str]] = {}
        plain = []
        for row, value in enumerate(values, 1):
            try:
                cell, what = _plain_cell(value, rules)
            except (TypeError, ValueError, ArithmeticError, RuntimeError, OSError) as error:
                raise MmfuseError(
                    f"column {name}: row {row} holds an object of type {type(value).__name__}, "
                    f"which cannot be a cell: {error}; give numbers, words, dates, paths, bytes or "
                    f"lists of them"
                ) from error
            plain.append(cell)
            if what:
                told.setdefault(f"{type(value).__name__} {what}", []).append(cell)
        for what, own in told.items():
            tell(
                f"column {name}: {len(own)} of {len(values)} cells are {what}, "
                f"such as {str(own[0])[:40]!r}"
            )
        values = plain
    return [None if value is None or _is_nan(value) else value for value in values]


def _plain_cell(
    cell: object, rules: dict[type, tuple[Callable[[Any], Any], str]]
) -> tuple[Any, str]:
    """A cell as a type that files have, or an array of numbers; what is said of it, "" if nothing.

    Args:
        cell: of any type.
        rules: by type, those found so far.
    """
    kind, said = None, ""
    while type(cell) not in _STORED and type(cell) is not kind:
        kind = type(cell)
        if kind not in rules:
            rules[kind] = _rule_of(kind)
        convert, what = rules[kind]
        cell, said = convert(cell), said or what
    return cell, said


def _rule_of(kind: type) -> tuple[Callable[[Any], Any], str]:
    """How objects of a type become plain cells, and what is said of it, "" if nothing."""
    names = [f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in kind.__mro__]
    for name in names:
        if name in _BY_NAME:
            return _BY_NAME[name]
    if issubclass(kind, Enum) and not issubclass(kind, _SIMPLE):
        return _name_of, "members and count as their names"
    for base, convert in _BY_TYPE:
        if issubclass(kind, base):
            return convert, ""
    if hasattr(kind, "__array__"):
        return lambda cell: _of_array(np.asarray(cell)), ""
    if issubclass(kind, Collection):
        return list, ""
    return _as_word, "objects and count as their words"


def _name_of(member: Enum) -> str:
    return member.name


def _of_array(array: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401 - any cell
    """An array of numbers, else a list of its parts; without an axis, its value."""
    if not array.ndim:
        return array[()]
    if array.dtype.kind not in "iufb":
        return list(array)
    return array if array.dtype.itemsize <= _LONGEST_NUMBER else array.astype(np.float64)


def _of_numpy(cell: np.generic) -> Any:  # noqa: ANN401 - any cell
    if isinstance(cell, np.datetime64 | np.timedelta64):
        plain = cell.item()  # a whole number where the unit is finer than Python's
        if type(plain) is int:
            plain = cell.astype(f"{cell.dtype.kind}8[us]").item()
        return str(cell) if type(plain) is int else plain  # no date of this calendar
    return float(cell) if isinstance(cell, np.longdouble) else cell.item()


def _png(image: Any) -> bytes:  # noqa: ANN401 - an image of Pillow, which need not be there
    """The bytes of a file with the picture's pixels, turned as a file would be."""
    from PIL import ImageOps  # whoever has such a cell has imported it

    buffer = io.BytesIO()
    turned = ImageOps.exif_transpose(image)
    turned.save(buffer, "PNG" if image.mode in _PNG_MODES else "TIFF")
    return buffer.getvalue()


def _as_word(cell: object) -> str:
    """The object's own words.

    Raises:
        TypeError: for an object that has none but where it lies in memory.
    """
    word = str(cell)
    if word.startswith("<") and word.endswith(">"):
        raise TypeError("it has no words")
    return word


_LONGEST_NUMBER = 8  # bytes
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_SIMPLE = (str, bytes, int, float, Decimal, date, time, timedelta)
_BY_NAME: dict[str, tuple[Callable[[Any], Any], str]] = {
    "pandas.NAType": (lambda _: None, ""),
    "pandas.NaTType": (lambda _: None, ""),
    "pandas.Timestamp": (lambda cell: cell.to_pydatetime(warn=False), ""),
    "pandas.Timedelta": (lambda cell: cell.to_pytimedelta(), ""),
    "pandas.Period": (
        lambda cell: cell.start_time.to_pydatetime(warn=False),
        "objects and count as the moments that they start",
    ),
    "PIL.Image": (_png, ""),
}
"""By package and class of libraries that are not imported for this."""
_BY_TYPE: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (np.generic, _of_numpy),
    (np.ndarray, _of_array),
    (Enum, lambda cell: cell.value),  # a member that is a number or a word itself
    (PurePath, str),
    ((bytearray, memoryview), bytes),
    ((*_SIMPLE, list, tuple, Mapping), lambda cell: cell),
    (Rational, float),
    (Set, lambda cell: sorted(cell, key=str)),
)


def _lists(name: str, cells: Sequence[Any], tell: Note) -> pl.Series:
    """Lists of values, of lists or of mappings; numbers beside words become words.

    A list is odd, and missing, where its values are nested otherwise than those of most lists.
    """
    there = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, np.ndarray) for cell in there):
        if len({cell.ndim for cell in there}) == 1:
            return _arrays(name, cells)
        cells = [None if cell is None else cell.tolist() for cell in cells]
    if _are_alike(cells):
        return pl.Series(name, cells, strict=False)
    plain = iter(_plain_cells(name, [x for c in cells if c is not None for x in c], tell))
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
    if len(types) > 1:
        values = [None if x is None else _word(x) for x in values]
    inner = column_of(f"{name}, inside its lists", values, tell)
    return _in_lists(name, inner, [None if row is None else len(row) for row in rows])


def _are_alike(cells: Sequence[Any]) -> bool:
    """Whether lists hold numbers alone, or words alone, all at one depth."""
    for _ in range(_DEEPEST):
        cells = list(chain.from_iterable(cell for cell in cells if cell is not None))
        types = set(map(type, cells))
        if types <= _NUMBERS or types <= _WORDS:
            return True
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
        return "moment" if getattr(cell, "tzinfo", None) is None else "moment of a zone"
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
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float) and value != value  # noqa: PLR0124 - NaN


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
    leaf, depth = leaf_of(column.dtype)
    if not leaf.is_float():
        return column
    return each_leaf(column, lambda x: x.fill_nan(None)) if depth else column.fill_nan(None)
