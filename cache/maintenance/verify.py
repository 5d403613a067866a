"""Verification: checks every byte of a store; reports damaged streams and rows.

Values are checked by the crc32c of every chunk against the commit object, so that a shard replaced
by another valid one is found too; everything else by blake2b. Any single changed bit of an object,
a record or Zarr metadata is found. Nothing is changed here: see `repair`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.format.generations import (
    Generation,
    StoredObject,
    current_generation,
    open_store,
    read_generation,
)
from cache.format.grid import Grid
from cache.format.reader import FLAT_ROWS
from cache.format.shards import damaged_rows
from cache.layout import DatasetPaths, Home, StreamPaths
from cache.progress import Track, untracked
from cache.storage.objects import DamagedError, content_digest, get_record


@dataclass(frozen=True)
class Damage:
    """A damaged or missing file.

    Attributes:
        dataset, label, generation: which stream; label is "" for what belongs to the dataset.
        rows: from, up to; None where it is not about rows.
        shard: number of the shard to encode again, or None.
        path: the file.
        what: `rows`, `commit`, `record`, `pointer`, `node`, `seal`, `snapshot`, `origin`,
            `latency`, `report`, `baseline` or `store`.
    """

    dataset: str
    label: str
    generation: int | None
    rows: tuple[int, int] | None
    shard: int | None
    path: Path
    what: str

    def __str__(self) -> str:
        where = f"{self.dataset}: {self.label or self.what}"
        generation = f" generation {self.generation}" if (self.generation or 1) > 1 else ""
        rows = f" rows {self.rows[0]}–{self.rows[1] - 1}" if self.rows else ""
        state = "damaged" if self.path.exists() else "missing"
        return f"{where}{generation}{rows}: {self.what} {state}: {self.path}"


@dataclass(frozen=True)
class Check:
    """A check of one object or record, and the damage to report if it fails."""

    damage: Damage
    check: Callable[[], list[tuple[int, int]] | bool]  # damaged rows, or whether it is damaged
    bytes: int


@dataclass(frozen=True)
class Verification:
    """Result of a verification: damages, and how many streams and bytes were checked."""

    damages: tuple[Damage, ...]
    streams: int
    bytes: int


def verify(
    home: Home, datasets: Sequence[str] | None = None, *, track: Track = untracked
) -> Verification:
    """Check every stream, generation, snapshot and record of some datasets, or of all.

    Args:
        home: where.
        datasets: names; None means all of them.
        track: progress, called as `track(pieces, label, total)`.

    Raises:
        MmfuseError: if a newer mmfuse wrote a store.
    """
    damages: list[Damage] = []
    streams = size = 0
    for dataset in home.datasets() if datasets is None else datasets:
        paths = DatasetPaths.of(home, dataset)
        pieces = list(_dataset(dataset, paths))
        labels = _labels(paths)
        streams += len(labels)
        for label in labels:
            pieces += _stream(dataset, label, paths.stream(label))
        for piece in track(pieces, f"verify {dataset}", len(pieces)):
            damages += _found(piece)
            size += piece.bytes
    return Verification(tuple(damages), streams, size)


def _found(piece: Check) -> list[Damage]:
    result = piece.check()
    base = piece.damage
    if isinstance(result, bool):
        return [base] if result else []
    return [
        Damage(base.dataset, base.label, base.generation, rows, base.shard, base.path, base.what)
        for rows in result
    ]


def _labels(paths: DatasetPaths) -> list[str]:
    folders = sorted(p for p in paths.streams.glob("*/*") if p.is_dir())
    return [f"{p.parent.name}/{p.name}" for p in folders]


def _dataset(dataset: str, paths: DatasetPaths) -> Iterator[Check]:
    try:
        open_store(paths, dataset, create=False)
    except DamagedError:
        yield _record(Damage(dataset, "", None, None, None, paths.store, "store"))
    if paths.origin.exists():
        yield _record(Damage(dataset, "", None, None, None, paths.origin, "origin"))
    for path in sorted(paths.baselines.glob("*.json")):
        yield _record(Damage(dataset, "", None, None, None, path, "baseline"))
    for path in sorted(paths.snapshots.glob("*.json")):
        base = Damage(dataset, "", None, None, None, path, "snapshot")
        yield _record(base)
        yield Check(base, partial(_snapshot_damaged, path), path.stat().st_size)


def _stream(dataset: str, label: str, paths: StreamPaths) -> Iterator[Check]:
    for path, what in ((paths.latency, "latency"), (paths.report, "report")):
        if path.exists():
            yield _record(Damage(dataset, label, None, None, None, path, what))
    pointer, seen = Damage(dataset, label, None, None, None, paths.current, "pointer"), None
    if paths.current.exists():
        yield _record(pointer)
        with contextlib.suppress(DamagedError):
            seen = current_generation(paths)
        if seen is not None:
            snapshot = paths.dataset.snapshots / f"{seen[1]}.json"
            if not snapshot.exists():
                yield _always(Damage(dataset, "", None, None, None, snapshot, "snapshot"))
        if seen is not None and not paths.generation(seen[0]).record.exists():
            record = paths.generation(seen[0]).record
            yield _always(Damage(dataset, label, seen[0], None, None, record, "record"))
    for number in paths.generations():
        generation_paths = paths.generation(number)
        base = Damage(dataset, label, number, None, None, generation_paths.record, "record")
        try:
            generation = read_generation(generation_paths)
        except DamagedError:
            yield _always(base)
            continue
        if generation is not None:
            yield from _generation(dataset, generation, seen=seen is not None and seen[0] == number)


def _generation(dataset: str, generation: Generation, *, seen: bool) -> Iterator[Check]:
    label, number, paths = generation.key.label, generation.number, generation.paths
    yield from _nodes(dataset, generation)
    sealed = generation.spec.sequence and paths.seal.exists()
    for shard in generation.shards:
        rows = (shard.start, shard.stop)
        commit = generation.commit(shard)
        if commit is None:
            path = paths.commit(shard.number)
            if seen or path.exists():  # the current generation should have all commits
                yield _always(Damage(dataset, label, number, rows, shard.number, path, "commit"))
            continue
        for name, stored in commit.objects.items():
            path = paths.object(name, shard.number)
            base = Damage(dataset, label, number, rows, shard.number, path, "rows")
            if name == "values":
                yield _values(base, generation.grid, shard.number, commit.chunks)
            elif not (sealed and name == "part"):
                yield _object(base, stored)
    if sealed:
        yield from _sealed(dataset, generation)


def _sealed(dataset: str, generation: Generation) -> Iterator[Check]:
    paths = generation.paths
    base = Damage(dataset, generation.key.label, generation.number, None, None, paths.seal, "seal")
    yield _record(base)
    yield _record(replace(base, path=paths.seal_copy))
    seal = generation.seal()
    if seal is None:
        return
    spec = generation.spec
    grid = Grid(seal["frames"], spec.width, spec.dtype, seal["chunk_rows"], seal["per_shard"])
    ends = np.cumsum(generation.lengths())
    for key, (size, digest, *sums) in seal["objects"].items():
        name, _, number = key.partition("/")
        path = paths.block(name, int(number))
        if name == "values":
            rows = _rows_of_frames(ends, *grid.bounds(int(number)))
            check = partial(_damaged_frames, path, grid, int(number), sums[0], ends)
            yield Check(_at(base, path, rows), check, size)
        else:
            first = int(number) * FLAT_ROWS
            rows = (first, min(generation.rows, first + FLAT_ROWS))
            yield _object(_at(base, path, rows), StoredObject(size, digest))


def _damaged_frames(
    path: Path, grid: Grid, shard: int, sums: list[int], ends: NDArray[np.int64]
) -> list[tuple[int, int]]:
    return [_rows_of_frames(ends, *frames) for frames in damaged_rows(path, grid, shard, sums)]


def _rows_of_frames(ends: NDArray[np.int64], start: int, stop: int) -> tuple[int, int]:
    first = int(np.searchsorted(ends, start, side="right"))
    last = int(np.searchsorted(ends, stop, side="left"))
    return first, min(len(ends), last + 1)


def _at(base: Damage, path: Path, rows: tuple[int, int]) -> Damage:
    return Damage(base.dataset, base.label, base.generation, rows, None, path, "rows")


def _nodes(dataset: str, generation: Generation) -> Iterator[Check]:
    paths = generation.paths
    base = Damage(dataset, generation.key.label, generation.number, None, None, paths.nodes, "node")
    try:
        record = get_record(paths.nodes)
    except DamagedError:
        yield _always(base)
        return
    for name, digest in (record or {"nodes": {}})["nodes"].items():
        path = paths.stream.dataset.zarr / name
        damage = Damage(dataset, base.label, base.generation, None, None, path, "node")
        yield _object(damage, StoredObject(0, digest))


def _values(base: Damage, grid: Grid, shard: int, sums: list[int]) -> Check:
    check = partial(damaged_rows, base.path, grid, shard, sums)
    return Check(base, check, grid.file_bytes(shard))


def _object(base: Damage, stored: StoredObject) -> Check:
    return Check(base, lambda: not _fits(base.path, stored.digest), stored.bytes)


def _record(base: Damage) -> Check:
    return Check(base, lambda: _record_damaged(base.path), 0)


def _always(base: Damage) -> Check:
    return Check(base, lambda: True, 0)


def _record_damaged(path: Path) -> bool:
    try:
        return get_record(path) is None
    except DamagedError:
        return True


def _snapshot_damaged(path: Path) -> bool:
    if _record_damaged(path):
        return False  # reported already
    record = get_record(path)
    return record is None or not _fits(path.with_suffix(".parquet"), record["table"])


def _fits(path: Path, digest: str) -> bool:
    try:
        return content_digest(path.read_bytes()) == digest
    except FileNotFoundError:
        return False
