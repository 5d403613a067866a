"""Shard files: encoded by zarr in memory, read memory-mapped, checked by crc32c.

A shard without compression is its inner chunks one after the other, each raw little-endian bytes
and their crc32c (4 bytes), then the index: offset and length of each chunk (16 bytes) and the
index's own crc32c. So rows are read straight from the file; zarr is needed for writing only.
"""

import math
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.format.grid import CRC_BYTES, Grid
from cache.storage.objects import DamagedError, content_digest

_NOWHERE = (1 << 64) - 1  # the index's entry of a missing chunk


def crc32c(data: NDArray[np.uint8]) -> int:
    """The crc32c of contiguous bytes."""
    return int(google_crc32c.value(data))


def encode_shard(block: NDArray[Any], grid: Grid) -> memoryview:
    """The bytes of one shard, encoded in memory by zarr; block is (rows of the shard, D)."""
    shape = (len(block), grid.width)
    chunks = (grid.chunk_rows, grid.width)
    data = _encode(block, shape, chunks, (grid.shard_rows, grid.width))
    tail = bytes(data[-16 * grid.per_shard - CRC_BYTES :])
    check_index(tail, grid, math.ceil(len(block) / grid.chunk_rows), Path("a shard made by zarr"))
    return data


def encode_flat(block: NDArray[Any], chunk_rows: int) -> memoryview:
    """The bytes of one unsharded chunk with its crc32c; block is (rows,) or (rows, 16)."""
    return _encode(block, block.shape, (chunk_rows, *block.shape[1:]), None)


def _encode(
    block: NDArray[Any],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    shards: Any,  # noqa: ANN401
) -> memoryview:
    from cache.format.zarr_arrays import memory_array  # zarr is not needed for reading

    array, objects = memory_array(shape, block.dtype.name, chunks, shards)
    array[...] = block
    data: memoryview = objects["/".join(["c", *["0"] * len(shape)])].as_numpy_array().data
    return data.cast("B")


def chunk_checksums(data: bytes | memoryview, grid: Grid, shard: int) -> list[int]:
    """The crc32c of each chunk, as stored in a shard's bytes."""
    step = grid.chunk_bytes + CRC_BYTES
    ends = range(grid.chunk_bytes, step * grid.chunks(shard), step)
    return [int.from_bytes(data[end : end + CRC_BYTES], "little") for end in ends]


