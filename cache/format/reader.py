"""Reader: the rows of one generation, memory-mapped, whole, or by row; without Zarr's codecs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format.digest_index import Digests
from cache.format.generations import Generation
from cache.format.grid import Grid
from cache.format.parts import Part, read_part
from cache.format.shards import MappedShard, read_flat, read_shard
from cache.format.streams import StreamValues
from cache.storage.objects import DamagedError

LOADERS = 2  # threads that read a whole stream: one waits for the disk while another checks sums
FLAT_ROWS = 1 << 20  # rows a chunk of the small arrays of a sequence stream


@dataclass(frozen=True)
class SmallArrays:
    """(N,) state and (N, 16) inputs of a stream."""

    state: NDArray[np.uint8]
    inputs: Digests


class Reader:
    """Reads a generation as it was at construction; shards committed later count as pending."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self._spec = generation.spec
        self._commits = generation.commits()
        self._seal = generation.seal() if generation.spec.sequence else None
        self._mapped: dict[int, MappedShard] = {}
        self._parts: dict[int, Part] = {}

    @cached_property
    def state(self) -> NDArray[np.uint8]:
        """(N,) 0 pending, 1 ok, 2 absent, 3 failed; pending too where a shard is unreadable."""
        return self._flat("state", (), "uint8", strict=False)

    @cached_property
    def inputs(self) -> Digests:
        """(N, 16) digests; zeros where a shard is not committed or cannot be read."""
        return self._flat("inputs", (16,), "uint8", strict=False)

    @cached_property
    def truncated(self) -> NDArray[np.bool_]:
        """(N,) whether a row's input was cut to the encoder's length."""
        found = np.zeros(self.generation.rows, bool)
        for commit in self._commits.values():
            if commit.truncated:
                bits = np.frombuffer(bytes.fromhex(commit.truncated), np.uint8)
                cut = np.unpackbits(bits, count=len(commit.shard)).astype(bool)
                found[commit.shard.start : commit.shard.stop] = cut
        return found

    def small(self) -> "SmallArrays":
        """State and inputs of every row.

        Raises:
            DamagedError: if one of them is damaged.
            MmfuseError: if rows are still pending.
        """
        self._require_complete()
        return SmallArrays(
            self._flat("state", (), "uint8", strict=True),
            self._flat("inputs", (16,), "uint8", strict=True),
        )

    def whole(self, order: NDArray[np.int64] | None = None) -> StreamValues:
        """Every row, each chunk's crc32c checked while it is copied.

        Args:
            order: (N,) a permutation: the row that comes first, second and so on.

        Raises:
            DamagedError: if a chunk's does not fit.
            MmfuseError: if rows are still pending.
        """
        self._require_complete()
        grid = self.frame_grid
        state = self._flat("state", (), "uint8", strict=True)
        present = self._flat("present", (), "bool", strict=True)
        offsets = self.offsets if self._spec.sequence else None
        frames = order
        if order is not None:
            state, present = state[order], present[order]
        if order is not None and offsets is not None:
            lengths = np.diff(offsets)[order]
            frames = concatenated_ranges(offsets[:-1][order], lengths)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return StreamValues(self._values(grid, frames), offsets, present, state)

    def _values(self, grid: Grid, order: NDArray[np.int64] | None) -> NDArray[Any]:
        """All values (N, D), read a shard at a time, each to its places."""
        values = np.empty((grid.rows, grid.width), grid.dtype)
        places = None
        if order is not None:
            places = np.empty(len(order), np.int64)
            places[order] = np.arange(len(order))

        def read(shard: int) -> None:
            start, stop = grid.bounds(shard)
            path = self.generation.paths.block("values", shard)
            part = values[start:stop] if places is None else np.empty_like(values[start:stop])
            read_shard(path, grid, shard, part, self._sums(shard))
            if places is not None:
                values[places[start:stop]] = part

        with ThreadPoolExecutor(LOADERS) as pool:
            list(pool.map(read, range(grid.shards)))
        return values

    def gather(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """(K, D) of rows (frames, of a sequence stream), in any order, mapped.

        Raises:
            DamagedError: if a chunk is damaged.
        """
        grid = self.frame_grid
        size = grid.shard_rows
        if not len(frames):  # nothing is read, even if shards are missing
            return np.empty((0, grid.width), grid.dtype)
        if grid.rows <= size:
            return self._shard(0).gather(frames)
        out = np.empty((len(frames), grid.width), grid.dtype)
        shard = frames // size
        for number in np.bincount(shard).nonzero()[0].tolist():
            at = (shard == number).nonzero()[0]
            out[at] = self._shard(number).gather(frames[at] - number * size)
        return out

    def ragged(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Lengths (K,) and frames (sum of lengths, D) of rows of a sequence stream."""
        lengths = np.diff(self.offsets)[rows]
        return lengths, self.gather(concatenated_ranges(self.offsets[rows], lengths))

    def recall(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[Any]]:
        """The undamaged ones of these rows: sound (K,), and lengths and values of sound rows.

        Never raises for damage: a damaged row is not sound, so that it is encoded again.
        """
        if self._spec.sequence and self._seal is None:
            return self._recall_parts(rows)
        if not self._spec.sequence:
            sound = self._sound(rows)
            return sound, np.ones(int(sound.sum()), np.int64), self.gather(rows[sound])
        try:
            offsets = self.offsets
        except DamagedError:
            nothing = np.empty((0, self._spec.width), self._spec.dtype)
            return np.zeros(len(rows), bool), np.zeros(0, np.int64), nothing
        return self.recall_frames(offsets, rows)

    def recall_frames(
        self, offsets: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[Any]]:
        """`recall` for an assembled sequence stream with these (N + 1,) offsets."""
        lengths = np.diff(offsets)[rows]
        frames = concatenated_ranges(offsets[rows], lengths)
        starts = np.cumsum(lengths) - lengths
        good = self._sound(frames)
        sound = np.logical_and.reduceat(good, starts) if len(rows) else np.zeros(0, bool)
        return sound, lengths[sound], self.gather(frames[np.repeat(sound, lengths)])

    @cached_property
    def frame_grid(self) -> Grid:
        """Grid of the values: of rows, or of the frames of a sequence stream."""
        if not self._spec.sequence:
            return self.generation.grid
        assert self._seal is not None
        return Grid(
            self._seal["frames"],
            self._spec.width,
            self._spec.dtype,
            self._seal["chunk_rows"],
            self._seal["per_shard"],
        )

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(N + 1,) where each row's frames begin."""
        return self._flat("offsets", (), "int64", strict=True, extra=1)

    def _require_complete(self) -> None:
        if not self.generation.complete():
            raise MmfuseError(f"{self.generation.key.label} is not complete yet")

    def _flat(
        self, name: str, shape: tuple[int, ...], dtype: str, *, strict: bool, extra: int = 0
    ) -> NDArray[Any]:
        generation, rows = self.generation, self.generation.rows + extra
        if self._spec.sequence and self._seal is None:
            return self._flat_of_parts(name, shape, dtype)
        step = FLAT_ROWS if self._spec.sequence else generation.grid.shard_rows
        out = np.zeros((rows, *shape), dtype)
        for number in range(-(-rows // step)):
            if not self._spec.sequence and number not in self._commits:
                continue
            part = out[number * step : (number + 1) * step]
            try:
                path, digest = generation.paths.block(name, number), self._digest(name, number)
                part[:] = read_flat(path, part.shape, dtype, digest)
            except DamagedError:
                if strict:
                    raise
        return out

    def _digest(self, name: str, number: int) -> str:
        if self._seal is not None:
            digest: str = self._seal["objects"][f"{name}/{number}"][1]
            return digest
        return self._commits[number].objects[name].digest

    def _sums(self, number: int) -> list[int]:
        """crc32c of each chunk as it was committed; a shard may have been repaired meanwhile."""
        if self._seal is not None:
            sums: list[int] = self._seal["objects"][f"values/{number}"][2]
            return sums
        commit = self.generation.commit(self.generation.shard(number))
        return commit.chunks if commit is not None else []

    def _shard(self, number: int) -> MappedShard:
        shard = self._mapped.get(number)
        if shard is None or not shard.fresh():
            path = self.generation.paths.block("values", number)
            shard = self._mapped[number] = MappedShard(
                path, self.frame_grid, number, self._sums(number)
            )
        return shard

    def _sound(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        good = np.zeros(len(frames), bool)
        shard, row = np.divmod(frames, self.frame_grid.shard_rows)
        for number in np.unique(shard):
            at = np.flatnonzero(shard == number)
            try:
                good[at] = self._shard(int(number)).sound(row[at])
            except DamagedError:
                continue
        return good

    def _part(self, number: int) -> Part | None:
        """A part; the last one is cached, since neighbouring rows are in the same part."""
        if number not in self._parts:
            part = read_part(self.generation, number)
            if part is None:
                return None
            self._parts = {number: part}
        return self._parts[number]

    def _flat_of_parts(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        out = np.zeros((self.generation.rows, *shape), dtype)
        for number, commit in self._commits.items():
            part = self._part(number)
            if part is not None:
                out[commit.shard.start : commit.shard.stop] = getattr(part, name)
        return out

    def _recall_parts(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[Any]]:
        sound = np.zeros(len(rows), bool)
        pieces: dict[int, NDArray[Any]] = {}
        shard, local = np.divmod(rows, self.generation.grid.shard_rows)
        for number in np.unique(shard):
            part = self._part(int(number))
            if part is None:
                continue
            offsets = np.concatenate([[0], np.cumsum(part.lengths)])
            for at in np.flatnonzero(shard == number):
                row = local[at]
                pieces[int(at)] = part.values[offsets[row] : offsets[row + 1]]
                sound[at] = True
        found = [pieces[at] for at in sorted(pieces)]
        lengths = np.array([len(piece) for piece in found], np.int64)
        empty = np.empty((0, self._spec.width), self._spec.dtype)
        return sound, lengths, np.concatenate([empty, *found])


def concatenated_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, … of each (start, length), concatenated; (sum of lengths,)."""
    before = np.cumsum(lengths) - lengths
    found: NDArray[np.int64] = np.repeat(starts - before, lengths)
    return found + np.arange(int(lengths.sum()), dtype=np.int64)
