"""A dataset of the Hugging Face hub (`hf:org/name`) as a Dataset, by the package `datasets`."""

import importlib
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError
from pipelines.samples import Dataset
from pipelines.tables import Note, TableOptions, assemble


def load_hub(name: str, options: TableOptions, note: Note | None = None) -> Dataset:
    """A dataset of the Hugging Face hub, all its splits, through the package `datasets`.

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
    frames = []
    for word, part in loaded.items():
        media = {
            column: type(feature)(decode=False)
            for column, feature in part.features.items()
            if type(feature).__name__ in ("Image", "Audio")
        }
        for column, feature in media.items():
            part = part.cast_column(column, feature)  # undecoded: as its bytes
        frames.append(part.to_polars().with_columns(pl.lit(word).alias("split")))
    frame = pl.concat(frames, how="diagonal_relaxed")
    if set(loaded) < {"train", "validation", "test"} and options.split is None:
        frame = frame.drop("split")  # one that lacks a side is dealt anew
    return assemble(frame, Path(name.replace("/", "-")), None, options, note)
