"""Read a dataset of the Hugging Face hub (`hf:org/name`) with the package `datasets`."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from cache.errors import MmfuseError
from pipelines.data import splits
from pipelines.data.dataset import Dataset
from pipelines.data.layouts.split_tables import joined
from pipelines.data.tables import Note, TableOptions, assemble


def load_hub(name: str, options: TableOptions, note: Note | None = None) -> Dataset:
    """Load all splits of a dataset of the Hugging Face hub.

    Raises:
        MmfuseError: where the package is not installed, or the hub has no such dataset.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        message = f"hf:{name} needs the package datasets; run: pip install datasets"
        raise MmfuseError(message) from error
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError) as error:  # not found, offline, needs a configuration
        raise MmfuseError(f"hf:{name} cannot be loaded: {error}") from error
    tables = [(word if word in splits.WORDS else "", _frame(part)) for word, part in loaded.items()]
    frame = joined(tables, options.target, note or (lambda _: None))
    store = name.replace("/", "-")
    return assemble(frame, Path(store), None, replace(options, name=options.name or store), note)


def _frame(part: Any) -> pl.DataFrame:  # noqa: ANN401 - the package is optional
    """One split with media as their bytes and classes by their names."""
    words, media = {}, []
    for column, feature in part.features.items():
        kind = type(feature).__name__
        if kind in ("Image", "Audio"):
            part = part.cast_column(column, type(feature)(decode=False))
            media.append(column)
        elif kind == "ClassLabel":
            words[column] = dict(enumerate(feature.names))
    frame: pl.DataFrame = part.to_polars()
    named = (
        pl.col(column).replace_strict(names, default=None, return_dtype=pl.String)
        for column, names in words.items()
    )
    encoded = (pl.Series(name, map(_encoded, frame[name]), pl.Binary) for name in media)
    return frame.with_columns(*named, *encoded)


def _encoded(cell: Mapping[str, Any] | None) -> bytes | None:
    """The bytes of an image or audio cell, which the hub stores inline or names by a path."""
    if cell is None:
        return None
    data: bytes | None = cell["bytes"]
    return Path(cell["path"]).read_bytes() if data is None and cell["path"] else data