def read_flat(
    path: Path, shape: tuple[int, ...], dtype: str, digest: str | None = None
) -> NDArray[Any]:
    """The first `shape` of an unsharded chunk, checked.

    Raises:
        DamagedError: if it is missing or too short, or its crc32c or the digest does not fit.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    size = math.prod(shape) * np.dtype(dtype).itemsize
    body = data[:-CRC_BYTES]
    if len(body) < size or crc32c(body) != int.from_bytes(data[-CRC_BYTES:].tobytes(), "little"):
        raise DamagedError(f"{path} is damaged: its checksum does not fit")
    if digest is not None and content_digest(data.data) != digest:
        raise DamagedError(f"{path} is not the object that was committed")
    found: NDArray[Any] = body[:size].view(dtype).reshape(shape)
    return found


def check_index(tail: bytes, grid: Grid, count: int, path: Path) -> None:
    """Check a shard's index: its crc32c, and that its `count` chunks lie one after the other.

    Raises:
        DamagedError: if not.
    """
    index = np.frombuffer(tail[:-CRC_BYTES], "<u8").reshape(-1, 2)
    step = grid.chunk_bytes + CRC_BYTES
    expected = np.full((grid.per_shard, 2), _NOWHERE, "<u8")
    expected[:count, 0] = np.arange(count, dtype="<u8") * step
    expected[:count, 1] = step
    stored = int.from_bytes(tail[-CRC_BYTES:], "little")
    fits = crc32c(np.frombuffer(tail[:-CRC_BYTES], np.uint8)) == stored
    if not fits or not np.array_equal(index, expected):
        raise DamagedError(f"{path} is damaged: its index does not fit")


def read_shard(
    path: Path, grid: Grid, shard: int, out: NDArray[Any], sums: Sequence[int] | None = None
) -> None:
    """Copy a whole shard into out (rows of the shard, D), checking each chunk on the way.

    Args:
        path: the shard's file.
        grid: how the array is cut.
        shard: its number.
        out: where the rows go.
        sums: crc32c of each chunk as committed, checked in addition to the file's own.

    Raises:
        DamagedError: naming the rows, if the file is missing or truncated or a checksum is wrong.
    """
    first, _ = grid.bounds(shard)
    memory, _ = _map(path, grid, shard)
    memory.madvise(mmap.MADV_SEQUENTIAL)
    source, target = np.frombuffer(memory, np.uint8), out.reshape(-1).view(np.uint8)
    size, step = grid.chunk_bytes, grid.chunk_bytes + CRC_BYTES
    for chunk in range(grid.chunks(shard)):
        block = source[chunk * step : chunk * step + size]
        part = target[chunk * size : (chunk + 1) * size]
        part[:] = block[: len(part)]  # the last one may be padded
        sum_ = crc32c(block)  # now in the processor's cache
        if sum_ != _stored(source, chunk * step + size) or (sums and sum_ != sums[chunk]):
            raise _damaged_chunk(path, grid, first, chunk)


def damaged_rows(path: Path, grid: Grid, shard: int, sums: list[int]) -> list[tuple[int, int]]:
    """Ranges of rows whose bytes differ from those committed; checks every byte.

    Args:
        path: the shard's file.
        grid: how the array is cut.
        shard: its number.
        sums: crc32c of each chunk, from the commit object.
    """
    start, stop = grid.bounds(shard)
    try:
        memory, _ = _map(path, grid, shard)
    except DamagedError:
        return [(start, stop)]
    source, size = np.frombuffer(memory, np.uint8), grid.chunk_bytes
    step = size + CRC_BYTES
    found = []
    for chunk in range(grid.chunks(shard)):
        at = chunk * step
        if {crc32c(source[at : at + size]), _stored(source, at + size)} != {sums[chunk]}:
            first = start + chunk * grid.chunk_rows
            found.append((first, min(stop, first + grid.chunk_rows)))
    return found


def _map(path: Path, grid: Grid, shard: int) -> tuple[mmap.mmap, os.stat_result]:
    """Memory-map a shard and check its index."""
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_size != grid.file_bytes(shard):
                raise DamagedError(f"{path} is damaged: it has a wrong length")
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    check_index(memory[-16 * grid.per_shard - CRC_BYTES :], grid, grid.chunks(shard), path)
    return memory, stat


def _stored(data: NDArray[np.uint8], at: int) -> int:
    return int.from_bytes(data[at : at + CRC_BYTES].tobytes(), "little")


class MappedShard:
    """A memory-mapped shard; each chunk's checksum is checked once, before its first use."""

    def __init__(
        self, path: Path, grid: Grid, shard: int, sums: Sequence[int] | None = None
    ) -> None:
        self._sums = sums
        self.path, self._grid, self._name = path, grid, str(path)
        self._first, _ = grid.bounds(shard)
        self._chunk_rows = grid.chunk_rows
        memory, stat = _map(path, grid, shard)
        self._look = 0.0
        self._identity = (stat.st_ino, stat.st_mtime_ns)
        self._bytes = np.frombuffer(memory, np.uint8)
        dtype = np.dtype(grid.dtype).newbyteorder("<")
        self._row_bytes = grid.width * dtype.itemsize
        self._step = math.gcd(self._row_bytes, CRC_BYTES)  # every row begins at a multiple of it
        windows = (len(memory) - self._row_bytes) // self._step + 1
        strides = (self._step, dtype.itemsize)
        # A view of every row-long window: one index finds a row despite the sums between chunks.
        self._windows: NDArray[Any] = np.ndarray((windows, grid.width), dtype, memory, 0, strides)
        self._unchecked = np.ones(grid.chunks(shard), bool)
        self._all_checked = False

    def fresh(self) -> bool:
        """Whether the file is still the mapped one; checked at most once a second."""
        now = time.monotonic()
        if now < self._look:
            return True
        self._look = now + 1.0
        try:
            stat = os.stat(self._name)  # noqa: PTH116 - on the way of every gather
        except FileNotFoundError:
            return False
        return (stat.st_ino, stat.st_mtime_ns) == self._identity

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(K, D) of rows numbered within the shard, in any order.

        Raises:
            DamagedError: if a chunk's checksum does not fit.
        """
        chunk = rows // self._chunk_rows
        if not self._all_checked:
            for number in np.unique(chunk[self._unchecked[chunk]]):
                if not self._sound(int(number)):
                    raise _damaged_chunk(self.path, self._grid, self._first, int(number))
                self._unchecked[number] = False
            self._all_checked = not self._unchecked.any()
        starts = rows * self._row_bytes + chunk * CRC_BYTES
        found: NDArray[Any] = self._windows[starts // self._step]
        return found

    def sound(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(K,) whether each row's chunk is undamaged."""
        chunk = rows // self._grid.chunk_rows
        numbers, inverse = np.unique(chunk, return_inverse=True)
        return np.array([self._sound(int(n)) for n in numbers], bool)[inverse]

    def _sound(self, chunk: int) -> bool:
        start = chunk * (self._grid.chunk_bytes + CRC_BYTES)
        end = start + self._grid.chunk_bytes
        found = crc32c(self._bytes[start:end])
        committed = self._sums is None or found == self._sums[chunk]
        return committed and found == _stored(self._bytes, end)


def _damaged_chunk(path: Path, grid: Grid, first: int, chunk: int) -> DamagedError:
    start = first + chunk * grid.chunk_rows
    stop = min(grid.rows, start + grid.chunk_rows)
    return DamagedError(f"{path} is damaged: the checksum of rows {start}–{stop - 1} does not fit")
