"""Zarr nodes: the metadata of groups and arrays, made by zarr; the only file that imports it.

What is written is what zarr's own `create_array` gives, as compact JSON, so that any Zarr v3
reader opens a store without us.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from cache.format.generations import Generation
from cache.format.shards import Grid
from cache.storage.objects import content_digest, put, put_record


def memory_array(
    shape: tuple[int, ...],
    dtype: str,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """An array of ours in memory, and the objects it consists of by key.

    crc32c for each chunk, no compression, NaN where floats were never written, all chunks
    written whatever is in them.
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
    """`zarr.json` of an unsharded array that is cut along its first axis."""
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


def publish(generation: Generation) -> None:
    """Write the nodes of a pooled generation that are not there yet; they never change."""
    rows, flat_rows = generation.rows, min(generation.rows, generation.grid.shard_rows)
    arrays = {
        "values": lambda: sharded(generation.grid),
        "present": lambda: flat((rows,), "bool", flat_rows),
        "state": lambda: flat((rows,), "uint8", flat_rows),
        "inputs": lambda: flat((rows, 16), "uint8", flat_rows),
    }
    _publish(generation, arrays)


def publish_sequence(generation: Generation, frames: Grid, flat_rows: int) -> None:
    """Write the nodes of a sequence generation, once its number of frames is known."""
    rows = generation.rows
    arrays = {
        "values": lambda: sharded(frames),
        "offsets": lambda: flat((rows + 1,), "int64", min(rows + 1, flat_rows)),
        "present": lambda: flat((rows,), "bool", min(rows, flat_rows)),
        "state": lambda: flat((rows,), "uint8", min(rows, flat_rows)),
        "inputs": lambda: flat((rows, 16), "uint8", min(rows, flat_rows)),
    }
    _publish(generation, arrays)


def _publish(generation: Generation, arrays: Mapping[str, Callable[[], bytes]]) -> None:
    paths = generation.paths
    dataset = paths.stream.dataset
    made = {folder: group({}) for folder in (dataset.zarr, paths.group.parent)}
    made |= {paths.group / name: make() for name, make in arrays.items()}
    made[paths.group] = group({"mmfuse": generation.attributes})
    digests = {}
    for folder, node in made.items():
        path = folder / "zarr.json"
        if not _is_json(path):  # another version of zarr may have written it in its own way
            put(path, node, dataset.scratch)
        digests[path.relative_to(dataset.zarr).as_posix()] = content_digest(path.read_bytes())
    put_record(paths.nodes, {"nodes": digests}, dataset.scratch)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True
