"""Parquet and Arrow files, with the class names that Hugging Face's `datasets` stores in them."""

import base64
import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError

_ROW_BYTES = 256  # in memory, of a sample's id, target and split, measured on ten million
_CELL_BYTES = 24
_SCHEMA = "ARROW:schema"  # key of the Arrow schema in the metadata of a Parquet file
_LENGTH = 4  # bytes of a length, little-endian
_ARROW, _PARQUET = b"ARROW1", b"PAR1"  # first and last bytes of a file
_OFFSET = re.compile(rb"\x06\0\0\0[+-]\d\d:\d\d\0")  # a time zone such as +05:30, as Arrow has it
_UTC = b"\x03\0\0\0UTC\0\0\0\0"


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file; columns of classes by their names where the file states them.

    Raises:
        MmfuseError: for one that would not fit into memory: a file of a few bytes may state any
            number of equal rows; or with a type of column that polars does not know.
        polars.exceptions.PolarsError: for a damaged file.
    """
    metadata = pl.read_parquet_metadata(path)
    source = _parquet_in_utc(path, metadata.get(_SCHEMA, ""))
    lazy = pl.scan_parquet(source)
    with _known_types(path):
        rows, columns = int(lazy.select(pl.len()).collect().item()), len(lazy.collect_schema())
    needed = rows * (_ROW_BYTES + columns * _CELL_BYTES)
    if needed > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MmfuseError(
            f"{path} has {rows:,} rows × {columns:,} columns in {path.stat().st_size:,} bytes; "
            f"they need {needed / 2**30:,.0f} GB of memory: write fewer rows into it"
        )
    frame = pl.read_parquet(source)
    stated = metadata.get("huggingface")
    return frame if stated is None else _with_class_names(frame, stated)


def read_arrow(path: Path) -> pl.DataFrame:
    """Read an Arrow (Feather) file or stream.

    Raises:
        MmfuseError: for one with a type of column that polars does not know.
        polars.exceptions.PolarsError: for a damaged file.
    """
    with path.open("rb") as file:
        whole = file.read(len(_ARROW)) == _ARROW
    source = _arrow_in_utc(path, whole=whole)
    with _known_types(path):
        return pl.read_ipc(source) if whole else pl.read_ipc_stream(source)


@contextlib.contextmanager
def _known_types(path: Path) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PanicException as error:  # which polars raises for them, no PolarsError
        raise MmfuseError(
            f"{path} cannot be read as a table, a type of its columns is not known: "
            f"{' '.join(str(error).split())[:200]}; write that column in another type"
        ) from error


def _in_utc(schema: bytes) -> bytes:
    """An Arrow schema of the same length, whose time zones that are offsets are UTC.

    Moments are stored in UTC whatever their zone; polars knows zones by name, and panics at +05:30.
    """
    return _OFFSET.sub(_UTC, schema)


def _parquet_in_utc(path: Path, stated: str) -> Path | io.BytesIO:
    """The file, or its bytes with another Arrow schema in its footer."""
    try:
        schema = base64.b64decode(stated + "=" * (-len(stated) % 4))
    except ValueError:  # polars says what is wrong with it
        return path
    if (plain := _in_utc(schema)) == schema:
        return path
    data = path.read_bytes()
    end = len(data) - len(_PARQUET) - _LENGTH
    begin = end - int.from_bytes(data[end : end + _LENGTH], "little")
    footer = data[begin:].replace(stated.encode(), base64.b64encode(plain))
    return io.BytesIO(data[:begin] + footer)


def _arrow_in_utc(path: Path, *, whole: bool) -> Path | io.BytesIO:
    """The file, or its bytes with other schemas in its first message and, of a file, its footer."""
    with path.open("rb") as file:
        start = file.read(8 if whole else 0) + file.read(2 * _LENGTH)
        start += file.read(max(0, int.from_bytes(start[-_LENGTH:], "little", signed=True)))
        if (plain := _in_utc(start)) == start:
            return path
        data = plain + file.read()
    if whole:
        end = len(data) - len(_ARROW) - _LENGTH
        begin = end - int.from_bytes(data[end : end + _LENGTH], "little")
        data = data[:begin] + _in_utc(data[begin:])
    return io.BytesIO(data)


def _with_class_names(frame: pl.DataFrame, stated: str) -> pl.DataFrame:
    """Class numbers as names; unknown numbers, which stand for no label, are missing."""
    try:
        features = json.loads(stated)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return frame
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) else None
        known = column in frame.columns and frame[column].dtype.is_integer()
        if known and isinstance(names, list) and feature.get("_type") == "ClassLabel":
            words = {number: str(name) for number, name in enumerate(names)}
            named = frame[column].replace_strict(words, default=None, return_dtype=pl.String)
            frame = frame.with_columns(named)
    return frame
