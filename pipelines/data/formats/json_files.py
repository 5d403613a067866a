"""JSON files: an array of objects, an object that holds one, columns, or an object a line."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from cache.errors import MmfuseError
from pipelines.data.values.mixed_cells import column_of

FORMS = (
    "a list of objects, an object a line, one object with such a list in it, or an object of "
    "columns as pandas writes it"
)
_STORED = r"^\s*(-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|[\[{].*)\s*$"  # may have been no word
_TRUTH = re.compile(rb"[:\[,]\s*(true|false)\s*[,}\]]")
_DIGITS = 4000  # of a whole number; longer ones are words
Note = Callable[[str], None]


def read_json(data: bytes, where: str, tell: Note) -> pl.DataFrame:
    """Read a `.json` file, whatever form its rows have.

    Args:
        data: the file's text in UTF-8.
        where: its name, for messages.
        tell: called with a sentence where rows were looked for inside an object, or cells are
            missing.

    Raises:
        MmfuseError: for what is no JSON, or JSON of another form.
    """
    if data.lstrip()[:1] == b"[":
        with contextlib.suppress(pl.exceptions.PolarsError):  # Python says what is wrong
            frame = pl.read_json(io.BytesIO(data), infer_schema_length=None)
            frame = _in_order(frame, data)
            names = _may_be_mixed(frame, with_truths=_TRUTH.search(data) is not None)
            return _typed(frame, names, _loads(data, where) if names else (), where, tell)
        return _table(_loads(data, where), where, tell)
    try:
        document = _decoder().decode(data.decode())
    except RecursionError:
        raise MmfuseError(f"{where} cannot be read as a table: it is nested too deeply") from None
    except ValueError as error:
        if getattr(error, "msg", "") == "Extra data":  # more than one object: one a line
            return read_lines(data, where, tell)
        raise MmfuseError(f"{where} cannot be read as a table: it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MmfuseError(f"{where} is no table: write {FORMS}")
    return _table(_rows(document, where, tell), where, tell)


def read_lines(source: bytes | Path, where: str, tell: Note) -> pl.DataFrame:
    """Read JSON lines.

    Args:
        source: a file in UTF-8, or its bytes.
        where: its name, for messages.
        tell: called with a sentence on cells that are missing.

    Raises:
        MmfuseError: for a line that is no JSON object.
    """
    with contextlib.suppress(pl.exceptions.PolarsError):  # Python says what is wrong
        lines = source if isinstance(source, Path) else io.BytesIO(source)
        frame = _in_order(pl.read_ndjson(lines, infer_schema_length=None), source)
        return _typed(frame, _may_be_mixed(frame), _objects(source, where), where, tell)
    return _table(list(_objects(source, where)), where, tell)


def _in_order(frame: pl.DataFrame, source: bytes | Path) -> pl.DataFrame:
    """The columns in the order of the first object, then by name; polars shuffles wide tables."""
    places = {name: place for place, name in enumerate(_first_names(source))}
    ranked = [(places.get(name, len(places)), name) for name in frame.columns]
    return frame.select([name for _, name in sorted(ranked)])


def _first_names(source: bytes | Path) -> list[str]:
    """Names in the first object of a file."""
    size = 1 << 16
    while True:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            start = file.read(size)
        with contextlib.suppress(ValueError):
            text = start.decode(errors="ignore")
            return list(json.JSONDecoder().raw_decode(text, text.index("{"))[0])
        if len(start) < size:
            return []
        size *= 8


def _may_be_mixed(frame: pl.DataFrame, *, with_truths: bool = False) -> list[str]:
    """Columns that may hold cells of several types, which polars makes alike.

    It makes numbers words beside words, and in an array true a 1 beside numbers.
    """

    def suspect(column: pl.Series) -> bool:
        if isinstance(column.dtype, pl.Struct):
            return any(map(suspect, column.struct.unnest().get_columns()))
        if column.dtype == pl.String:
            return bool(column.str.contains(_STORED).any())
        return with_truths and column.dtype.is_numeric()

    return [column.name for column in frame if suspect(column)]


def _typed(
    frame: pl.DataFrame,
    names: Sequence[str],
    rows: Iterable[dict[str, Any]],
    where: str,
    tell: Note,
) -> pl.DataFrame:
    """The table with some of its columns as the file has them."""
    if not names:
        return frame
    values: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name, cells in values.items():
            cells.append(row.get(name))
    found = [column_of(name, cells, _telling(where, tell)) for name, cells in values.items()]
    return frame.with_columns(found)


def _decoder() -> json.JSONDecoder:
    """A decoder that refuses NaN and Infinity, which Python writes and JSON does not have."""
    return json.JSONDecoder(parse_constant=no_constant, parse_int=_whole)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits


def _loads(data: bytes, where: str) -> list[Any]:
    try:
        rows: list[Any] = _decoder().decode(data.decode())
    except RecursionError:
        raise MmfuseError(f"{where} cannot be read as a table: it is nested too deeply") from None
    except ValueError as error:
        raise MmfuseError(f"{where} cannot be read as a table: it is not JSON: {error}") from error
    odd = next((n for n, row in enumerate(rows) if not isinstance(row, dict)), None)
    if odd is not None:
        shown = json.dumps(rows[odd])[:40]
        raise MmfuseError(f"{where} is no table: item {odd + 1} is {shown}, not an object")
    return rows


def _objects(source: bytes | Path, where: str) -> Iterator[dict[str, Any]]:
    """The object of each line that is not blank."""
    decoder = _decoder()
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as lines:
        yield from _parsed(lines, decoder, where)


def _parsed(
    lines: Iterable[bytes], decoder: json.JSONDecoder, where: str
) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = decoder.decode(line.decode())
            fault = "" if isinstance(found, dict) else "is not an object; a line is one sample"
        except RecursionError:
            fault = "is nested too deeply"
        except ValueError as error:
            fault = f"is not JSON: {error}"
        if fault:
            raise MmfuseError(f"{where} cannot be read as a table: line {number} {fault}")
        yield found


def _table(rows: Sequence[dict[str, Any]], where: str, tell: Note) -> pl.DataFrame:
    """Rows as columns, in the order in which their names first appear."""
    names = dict.fromkeys(name for row in rows for name in row)
    told = _telling(where, tell)
    return pl.DataFrame([column_of(name, [r.get(name) for r in rows], told) for name in names])


def _telling(where: str, tell: Note) -> Note:
    return lambda note: tell(f"{where}: {note}")


def no_constant(word: str) -> None:
    """Refuse NaN and Infinity, which Python writes and JSON does not have."""
    raise ValueError(f"{word} is not JSON; write null for what is missing")


def _rows(document: dict[str, Any], where: str, tell: Note) -> list[Any]:
    lists: dict[str, list[Any]] = {k: rows for k, rows in document.items() if _are_objects(rows)}
    if len(lists) == 1:
        key, rows = next(iter(lists.items()))
        others = [other for other in document if other != key]
        left = f"; {', '.join(others[:5])} beside it left out" if others else ""
        tell(f"{where}: rows are the list {key!r}{left}")
        return rows
    if len(lists) > 1:
        names = ", ".join(map(repr, lists))
        raise MmfuseError(f"{where} holds several lists of objects: {names}; write one a file")
    columns = list(document.values())
    keys: list[list[Any]] = []
    if columns and all(isinstance(column, list) for column in columns):
        keys = [list(range(len(column))) for column in columns]
    elif columns and all(isinstance(column, dict) for column in columns):
        keys = [list(column) for column in columns]
    if not keys or any(each != keys[0] for each in keys):
        raise MmfuseError(f"{where} is no table: write {FORMS}")
    return [{name: column[key] for name, column in document.items()} for key in keys[0]]


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
