"""Opening a stream to write: find or create the generation of its rows, drop lost shards."""

import contextlib

from cache.errors import MmfuseError
from cache.format.digest_index import identity
from cache.format.generations import (
    Generation,
    create_generation,
    current_generation,
    read_generation,
)
from cache.format.grid import Grid
from cache.format.streams import DTYPES, StreamKey, StreamSpec, check_key
from cache.layout import DatasetPaths, StreamPaths
from cache.storage.objects import DamagedError, delete
from cache.writing.writer import Rows


def open_generation(
    paths: DatasetPaths, key: StreamKey, spec: StreamSpec, rows: Rows, *, retry_failed: bool
) -> Generation:
    """The generation to fill; commits whose objects are missing or truncated are deleted.

    Raises:
        MmfuseError: for names or a dtype that cannot be stored, or a fingerprint that
            shares only its first digits with the stored one.
    """
    check_key(key)
    if spec.dtype not in DTYPES:
        raise MmfuseError(f"{key.name}: stored dtype is one of {DTYPES}, not {spec.dtype!r}")
    generation = _find(paths.stream(key.label), key, spec, rows, retry_failed=retry_failed)
    _repair(generation)
    return generation


def check_same(found: StreamKey, key: StreamKey) -> None:
    """Check that the stored fingerprint is the requested one in all its digits.

    Raises:
        MmfuseError: naming both.
    """
    if found.fingerprint != key.fingerprint:
        raise MmfuseError(
            f"two fingerprints of {key.name} begin alike: {found.fingerprint} is stored, "
            f"{key.fingerprint} is requested; extract it under another --home"
        )


def _find(
    stream: StreamPaths, key: StreamKey, spec: StreamSpec, rows: Rows, *, retry_failed: bool
) -> Generation:
    name = identity(rows.inputs, rows.absent)
    while True:
        # One listing: a generation that another process creates afterwards takes the number tried
        # here, so that this process lists again and finds it.
        numbers = [n for n in stream.generations() if any(stream.generation(n).meta.iterdir())]
        same = [g for g in _generations(stream, key, numbers) if g.identity == name]
        base, retries = _preferred(same, current_generation(stream)), None
        if base is not None:
            if not (retry_failed and any(c.counts["failed"] for c in base.commits().values())):
                return base
            retries = base.number
            for generation in same:
                if generation.retries == retries and not generation.complete():
                    return generation
        paths = stream.generation(max([0, *numbers]) + 1)
        made = Generation(paths, key, spec, len(rows), name, retries, _grid(len(rows), spec))
        if create_generation(made):
            return made


def _grid(rows: int, spec: StreamSpec) -> Grid:
    if not spec.sequence:
        return Grid.plan(rows, spec.width, spec.dtype)
    from cache.writing.sequences import part_grid

    return part_grid(rows, spec.width, spec.dtype)


def _generations(stream: StreamPaths, key: StreamKey, numbers: list[int]) -> list[Generation]:
    found = []
    for number in numbers:
        with contextlib.suppress(DamagedError):  # reported by `cache verify`; its rows are not used
            generation = read_generation(stream.generation(number))
            if generation is not None:
                check_same(generation.key, key)
                found.append(generation)
    return found


def _preferred(same: list[Generation], seen: tuple[int, str] | None) -> Generation | None:
    """Of generations with the same rows: the current one, else a complete one, else the newest."""
    if not same:
        return None
    number = seen[0] if seen else -1
    return max(same, key=lambda g: (g.number == number, g.complete(), g.number))


def _repair(generation: Generation) -> None:
    """Delete commits whose objects are missing or truncated; write missing Zarr metadata."""
    sealed = generation.spec.sequence and generation.paths.seal.exists()
    lost = generation.commits().keys() - generation.intact().keys()
    if sealed and (lost or len(generation.commits()) < len(generation.shards)):
        from cache.writing.sequences import split_into_parts  # it imports zarr

        split_into_parts(generation)
        return
    for number in lost:
        delete(generation.paths.commit(number))
    if (sealed or not generation.spec.sequence) and not generation.described():
        from cache.format.zarr_metadata import publish_nodes  # it imports zarr

        publish_nodes(generation)
