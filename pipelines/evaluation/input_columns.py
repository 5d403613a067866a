"""Input columns: match the columns of new samples to a run's modalities."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo
from cache.layout import DatasetPaths, Home
from cache.samples import Kind
from cache.storage.objects import get_record
from pipelines.data import columns, origins
from pipelines.data.column_types import ColumnType
from pipelines.data.columns import ModalityCells, ModalitySpec
from pipelines.data.formats.nested import flattened
from pipelines.data.mixed_cells import is_mixed, plain_columns
from pipelines.data.tables import SampleIds, TableOptions, sample_ids


@dataclass(frozen=True)
class MatchedColumns:
    """Cells by modality, and the columns that did not match.

    Attributes:
        cells: by modality; modalities without a column are left out.
        lacking: modalities without a column, and columns that a table lacks, as text.
        unused: columns of the samples that nothing uses.
        notes: one sentence for every column with cells that count as missing.
    """

    cells: dict[str, pl.Series]
    lacking: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()


def match_columns(
    samples: pl.DataFrame,
    kinds: Mapping[str, Kind],
    made_of: Mapping[str, tuple[str, ...]],
    types: Mapping[str, Mapping[str, ColumnType]] | None = None,
    ids: SampleIds | None = None,
) -> MatchedColumns:
    """Find the columns of a run's modalities.

    A modality is made of the column of its name, or of the columns that it was made of in
    training. A table whose columns are not recorded takes all that are left.

    Args:
        samples: one row a sample.
        kinds: by modality.
        made_of: by modality, columns it was made of where known, see `source_columns`.
        types: by modality, how its columns were read in training, see `source_types`.
        ids: names of the rows, for notes, and the column that holds them.

    Raises:
        MmfuseError: where no modality has a column.
    """
    if not len(samples):
        raise MmfuseError("the samples have no rows")
    samples = plain_columns(flattened(samples, "the samples", keep=kinds))
    found = {name: _own(samples, name, kind, made_of.get(name)) for name, kind in kinds.items()}
    words = None if ids is None else ids.words
    taken = {ids.column if ids else "id"} | {column for own in found.values() for column in own}
    rest = tuple(column for column in samples.columns if column not in taken)
    for name, kind in kinds.items():
        if kind == "tabular" and not found[name] and name not in made_of:
            found[name], rest = rest, ()
    if not any(found.values()):
        needed = [f"{name} from {', '.join(own)}" for name, own in made_of.items()]
        wanted = "; ".join([", ".join(kinds), *needed])
        raise MmfuseError(
            f"the samples have none of the run's modalities ({wanted}); their "
            f"columns are {', '.join(samples.columns) or 'none'}"
        )
    lacking: list[str] = []
    for name, own in found.items():
        nested = own == (name,)
        gone = [column for column in made_of.get(name, ()) if column not in own and not nested]
        lacking += [f"{column} of {name}" for column in gone] if own else [name]
    read = {
        name: _read(samples, ModalitySpec(name, kinds[name], own), (types or {}).get(name), words)
        for name, own in found.items()
        if own
    }
    notes = tuple(note for each in read.values() for note in each.notes)
    return MatchedColumns({k: each.cells for k, each in read.items()}, tuple(lacking), rest, notes)


def source_columns(
    home: Home, dataset: str, infos: Mapping[str, StreamInfo]
) -> dict[str, tuple[str, ...]]:
    """By modality, the columns that it was made of: recorded by a fitted encoder or the data set.

    Args:
        home: where the features are.
        dataset: its name.
        infos: streams by name.
    """
    known = {}
    recorded = origins.load_origin(home, dataset, TableOptions())
    for part in recorded[1].modalities if recorded else ():
        known[part.name] = part.columns
    paths = DatasetPaths.of(home, dataset)
    for info in infos.values():
        if info.kind == "tabular" and "fitted_on" in info.fields:
            fitted = get_record(paths.stream(info.key.label).fitted) or {}
            names = _names(fitted.get("state"))
            if names:
                known[info.key.modality] = names
    modalities = {info.key.modality for info in infos.values()}
    return {name: own for name, own in known.items() if name in modalities}


def all_columns(
    made_of: Mapping[str, tuple[str, ...]], types: Mapping[str, Mapping[str, ColumnType]]
) -> dict[str, tuple[str, ...]]:
    """By modality, every column of its table in training, also those that told nothing."""
    names = dict.fromkeys([*made_of, *types])
    return {m: tuple(dict.fromkeys([*made_of.get(m, ()), *types.get(m, ())])) for m in names}


def ids_of(
    home: Home, dataset: str, infos: Mapping[str, StreamInfo], samples: pl.DataFrame
) -> SampleIds:
    """Names of new samples, in the words that the same cells had in training.

    Args:
        home: where the features are.
        dataset: its name.
        infos: streams by name, at least one.
        samples: the rows.
    """
    recorded = origins.load_origin(home, dataset, TableOptions())
    info = next(iter(infos.values()))
    known = FeatureStore(home, dataset).samples(info).ids.tolist() if info.snapshot else []
    return sample_ids(samples, recorded[1].id if recorded else None, known)


def source_types(
    home: Home, dataset: str, infos: Mapping[str, StreamInfo]
) -> dict[str, dict[str, ColumnType]]:
    """By modality and column, how cells were read when features were extracted.

    It is stored with what a fitted encoder learned, and with the origin of the data; of encoders
    fitted before it was, numbers have a decimal point and dates are in ISO form.
    """
    modalities = {info.key.modality for info in infos.values()}
    stored = origins.load_types(home, dataset)
    found = {name: types for name, types in stored.items() if name in modalities}
    paths = DatasetPaths.of(home, dataset)
    for info in infos.values():
        if "fitted_on" not in info.fields:
            continue
        fitted = get_record(paths.stream(info.key.label).fitted) or {}
        if isinstance(recorded := fitted.get("columns"), dict):
            types = {name: ColumnType.from_record(kind) for name, kind in recorded.items()}
        else:
            types = _types_of_state(fitted.get("state"))
        if types:
            found[info.key.modality] = types
    return found


def _types_of_state(state: object) -> dict[str, ColumnType]:
    """How `tabular` reads its columns, by its state alone."""
    if not _names(state):
        return {}
    dates = {True: "iso", False: "iso date"}
    return {
        str(column["name"]): ColumnType("date", date=dates[bool(column["clock"])])
        if column["kind"] == "date"
        else ColumnType(column["kind"])
        for column in state["columns"]  # type: ignore[index]  # `_names` has looked
    }


def _names(state: object) -> tuple[str, ...]:
    """Names of the columns in the state of `tabular`; () for the state of another encoder."""
    listed = state.get("columns") if isinstance(state, dict) else None
    if not isinstance(listed, list) or not all(isinstance(c, dict) and "name" in c for c in listed):
        return ()
    return tuple(str(column["name"]) for column in listed)


def _own(
    samples: pl.DataFrame, name: str, kind: Kind, known: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The columns of one modality; () if there are none."""
    there = samples.columns
    if name in there and (kind != "tabular" or _is_record(samples[name])):
        return (name,)
    own = tuple(column for column in known or () if column in there)
    if own and (kind == "tabular" or own == known):
        return own
    if kind == "tabular":
        return (name,) if known is None and name in there else ()
    own = tuple(column for column in there if columns.as_name(column) == name)
    return (own or tuple(column for column in there if _ascii_name(column) == name))[:1]


def _is_record(column: pl.Series) -> bool:
    return isinstance(column.dtype, pl.Struct) and not is_mixed(column)


def _ascii_name(column: str) -> str:
    """The name that features made before names had all letters gave to a modality."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", column).lstrip("._-") or "column"


def _read(
    samples: pl.DataFrame,
    part: ModalitySpec,
    types: Mapping[str, ColumnType] | None,
    ids: pl.Series | None,
) -> ModalityCells:
    nested = part.kind == "tabular" and part.columns == (part.name,)
    if nested and _is_record(samples[part.name]):
        fields = plain_columns(samples[part.name].struct.unnest())
        known = [name for name in fields.columns if not types or name in types]
        part = ModalitySpec(part.name, part.kind, tuple(known or fields.columns))
        gone = samples[part.name].is_null()
        found = columns.cells(fields, part, types=types, ids=ids)
        return replace(found, cells=found.cells.set(gone, None))
    return columns.cells(samples, part, types=types, ids=ids)
