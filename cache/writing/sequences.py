"""Sequence streams: parts are assembled into one array of frames, and cut into parts again."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format import zarr_metadata
from cache.format.digest_index import Digests
from cache.format.generations import SCHEMA, Commit, Generation, StoredObject
from cache.format.grid import Grid
from cache.format.parts import Part, read_part
from cache.format.reader import FLAT_ROWS, Reader
from cache.format.shards import chunk_checksums, encode_flat, encode_shard
from cache.format.streams import ABSENT, FAILED, OK
from cache.storage.objects import DamagedError, content_digest, delete, put, put_record

PART_FRAMES = 256  # frames per row that a part's size is planned for; unknown before encoding
PART_BYTES = 48 << 20


def part_grid(rows: int, width: int, dtype: str) -> Grid:
    """Grid of a sequence stream's units of work, before lengths are known."""
    row = PART_FRAMES * width * np.dtype(dtype).itemsize
    return Grid(rows, width, dtype, min(rows, max(16, PART_BYTES // row)), 1)


def assemble(generation: Generation, inputs: Digests) -> None:
    """Write the arrays of a sequence stream from its parts, seal them, and remove the parts.

    The inputs are the writer's: a part that was cut from an assembled stream may lack them.
    Needs memory for two shards. After a kill, the same bytes are written again.
    """
    lengths, state = _small(generation)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    grid = Grid.plan(int(offsets[-1]), generation.spec.width, generation.spec.dtype)
    zarr_metadata.publish_sequence(generation, grid, FLAT_ROWS)
    objects: dict[str, list[object]] = {}
    frames = _Frames(generation, offsets)
    for shard in range(grid.shards):
        data = encode_shard(frames.read(*grid.bounds(shard)), grid)
        objects[f"values/{shard}"] = _put(generation, "values", shard, data)
        objects[f"values/{shard}"].append(chunk_checksums(data, grid, shard))
    flat = {"offsets": offsets, "present": state == OK, "state": state, "inputs": inputs}
    for name, array in flat.items():
        step = min(len(array), FLAT_ROWS)
        for number in range(-(-len(array) // FLAT_ROWS)):
            data = encode_flat(array[number * FLAT_ROWS : (number + 1) * FLAT_ROWS], step)
            objects[f"{name}/{number}"] = _put(generation, name, number, data)
    seal = {
        "schema": SCHEMA,
        "frames": grid.rows,
        "chunk_rows": grid.chunk_rows,
        "per_shard": grid.per_shard,
        "objects": objects,
    }
    scratch = generation.paths.stream.dataset.scratch
    put_record(generation.paths.seal_copy, seal, scratch)
    put_record(generation.paths.seal, seal, scratch)
    remove_parts(generation)


def remove_parts(generation: Generation) -> None:
    """Remove the parts of a sealed generation."""
    for shard in generation.shards:
        delete(generation.paths.part(shard.number))


def _put(generation: Generation, name: str, number: int, data: memoryview) -> list[object]:
    put(generation.paths.block(name, number), data, generation.paths.stream.dataset.scratch)
    return [len(data), content_digest(data)]


def _small(generation: Generation) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    rows = generation.rows
    lengths, state = np.zeros(rows, np.int64), np.zeros(rows, np.uint8)
    for shard in generation.shards:
        part = _part(generation, shard.number)
        at = slice(shard.start, shard.stop)
        lengths[at], state[at] = part.lengths, part.state
    return lengths, state


def _part(generation: Generation, number: int) -> Part:
    part = read_part(generation, number)
    if part is None:
        delete(generation.paths.commit(number))
        raise MmfuseError(
            f"{generation.paths.part(number)} is missing or damaged; its rows will be encoded "
            "again: run the same extract command once more"
        )
    return part


class _Frames:
    """The frames of all parts as one array; the last part that was read is cached."""

    def __init__(self, generation: Generation, offsets: NDArray[np.int64]) -> None:
        self._generation, self._offsets = generation, offsets
        self._held: tuple[int, NDArray[Any]] = (-1, np.empty(0))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Frames start … stop, (stop - start, D)."""
        spec = self._generation.spec
        out = np.empty((stop - start, spec.width), spec.dtype)
        for shard in self._generation.shards:
            first, last = int(self._offsets[shard.start]), int(self._offsets[shard.stop])
            low, high = max(first, start), min(last, stop)
            if low < high:
                values = self._part(shard.number)
                out[low - start : high - start] = values[low - first : high - first]
        return out

    def _part(self, number: int) -> NDArray[Any]:
        if self._held[0] != number:
            self._held = number, _part(self._generation, number).values
        return self._held[1]


def split_into_parts(generation: Generation) -> None:
    """Split an assembled sequence stream into parts again, and remove its seal.

    Shards with a damaged row lose their commit, so that they are encoded again; after a kill, so
    are the shards that were not split yet.
    """
    paths, scratch = generation.paths, generation.paths.stream.dataset.scratch
    parts = _PartCutter(generation)
    commits: dict[int, Commit | None] = {}
    for number, commit in generation.commits().items():
        part = parts.cut(commit)
        if part is None:
            commits[number] = None
            continue
        put(paths.part(number), part, scratch)
        objects = {**commit.objects, "part": StoredObject(len(part), content_digest(part))}
        commits[number] = replace(commit, objects=objects)
    delete(paths.seal)
    delete(paths.seal_copy)
    delete(paths.nodes)
    for number, renewed in commits.items():
        if renewed is None:
            delete(paths.commit(number))
        else:
            put_record(paths.commit(number), renewed.record(), scratch)


class _PartCutter:
    """Cuts parts from the undamaged rows of assembled arrays."""

    def __init__(self, generation: Generation) -> None:
        self._generation, self._reader = generation, Reader(generation)
        self._offsets = _offsets(generation, self._reader)

    def cut(self, commit: Commit) -> bytes | None:
        """The encoded part of a shard, or None if one of its rows is damaged."""
        state = self._state(commit)
        if self._offsets is None or state is None:
            return None
        shard = commit.shard
        lengths = np.diff(self._offsets)[shard.start : shard.stop]
        ok = np.flatnonzero(state == OK)
        sound, _, values = self._reader.recall_frames(self._offsets, ok + shard.start)
        if not sound.all():
            return None
        inputs = self._reader.inputs[shard.start : shard.stop]
        return Part(values, lengths, state, inputs).encode()

    def _state(self, commit: Commit) -> NDArray[np.uint8] | None:
        """State from lengths and failures, since the stored array may be damaged."""
        if len(commit.lengths) != len(commit.shard):
            return None
        state = np.where(np.array(commit.lengths) > 0, OK, ABSENT).astype(np.uint8)
        stored = commit.objects.get("failures")
        if stored is not None:
            path = self._generation.paths.failures(commit.shard.number)
            data = path.read_bytes() if path.exists() else b""
            if content_digest(data) != stored.digest:
                return None
            rows = pl.read_parquet(io.BytesIO(data))["row"].to_numpy()
            state[rows - commit.shard.start] = FAILED
        return state


def _offsets(generation: Generation, reader: Reader) -> NDArray[np.int64] | None:
    if generation.seal() is None:
        return None
    try:
        return reader.offsets
    except DamagedError:
        if len(generation.commits()) < len(generation.shards):
            return None
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(generation.lengths())])
