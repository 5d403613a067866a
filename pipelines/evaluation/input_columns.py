"""Input columns: match the columns of new samples to a run's modalities."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo
from cache.layout import Home
from cache.runs import RunRecord
from cache.samples import Kind
from pipelines.data import columns, origins
from pipelines.data.columns import ModalityCells, ModalitySpec
from pipelines.data.formats.nested import flattened
from pipelines.data.tables import SampleIds, TableOptions, sample_ids
from pipelines.data.values.column_types import ColumnType
from pipelines.data.values.mixed_cells import is_mixed, plain_columns


@dataclass(frozen=True)
class MatchedColumns:
    """Cells by modality, and the columns that did not match.

    Attributes:
        cells: by modality; modalities without a column are left out.
        lacking: modalities without a column, and columns that a table lacks, as text.
        unused: columns of the samples that nothing uses.
        notes: one sentence for every column with cells that count as missing.
        instead: one sentence for every modality that is read from a column of its name, and was
            made of another one in training.
    """

    cells: dict[str, pl.Series]
    lacking: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


def match_columns(
    samples: pl.DataFrame,
    kinds: Mapping[str, Kind],
    made_of: Mapping[str, tuple[str, ...]],
    types: Mapping[str, Mapping[str, ColumnType]] | None = None,
    ids: SampleIds | None = None,
) -> MatchedColumns:
    """Find the columns of a run's modalities.

    A modality is made of the columns that it was made of in training, or else of the column of its
    name. A table whose columns are not recorded takes all that are left.

    Args:
        samples: one row a sample.
        kinds: by modality.
        made_of: by modality, columns it was made of where known, see `sources_of`.
        types: by modality, how its columns were read in training.
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
    instead = tuple(
        f"{name} is read from the column {own[0]!r}; in training it was {', '.join(made_of[name])}"
        for name, own in found.items()
        if own and kinds[name] != "tabular" and own[0] not in made_of.get(name, own)
    )
    cells = {name: each.cells for name, each in read.items()}
    return MatchedColumns(cells, tuple(lacking), rest, notes, instead)


def sources_of(
    home: Home, record: RunRecord, infos: Mapping[str, StreamInfo]
) -> tuple[dict[str, tuple[str, ...]], dict[str, dict[str, ColumnType]]]:
    """By modality, the columns that it was made of; and by column, how its cells were read.

    As the run recorded them; of a run of an older version, as its dataset is extracted now.

    Args:
        home: where the features are.
        record: the run.
        infos: its streams by name.
    """
    modalities = {info.key.modality for info in infos.values()}
    known = record.sources or origins.sources(home, record.dataset, infos.values())
    types = {
        name: {column: ColumnType.from_record(kind) for column, kind in of["types"].items()}
        for name, of in known.items()
        if "types" in of and name in modalities
    }
    columns = {name: tuple(of["columns"]) for name, of in known.items() if "columns" in of}
    return {name: own for name, own in columns.items() if name in modalities}, types


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


def _own(
    samples: pl.DataFrame, name: str, kind: Kind, known: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The columns of one modality; () if there are none."""
    there = samples.columns
    own = tuple(column for column in known or () if column in there)
    if own and (kind == "tabular" or own == known):
        return own
    if name in there and (kind != "tabular" or _is_record(samples[name])):
        return (name,)
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
