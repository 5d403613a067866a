"""Parquet and Arrow files, with the class names that Hugging Face's `datasets` stores in them."""

import json
from pathlib import Path

import polars as pl


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file; columns of classes by their names where the file states them.

    Raises:
        polars.exceptions.PolarsError: for a damaged file.
    """
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
