"""Read CSV, TSV, Parquet and JSON-lines files as data frames; errors name the line."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_SEPARATORS = ";\t|"  # tried for a .csv whose header holds no comma
_LOOK = 1 << 16  # bytes searched for the header


def read_table(path: Path) -> pl.DataFrame:
    """Read a CSV, TSV, Parquet or JSON-lines file; cells of CSV are strings.

    UTF-8 with or without a byte-order mark, UTF-16 with one. A CSV whose header holds no comma may
    be separated by semicolons, tabs or bars, as spreadsheets save it.

    Raises:
        MmfuseError: for a file that is not there, cannot be read, or is of another kind.
    """
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "no such file"
        raise MmfuseError(f"{what}: {path} (looked for {path.absolute()})")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        hint = "; one JSON object a line, in a .jsonl" if suffix == ".json" else ""
        raise MmfuseError(f"{path}: a table ends in {', '.join(SUFFIXES)}{hint}")
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path)
        source = _in_utf8(path)
        if suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(source, infer_schema_length=None)
        separator = "\t" if suffix == ".tsv" else _separator(source)
        _check_header(source, separator, path)
        return pl.read_csv(source, infer_schema=False, separator=separator)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, csv.Error, OSError) as error:
        raise MmfuseError(f"{path} cannot be read as a table: {_why(path, error)}") from error


def separator_of(path: Path) -> str:
    """The mark between the cells of a CSV; a comma for other kinds of files."""
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return "\t"
    return _separator(_in_utf8(path)) if suffix == ".csv" else ","


def _in_utf8(path: Path) -> Path | bytes:
    """The path where polars can read it, else its text as UTF-8 without a byte-order mark."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return path.read_bytes().decode("utf-16").encode()
    if start.startswith(codecs.BOM_UTF8):
        return path.read_bytes()[len(codecs.BOM_UTF8) :]
    return path


def _separator(source: Path | bytes) -> str:
    header = _start(source).split("\n", 1)[0]
    found = [mark for mark in _SEPARATORS if mark in header]
    return found[0] if len(found) == 1 and "," not in header else ","


def _check_header(source: Path | bytes, separator: str, path: Path) -> None:
    """Refuse two columns of one name, since which one is meant would be a guess."""
    header = next(csv.reader(io.StringIO(_start(source)), delimiter=separator), [])
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise MmfuseError(f"{path}: two columns are named {twice[0]!r}; rename one of them")


def _start(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return source[:_LOOK].decode(errors="replace")
    with source.open("rb") as file:
        return file.read(_LOOK).decode(errors="replace")


def _why(path: Path, error: Exception) -> str:
    """The error in terms of the file, with its line where that can be found."""
    message = " ".join(str(error).split("\n", 1)[0].split())
    if path.suffix.lower() == ".parquet" or isinstance(error, OSError):
        return message
    try:
        text = path.read_bytes()
        if not text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text.decode()
    except UnicodeDecodeError as fault:
        line = text[: fault.start].count(b"\n") + 1
        return f"line {line} is not UTF-8 (byte 0x{text[fault.start]:02x}); save it as UTF-8"
    faults = _bad_objects(text) if path.suffix.lower() in (".jsonl", ".ndjson") else _ragged(text)
    return next(faults, message)


def _bad_objects(text: bytes) -> Iterator[str]:
    for number, line in enumerate(text.decode("utf-8-sig").splitlines(), 1):
        try:
            found = json.loads(line, parse_constant=_no_constant) if line.strip() else {}
        except ValueError as error:
            yield f"line {number} is not JSON: {error}"
            continue
        if not isinstance(found, dict):
            yield f"line {number} is not an object; a line is one sample: {{'text': 'a word'}}"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON; write null for what is missing")


def _ragged(text: bytes) -> Iterator[str]:
    """Describe the records of a CSV that have more cells than its header."""
    source = _separator(text)
    words = text.decode("utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    records = csv.reader(io.StringIO(words, newline=""), delimiter=source)
    try:
        width = len(next(records, []))
        for record in records:
            if len(record) > width:
                yield f"line {records.line_num} has {len(record)} cells, the header {width}"
    except csv.Error:
        return  # a cell too long for Python's csv module
