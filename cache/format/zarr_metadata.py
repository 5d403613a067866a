"""Zarr metadata of a generation: the `zarr.json` of its groups and arrays, written once.

It is what zarr's own `create_array` gives, as compact JSON, so that any Zarr v3 reader opens a
store without mmfuse.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from cache.format.generations import Generation
from cache.format.grid import Grid
from cache.format.reader import FLAT_ROWS, Reader
from cache.format.zarr_arrays import flat, group, sharded
from cache.storage.objects import content_digest, put, put_record


def publish_nodes(generation: Generation) -> None:
    """Write the missing Zarr metadata of a pooled or a sealed generation."""
    if not generation.spec.sequence:
        publish_pooled(generation)
    elif generation.seal() is not None:
        publish_sequence(generation, Reader(generation).frame_grid, FLAT_ROWS)


def publish_pooled(generation: Generation) -> None:
    """Write the missing `zarr.json` files of a pooled generation; they never change."""
    rows, flat_rows = generation.rows, min(generation.rows, generation.grid.shard_rows)
    arrays = {
        "values": lambda: sharded(generation.grid),
        "present": lambda: flat((rows,), "bool", flat_rows),
        "state": lambda: flat((rows,), "uint8", flat_rows),
        "inputs": lambda: flat((rows, 16), "uint8", flat_rows),
    }
    _publish(generation, arrays)


def publish_sequence(generation: Generation, frames: Grid, flat_rows: int) -> None:
    """Write the `zarr.json` files of a sequence generation, once its frames are counted."""
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
