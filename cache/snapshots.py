"""Snapshots of a dataset's samples, to which its streams refer.

Imported features may bring modalities that the dataset's own table lacks. The rows are the same, so
all these streams refer to the snapshot that lists every modality.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format.generations import SCHEMA, current_generation
from cache.layout import DatasetPaths, StreamPaths
from cache.samples import Modality, Samples, Task
from cache.storage.objects import DamagedError, content_digest, get_record, put, put_record

if TYPE_CHECKING:
    import polars as pl


def publish_snapshot(samples: Samples, paths: DatasetPaths) -> str:
    """Write the samples as a snapshot with every known modality; returns its id.

    Streams with the same rows under an older snapshot are moved to this one.
    """
    samples = with_known_modalities(samples, paths)
    name = write_snapshot(samples, paths)
    if any(seen[1] != name for _, seen in _pointers(paths)):
        repoint_streams(samples, paths)
    return name


def with_known_modalities(samples: Samples, paths: DatasetPaths, *more: Modality) -> Samples:
    """The samples with every modality that streams of the same rows have.

    Known modalities keep their order, so that the same rows give the same snapshot in whatever
    order the modalities were added.
    """
    core, known = core_id(samples), dict[str, Modality]()
    for snapshot in sorted({seen[1] for _, seen in _pointers(paths)}):
        with contextlib.suppress(DamagedError):  # reported by `cache verify`
            other, modalities = snapshot_modalities(snapshot, paths)
            if other == core and len(modalities) > len(known):
                known = {m.name: m for m in modalities} | known
            elif other == core:
                known |= {m.name: m for m in modalities if m.name not in known}
    known |= {m.name: m for m in samples.modalities}
    for modality in more:
        known.setdefault(modality.name, modality)
    modalities = tuple(known.values())
    return samples if modalities == samples.modalities else replace(samples, modalities=modalities)


def repoint_streams(samples: Samples, paths: DatasetPaths) -> None:
    """Move every stream with the same rows to the snapshot of these samples."""
    name, core = write_snapshot(samples, paths), core_id(samples)
    for stream, (generation, snapshot) in _pointers(paths):
        if snapshot == name:
            continue
        with contextlib.suppress(DamagedError):
            other, modalities = snapshot_modalities(snapshot, paths)
            if other == core and set(modalities) <= set(samples.modalities):
                record = {"schema": SCHEMA, "generation": generation, "snapshot": name}
                put_record(stream.current, record, paths.scratch)


def _pointers(paths: DatasetPaths) -> Iterator[tuple[StreamPaths, tuple[int, str]]]:
    for folder in sorted(p for p in paths.streams.glob("*/*") if p.is_dir()):
        stream = paths.stream(f"{folder.parent.name}/{folder.name}")
        with contextlib.suppress(DamagedError):
            seen = current_generation(stream)
            if seen is not None:
                yield stream, seen


def snapshot_id(samples: Samples) -> str:
    """16 hex digits that change with any id, split, target, group, task or modality, or order."""
    modalities = json.dumps(_description(samples)["modalities"])
    return hashlib.blake2b((core_id(samples) + modalities).encode()).hexdigest()[:16]


def core_id(samples: Samples) -> str:
    """Like `snapshot_id` without the modalities: equal for snapshots with the same rows."""
    description = {k: v for k, v in _description(samples).items() if k != "modalities"}
    state = hashlib.blake2b(json.dumps(description, sort_keys=True).encode())
    for column in (samples.ids, samples.splits, samples.groups):
        words = [] if column is None else [str(word) for word in column.tolist()]
        state.update(str(None if column is None else len(words)).encode())
        state.update("\0".join(words).encode())
    state.update(str((samples.targets.dtype.str, samples.targets.shape)).encode())
    state.update(np.ascontiguousarray(samples.targets).tobytes())
    return state.hexdigest()[:16]


def same_splits(one: str, other: str, paths: DatasetPaths) -> bool:
    """Whether two snapshots differ at most in rows of no split: runs of one are of the other.

    False where one of them is gone.

    Raises:
        DamagedError: if a record is not what was written.
    """
    if one == other:
        return True
    cores = []
    for name in (one, other):
        if not (paths.snapshots / f"{name}.json").exists():
            return False
        samples = read_snapshot(name, paths)
        cores.append(core_id(samples.take(np.flatnonzero(samples.splits != ""))))
    return cores[0] == cores[1]


def write_snapshot(samples: Samples, paths: DatasetPaths) -> str:
    """Write the samples as parquet and JSON unless they exist; returns the snapshot's id."""
    import polars as pl

    name = snapshot_id(samples)
    record = paths.snapshots / f"{name}.json"
    if record.exists():
        return name
    columns = {
        "id": pl.Series(samples.ids.tolist(), dtype=pl.String),
        "split": pl.Series(samples.splits.tolist(), dtype=pl.String),
        "target": pl.Series(values=samples.targets),
    }
    if samples.groups is not None:
        columns["group"] = pl.Series(samples.groups.tolist(), dtype=pl.String)
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer, compression="zstd", statistics=False)
    put(paths.snapshots / f"{name}.parquet", buffer.getbuffer(), paths.scratch)
    digest = content_digest(buffer.getbuffer())
    about = {**_description(samples), "core": core_id(samples), "table": digest}
    put_record(record, about, paths.scratch)
    return name


def snapshot_modalities(name: str, paths: DatasetPaths) -> tuple[str, tuple[Modality, ...]]:
    """Core id and modalities of a snapshot, without its rows; ("", ()) if there is none.

    Raises:
        DamagedError: if its record is not what was written.
    """
    record = get_record(paths.snapshots / f"{name}.json")
    if record is None:
        return "", ()
    return record["core"], tuple(Modality(m, kind) for m, kind in record["modalities"])


def snapshot_task(name: str, paths: DatasetPaths) -> str:
    """The kind of task of a snapshot, without its rows; "" if there is none.

    Raises:
        DamagedError: if its record is not what was written.
    """
    record = get_record(paths.snapshots / f"{name}.json")
    return "" if record is None else str(record["task"])


def read_snapshot(name: str, paths: DatasetPaths) -> Samples:
    """The samples of a snapshot.

    Raises:
        MmfuseError: if there are none, or their bytes are not what was written.
    """
    import polars as pl

    record = get_record(paths.snapshots / f"{name}.json")
    table = paths.snapshots / f"{name}.parquet"
    if record is None or not table.exists():
        raise MmfuseError(f"{table} is missing; run the extract command of this dataset again")
    data = table.read_bytes()
    if content_digest(data) != record["table"]:
        raise MmfuseError(f"{table} is damaged; run the extract command of this dataset again")
    frame = pl.read_parquet(io.BytesIO(data))
    task = Task(record["task"], tuple(record["names"]))
    return Samples(
        ids=_words(frame["id"]),
        splits=_words(frame["split"]),
        targets=frame["target"].to_numpy(),
        groups=_words(frame["group"]) if "group" in frame.columns else None,
        task=task,
        modalities=tuple(Modality(m, kind) for m, kind in record["modalities"]),
        source=record["source"],
    )


def _description(samples: Samples) -> dict[str, object]:
    return {
        "task": samples.task.kind,
        "names": list(samples.task.names),
        "modalities": [[m.name, m.kind] for m in samples.modalities],
        "source": samples.source,
    }


def _words(column: "pl.Series") -> NDArray[np.object_]:
    words = np.empty(len(column), object)
    words[:] = column.to_list()
    return words
