"""Objects in the cells of data frames: what no file stores becomes a value that files have.

NA and NaT are missing, paths are words, images of Pillow encoded bytes, arrays lists, sets sorted
lists; other objects are their words, which is told.
"""

import io
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Rational
from pathlib import PurePath
from types import NoneType
from typing import Any

import numpy as np

from cache.errors import MmfuseError

_STORED = frozenset(
    (NoneType, bool, int, float, str, bytes, list, tuple, dict, date, datetime, time, timedelta)
)
"""Types of cells that files have too."""
Note = Callable[[str], None]


def plain_cells(name: str, values: Sequence[Any], tell: Note) -> list[Any]:
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
    return [None if value is None or is_nan(value) else value for value in values]


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
    """The bytes of a file with the image's pixels, turned as a file would be."""
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
        "objects and count as the datetimes they start at",
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


def is_nan(value: object) -> bool:
    """Whether a value is NaN."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float) and value != value  # noqa: PLR0124 - NaN
