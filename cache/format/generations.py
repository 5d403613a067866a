"""Generations: one set of rows of a stream, its record, and the commits of finished shards."""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format.grid import Grid
from cache.format.streams import StreamKey, StreamSpec
from cache.layout import DatasetPaths, GenerationPaths, StreamPaths
from cache.storage.objects import DamagedError, create_record, get_record

SCHEMA = 1


@dataclass(frozen=True)
class Shard:
    """A unit of work: the rows from start up to stop."""

    number: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class StoredObject:
    """Length and blake2b-128 of an object as it was written."""

    bytes: int
    digest: str


@dataclass(frozen=True)
class Commit:
    """Proof that a shard is finished: its rows, its objects' digests, and the run that wrote it."""

    shard: Shard
    counts: dict[str, int]
    objects: dict[str, StoredObject]  # values, present, state, inputs, failures; or part
    chunks: list[int]  # crc32c of each chunk of values
    lengths: list[int]  # of a sequence stream: frames of each row
    run: str
    truncated: str = ""  # one bit per row, as hex: its input was cut to length; "" for none

    def record(self) -> dict[str, object]:
        """As JSON."""
        return {
            "schema": SCHEMA,
            "shard": self.shard.number,
            "rows": [self.shard.start, self.shard.stop],
            "counts": self.counts,
            "objects": {name: [o.bytes, o.digest] for name, o in self.objects.items()},
            "chunks": self.chunks,
            "lengths": self.lengths,
            "run": self.run,
            "truncated": self.truncated,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Commit":
        """From JSON."""
        return cls(
            Shard(record["shard"], *record["rows"]),
            record["counts"],
            {name: StoredObject(*stored) for name, stored in record["objects"].items()},
            record["chunks"],
            record["lengths"],
            record["run"],
            record.get("truncated", ""),
        )


@dataclass(frozen=True)
class Generation:
    """One set of rows of a stream, and how far it is encoded."""

    paths: GenerationPaths
    key: StreamKey
    spec: StreamSpec
    rows: int
    identity: str  # digest of every row's input, in order
    retries: int | None  # the generation whose failed rows this one retries
    grid: Grid  # of values; of a sequence stream, `shard_rows` cuts rows and the rest is unused

    @property
    def number(self) -> int:
        """Counts from 1."""
        return self.paths.number

    @property
    def shards(self) -> list[Shard]:
        """The units of work, in order."""
        return [self.shard(number) for number in range(self.grid.shards)]

    def shard(self, number: int) -> Shard:
        """One unit of work."""
        return Shard(number, *self.grid.bounds(number))

    def commit(self, shard: Shard) -> Commit | None:
        """A shard's commit; None if there is none or it is damaged."""
        try:
            record = get_record(self.paths.commit(shard.number))
        except DamagedError:
            return None
        return None if record is None else Commit.of(record)

    def commits(self) -> dict[int, Commit]:
        """Every commit by shard number."""
        if not self.paths.commits.is_dir():
            return {}
        found = ((s.number, self.commit(s)) for s in self.shards)
        return {number: commit for number, commit in found if commit is not None}

    def intact(self) -> dict[int, Commit]:
        """The commits whose objects all exist in the right length; contents are not checked."""
        sealed = self.spec.sequence and self.paths.seal.exists()
        if sealed and not self._sealed():
            return {}
        return {
            number: commit
            for number, commit in self.commits().items()
            if all(
                _is_there(self.paths.object(name, number), stored.bytes)
                for name, stored in commit.objects.items()
                if not (sealed and name == "part")
            )
        }

    def complete(self) -> bool:
        """Whether no row is pending and all are readable."""
        if self.spec.sequence and not self.paths.seal.exists():
            return False
        return len(self.intact()) == self.grid.shards

    def described(self) -> bool:
        """Whether all Zarr metadata exists, so that any Zarr reader can open it."""
        try:
            record = get_record(self.paths.nodes)
        except DamagedError:
            return False
        zarr = self.paths.stream.dataset.zarr
        return record is not None and all((zarr / name).exists() for name in record["nodes"])

    def _sealed(self) -> bool:
        """Whether all assembled arrays of a sequence stream exist."""
        seal = self.seal()
        if seal is None:
            return False
        blocks = ((key.partition("/"), size) for key, (size, *_) in seal["objects"].items())
        return all(_is_there(self.paths.block(name, int(n)), size) for (name, _, n), size in blocks)

    def lengths(self) -> NDArray[np.int64]:
        """(N,) frames per row of a sequence stream, from its commits; 0 where there is none."""
        lengths = np.zeros(self.rows, np.int64)
        for commit in self.commits().values():
            lengths[commit.shard.start : commit.shard.stop] = commit.lengths
        return lengths

    def seal(self) -> dict[str, Any] | None:
        """The seal of a sequence stream: digests of its assembled arrays; None before assembly."""
        try:
            return get_record(self.paths.seal)
        except DamagedError:
            with contextlib.suppress(DamagedError):
                return get_record(self.paths.seal_copy)
        return None

    @cached_property
    def attributes(self) -> dict[str, object]:
        """The generation's record, written to `stream.json` and to the Zarr group's attributes."""
        return {
            "schema": SCHEMA,
            **asdict(self.key),
            "generation": self.number,
            **{name: getattr(self.spec, name) for name in _SPEC},
            "rows": self.rows,
            "identity": self.identity,
            "retries": self.retries,
            "chunk_rows": self.grid.chunk_rows,
            "per_shard": self.grid.per_shard,
        }


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


_SPEC = ("kind", "width", "dtype", "sequence", "fields", "provenance")


def read_generation(paths: GenerationPaths) -> Generation | None:
    """The generation at these paths, or None.

    Raises:
        DamagedError: if its record is not what was written.
        MmfuseError: if a newer mmfuse wrote it.
    """
    record = get_record(paths.record)
    return None if record is None else generation_of(record, paths)


def generation_of(record: Mapping[str, Any], paths: GenerationPaths) -> Generation:
    """The generation that a record describes."""
    check_schema(record, paths.record)
    spec = StreamSpec(**{name: record[name] for name in _SPEC})
    grid = Grid(record["rows"], spec.width, spec.dtype, record["chunk_rows"], record["per_shard"])
    key = StreamKey(record["encoder"], record["fingerprint"], record["modality"])
    return Generation(paths, key, spec, record["rows"], record["identity"], record["retries"], grid)


def create_generation(generation: Generation) -> bool:
    """Publish a generation's record; False if the number is taken."""
    scratch = generation.paths.stream.dataset.scratch
    return create_record(generation.paths.record, generation.attributes, scratch)


def current_generation(paths: StreamPaths) -> tuple[int, str] | None:
    """Generation and snapshot that readers see; None before the first is published.

    Raises:
        DamagedError: if the pointer is not what was written.
        MmfuseError: if a newer mmfuse wrote it.
    """
    record = get_record(paths.current)
    if record is None:
        return None
    check_schema(record, paths.current)
    return record["generation"], record["snapshot"]


def check_schema(record: Mapping[str, Any], path: Path) -> None:
    """Raise for a record that a newer mmfuse wrote.

    Raises:
        MmfuseError: naming both schemas.
    """
    if record["schema"] > SCHEMA:
        raise MmfuseError(
            f"{path} was written by a newer mmfuse (schema {record['schema']}, this one reads "
            f"{SCHEMA}); upgrade mmfuse, or use another --home"
        )


def open_store(paths: DatasetPaths, dataset: str, *, create: bool) -> None:
    """Check the schema of a dataset's store; with `create`, write its record if missing.

    Raises:
        MmfuseError: if a newer mmfuse wrote it.
    """
    record = get_record(paths.store)
    if record is not None:
        check_schema(record, paths.store)
    elif create:
        made = {"schema": SCHEMA, "dataset": dataset}
        create_record(paths.store, made, paths.scratch)
