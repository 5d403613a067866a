"""`zarr.json` and shard bytes, encoded by zarr in memory; the only file that imports zarr."""

import json
import math
from collections.abc import Mapping
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from cache.format.grid import Grid


def memory_array(
    shape: tuple[int, ...],
    dtype: str,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """A Zarr array in memory, and its objects by key.

    crc32c for each chunk, no compression, fill value NaN for floats, empty chunks are written.
    """
    objects: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(objects),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=[Crc32cCodec()],
        fill_value=math.nan if dtype.startswith("float") else False if dtype == "bool" else 0,
        attributes=dict(attributes or {}),
        config={"write_empty_chunks": True},
    )
    return array, objects


def sharded(grid: Grid) -> bytes:
    """`zarr.json` of a values array."""
    return _metadata(
        (grid.rows, grid.width),
        grid.dtype,
        (grid.chunk_rows, grid.width),
        (grid.shard_rows, grid.width),
    )


def flat(shape: tuple[int, ...], dtype: str, chunk_rows: int) -> bytes:
    """`zarr.json` of an unsharded array, chunked along its first axis."""
    return _metadata(shape, dtype, (max(1, chunk_rows), *shape[1:]), None)


def group(attributes: Mapping[str, Any]) -> bytes:
    """`zarr.json` of a group."""
    objects: dict[str, Any] = {}
    zarr.create_group(MemoryStore(objects), attributes=dict(attributes))
    return _compact(objects)


def _metadata(
    shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], shards: tuple[int, ...] | None
) -> bytes:
    _, objects = memory_array(shape, dtype, chunks, shards)
    return _compact(objects)


def _compact(objects: Mapping[str, Any]) -> bytes:
    node = json.loads(objects["zarr.json"].to_bytes())
    return json.dumps(node, separators=(",", ":")).encode()
