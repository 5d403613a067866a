"""JSON files: an array of objects, an object that holds one, columns, or an object a line."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from cache.errors import MmfuseError

FORMS = (
    "a list of objects, an object a line, one object with such a list in it, or an object of "
    "columns as pandas writes it"
)


def read_json(data: str | bytes, where: str, tell: Callable[[str], None]) -> pl.DataFrame:
    """Read a `.json` file, whatever form its rows have.

    Args:
        data: the file's text.
        where: its name, for messages.
        tell: called with a sentence where rows were looked for inside an object.

    Raises:
        MmfuseError: for JSON of another form.
        polars.exceptions.PolarsError: for what is no JSON.
    """
    encoded = data.encode() if isinstance(data, str) else data
    if encoded.lstrip()[:1] == b"[":
        return pl.read_json(io.BytesIO(encoded), infer_schema_length=None)
    try:
        document = json.loads(encoded, parse_constant=no_constant)
    except ValueError as error:
        if getattr(error, "msg", "") == "Extra data":  # more than one object: one a line
            return read_lines(encoded)
        raise MmfuseError(f"{where} cannot be read as a table: it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MmfuseError(f"{where} is no table: write {FORMS}")
    rows = _rows(document, where, tell)
    return pl.read_json(io.BytesIO(json.dumps(rows).encode()), infer_schema_length=None)


def read_lines(source: str | bytes) -> pl.DataFrame:
    """Read JSON lines: a path, or the bytes of a file.

    Raises:
        polars.exceptions.PolarsError: for what is no JSON object a line.
    """
    lines = io.BytesIO(source) if isinstance(source, bytes) else source
    return pl.read_ndjson(lines, infer_schema_length=None)


def bad_lines(text: str) -> Iterator[str]:
    """Describe the lines that are no JSON objects."""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = json.loads(line, parse_constant=no_constant) if line.strip() else {}
        except ValueError as error:
            yield f"line {number} is not JSON: {error}"
            continue
        if not isinstance(found, dict):
            yield f"line {number} is not an object; a line is one sample: {{'text': 'a word'}}"


def no_constant(word: str) -> None:
    """Refuse NaN and Infinity, which Python writes and JSON does not have."""
    raise ValueError(f"{word} is not JSON; write null for what is missing")


def _rows(document: dict[str, Any], where: str, tell: Callable[[str], None]) -> list[Any]:
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
