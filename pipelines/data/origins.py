"""Origin of the user's own data, stored with its features so that a name reopens it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cache.errors import MmfuseError
from cache.format.streams import StreamInfo
from cache.layout import DatasetPaths, Home
from cache.storage.objects import DamagedError, get_record, put_record
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
    columns = {name: list(own) for name, own in dataset.columns.items()}
    origin = {**dataset.origin, "columns": columns, "types": types}
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


def sources(home: Home, dataset: str, infos: Iterable[StreamInfo]) -> dict[str, dict[str, Any]]:
    """By modality, `columns` that it was made of and `types`, how each was read; as JSON.

    Of the data that streams are extracted from now: a run records them when it is trained. What a
    fitted encoder learned comes first.

    Args:
        home: where the features are.
        dataset: its name.
        infos: its streams.
    """
    infos, paths = list(infos), DatasetPaths.of(home, dataset)
    origin = _read(paths) or {}
    columns = {part["name"]: part["columns"] for part in _typed(origin)}
    columns |= origin.get("columns", {})
    types = dict(origin.get("types", {}))
    for info in infos:
        if "fitted_on" not in info.fields:
            continue
        fitted = get_record(paths.stream(info.key.label).fitted) or {}
        learned = _names(fitted.get("state")) if info.kind == "tabular" else []
        if learned:
            columns[info.key.modality] = learned
        if read := fitted.get("columns") or _types_of_state(fitted.get("state")):
            types[info.key.modality] = read
    found: dict[str, dict[str, Any]] = {}
    for what, known in (("columns", columns), ("types", types)):
        for name in dict.fromkeys(info.key.modality for info in infos):
            if known.get(name):
                found.setdefault(name, {})[what] = known[name]
    return found


def _typed(origin: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    options = origin.get("options", {})
    return list(options.get("modalities", ()))


def _types_of_state(state: object) -> dict[str, dict[str, Any]]:
    """How `tabular` reads its columns, by its state alone.

    Encoders were fitted before it was recorded; numbers have a decimal point then, and dates are in
    ISO form.
    """
    if not _names(state):
        return {}
    dates = {True: "iso", False: "iso date"}
    return {
        str(column["name"]): {"kind": "date", "date": dates[bool(column["clock"])]}
        if column["kind"] == "date"
        else {"kind": column["kind"]}
        for column in state["columns"]  # type: ignore[index]  # `_names` has looked
    }


def _names(state: object) -> list[str]:
    """Names of the columns in the state of `tabular`; [] for the state of another encoder."""
    listed = state.get("columns") if isinstance(state, dict) else None
    if not isinstance(listed, list) or not all(isinstance(c, dict) and "name" in c for c in listed):
        return []
    return [str(column["name"]) for column in listed]


def _read(paths: DatasetPaths) -> dict[str, Any] | None:
    try:
        found = get_record(paths.origin)
    except DamagedError:  # `cache verify` names it; the next extract of the file writes it again
        return None
    fields = ("word", "options", "columns", "types")
    return None if found is None else {name: found[name] for name in fields if name in found}


def _options(words: Mapping[str, Any]) -> TableOptions:
    parts = [
        ModalitySpec(part["name"], part["kind"], tuple(part["columns"]))
        for part in words["modalities"]
    ]
    return TableOptions(**{**words, "modalities": tuple(parts)})
