"""Origin of the user's own data, stored with its features so that a name reopens it."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.storage.objects import DamagedError, get_record, put_record
from pipelines.data.column_types import ColumnType
from pipelines.data.columns import ModalitySpec
from pipelines.data.dataset import Dataset
from pipelines.data.tables import TableOptions


def with_origin(dataset: Dataset, word: str, options: TableOptions) -> Dataset:
    """The dataset with its origin (word and options); paths become absolute."""
    place = word if word.startswith("hf:") else str(Path(word).expanduser().absolute())
    if options.root is not None:
        options = replace(options, root=str(Path(options.root).expanduser().absolute()))
    return replace(dataset, origin={"word": place, "options": asdict(options)})


def save_origin(home: Home, dataset: Dataset) -> None:
    """Store a dataset's origin beside its features.

    Raises:
        MmfuseError: if the store cannot be written.
    """
    paths = DatasetPaths.of(home, dataset.name)
    if dataset.origin is None:
        return
    types = {
        modality: {name: kind.record() for name, kind in known.items()}
        for modality, known in dataset.column_types.items()
    }
    origin = {**dataset.origin, "types": types}
    if _read(paths) != origin:
        put_record(paths.origin, origin, paths.scratch)


def load_origin(home: Home, name: str, typed: TableOptions) -> tuple[str, TableOptions] | None:
    """The word and options that a named dataset was read with; typed options take precedence.

    None where there are no such features, or their origin is not recorded.
    """
    try:
        found = _read(DatasetPaths.of(home, name))
    except MmfuseError:  # not a dataset name
        return None
    if found is None:
        return None
    options = _options(found["options"])
    default = asdict(TableOptions())
    given = {field: value for field, value in vars(typed).items() if value != default[field]}
    return found["word"], replace(options, **given)


def load_types(home: Home, name: str) -> dict[str, dict[str, ColumnType]]:
    """By modality and column, how the cells of a named dataset were read."""
    found = _read(DatasetPaths.of(home, name)) or {}
    return {
        modality: {column: ColumnType.from_record(kind) for column, kind in known.items()}
        for modality, known in found.get("types", {}).items()
    }


def _read(paths: DatasetPaths) -> dict[str, Any] | None:
    try:
        found = get_record(paths.origin)
    except DamagedError:  # `cache verify` names it; the next extract of the file writes it again
        return None
    fields = ("word", "options", "types")
    return None if found is None else {name: found[name] for name in fields if name in found}


def _options(words: Mapping[str, Any]) -> TableOptions:
    parts = [
        ModalitySpec(part["name"], part["kind"], tuple(part["columns"]))
        for part in words["modalities"]
    ]
    return TableOptions(**{**words, "modalities": tuple(parts)})
