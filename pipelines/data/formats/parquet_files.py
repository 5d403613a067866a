"""Parquet and Arrow files, with the class names that Hugging Face's `datasets` stores in them."""

import json
import os
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError

_ROW_BYTES = 256  # in memory, of a sample's id, target and split, measured on ten million
_CELL_BYTES = 24


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file; columns of classes by their names where the file states them.

    Raises:
        MmfuseError: for one that would not fit into memory: a file of a few bytes may state any
            number of equal rows.
        polars.exceptions.PolarsError: for a damaged file.
    """
    lazy = pl.scan_parquet(path)
    rows, columns = int(lazy.select(pl.len()).collect().item()), len(lazy.collect_schema())
    needed = rows * (_ROW_BYTES + columns * _CELL_BYTES)
    if needed > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MmfuseError(
            f"{path} has {rows:,} rows × {columns:,} columns in {path.stat().st_size:,} bytes; "
            f"they need {needed / 2**30:,.0f} GB of memory: write fewer rows into it"
        )
    frame = pl.read_parquet(path)
    stated = pl.read_parquet_metadata(path).get("huggingface")
    return frame if stated is None else _with_class_names(frame, stated)


def read_arrow(path: Path) -> pl.DataFrame:
    """Read an Arrow (Feather) file or stream.

    Raises:
        polars.exceptions.PolarsError: for a damaged file.
    """
    with path.open("rb") as file:
        whole = file.read(6) == b"ARROW1"
    return pl.read_ipc(path) if whole else pl.read_ipc_stream(path)


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
