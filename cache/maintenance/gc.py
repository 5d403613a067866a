"""Garbage collection: plan, then delete, old generations, unused streams and leftover files."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmfuseError
from cache.format.generations import Generation, current_generation, open_store, read_generation
from cache.format.streams import StreamKey
from cache.layout import DatasetPaths, GenerationPaths, Home, StreamPaths
from cache.runs import list_runs
from cache.storage.leases import is_alive
from cache.storage.objects import DamagedError, delete, get_record, orphans, user_errors

MIN_AGE_SECONDS = 3600.0  # younger files may belong to a process that is still writing


@dataclass(frozen=True)
class Garbage:
    """Files that can be deleted together.

    Attributes:
        dataset, name: what they belong to.
        why: `old generation`, `unreferenced stream`, `orphan`, `deleted run`, `old baseline`.
        paths: files and folders, in the order of deletion.
        bytes: freed by deleting them.
    """

    dataset: str
    name: str
    why: str
    paths: tuple[Path, ...]
    bytes: int


def plan_gc(home: Home, *, streams: bool = False) -> list[Garbage]:
    """List what can be deleted; deletes nothing.

    Always deleted runs, old generations and leftovers of killed processes. With `streams`, also
    whole streams that no run used and that have a newer stream of the same encoder and modality.

    Args:
        home: where.
        streams: whether streams of older fingerprints are garbage.

    Raises:
        MmfuseError: if a newer mmfuse wrote a store, or a pointer is damaged (verify first).
    """
    runs = list_runs(home)
    used = {(run.dataset, stream.fingerprint) for run in runs for stream in run.streams}
    snapshots = {run.snapshot for run in runs}
    found = [_item("-", path.name, "deleted run", [path]) for path in _deleted_runs(home)]
    for dataset in home.datasets():
        paths = DatasetPaths.of(home, dataset)
        open_store(paths, dataset, create=False)
        by_stream = _streams(paths)
        for stream, generations in by_stream.items():
            found += _old_generations(dataset, stream, generations)
        if streams:
            found += _unreferenced(dataset, by_stream, used)
        found += _orphans(dataset, paths, by_stream, snapshots)
        found += _old_baselines(dataset, paths, by_stream)
    return found


def _old_baselines(
    dataset: str, paths: DatasetPaths, by_stream: dict[StreamPaths, list[Generation]]
) -> Iterator[Garbage]:
    """Fitted baselines that are damaged, or of streams that are gone."""
    there = {one.key.fingerprint for several in by_stream.values() for one in several}
    for path in sorted(paths.baselines.glob("*.json")):
        try:
            record = get_record(path)
        except DamagedError:
            record = {"streams": [""]}
        if record is not None and not set(record["streams"]) <= there:
            yield _item(dataset, path.stem, "old baseline", [path])


def collect_garbage(garbage: Iterable[Garbage]) -> int:
    """Delete the files of a plan; returns the bytes freed.

    Raises:
        MmfuseError: if a file cannot be deleted.
    """
    freed = 0
    for item in garbage:
        for path in item.paths:
            with user_errors(path):
                _remove(path)
        freed += item.bytes
    return freed


def _deleted_runs(home: Home) -> list[Path]:
    return sorted(home.deleted_runs.iterdir()) if home.deleted_runs.is_dir() else []


def _streams(paths: DatasetPaths) -> dict[StreamPaths, list[Generation]]:
    found: dict[StreamPaths, list[Generation]] = {}
    for folder in sorted(p for p in paths.streams.glob("*/*") if p.is_dir()):
        stream = paths.stream(f"{folder.parent.name}/{folder.name}")
        found[stream] = []
        for number in stream.generations():
            with contextlib.suppress(DamagedError):
                generation = read_generation(stream.generation(number))
                if generation is not None:
                    found[stream].append(generation)
    return found


def _old_generations(
    dataset: str, stream: StreamPaths, generations: list[Generation]
) -> Iterator[Garbage]:
    """Generations that readers do not see: older ones, and complete ones left unpublished."""
    seen = current_generation(stream)
    if seen is None:
        return
    for generation in generations:
        left = generation.number < seen[0] or generation.complete()
        if generation.number != seen[0] and left and not _is_leased(generation.paths):
            name = f"{stream.label} generation {generation.number}"
            yield _item(dataset, name, "old generation", _of_generation(generation.paths))


def _unreferenced(
    dataset: str, by_stream: dict[StreamPaths, list[Generation]], used: set[tuple[str, str]]
) -> Iterator[Garbage]:
    newest: dict[str, float] = {}
    keys: dict[StreamPaths, StreamKey] = {}
    for stream, generations in by_stream.items():
        if generations and stream.current.exists():
            keys[stream] = generations[-1].key
            name, made = keys[stream].name, stream.current.stat().st_mtime
            newest[name] = max(newest.get(name, 0.0), made)
    for stream, key in keys.items():
        older = stream.current.stat().st_mtime < newest[key.name]
        busy = any(_is_leased(generation.paths) for generation in by_stream[stream])
        if older and not busy and (dataset, key.fingerprint) not in used:
            paths: list[Path] = [stream.current]
            for generation in by_stream[stream]:
                paths += _of_generation(generation.paths)
            yield _item(dataset, stream.label, "unreferenced stream", [*paths, stream.meta])


def _orphans(
    dataset: str,
    paths: DatasetPaths,
    by_stream: dict[StreamPaths, list[Generation]],
    snapshots: set[str],
) -> Iterator[Garbage]:
    unfinished = orphans(paths.scratch)
    if unfinished:
        yield _item(dataset, f"{len(unfinished)} unfinished files", "orphan", unfinished)
    named = snapshots | {
        seen[1] for stream in by_stream if (seen := current_generation(stream)) is not None
    }
    lone = [p for p in paths.snapshots.glob("*") if p.stem not in named and _is_old(p)]
    if lone:
        yield _item(dataset, f"{len(lone)} files of old samples", "orphan", lone)
    leftovers = [
        path
        for generations in by_stream.values()
        for generation in generations
        if generation.complete() and not _is_leased(generation.paths)
        for folder in (generation.paths.journal, generation.paths.claims)
        for path in folder.glob("*")
    ]
    if leftovers:
        yield _item(dataset, f"{len(leftovers)} leftovers of finished shards", "orphan", leftovers)
    for stream in by_stream:
        for number in stream.generations():
            generation_paths = stream.generation(number)
            if not generation_paths.record.exists() and _is_old(generation_paths.meta):
                left = [generation_paths.group, generation_paths.meta]  # an interrupted deletion
                yield _item(dataset, f"{stream.label} generation {number}", "orphan", left)
    groups = {g.paths.group for generations in by_stream.values() for g in generations}
    records = {
        stream.generation(number).group for stream in by_stream for number in stream.generations()
    }
    for group in sorted(p for p in paths.zarr.glob("*/*") if p.is_dir()):
        if group not in groups | records and _is_old(group):
            yield _item(dataset, group.relative_to(paths.zarr).as_posix(), "orphan", [group])


def _of_generation(paths: GenerationPaths) -> list[Path]:
    """Paths to delete, commits first: a kill leaves an incomplete generation, no false one."""
    proofs = [paths.commits, paths.seal, paths.seal_copy, paths.journal]
    return [*proofs, paths.group, paths.record, paths.meta]


def _is_leased(paths: GenerationPaths) -> bool:
    return any(is_alive(path) for path in paths.claims.glob("*.json"))


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > MIN_AGE_SECONDS
    except FileNotFoundError:
        return False


def _item(dataset: str, name: str, why: str, paths: list[Path]) -> Garbage:
    there = [path for path in paths if path.exists()]
    files = {f for path in there for f in ([path] if path.is_file() else path.rglob("*"))}
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Garbage(dataset, name, why, tuple(there), size)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        delete(path)
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            _remove(child)
        try:
            path.rmdir()
        except OSError as error:
            raise MmfuseError(f"{path} is in use by another process; run it again") from error
