"""Mending: what is damaged is taken back, so that the next `extract` encodes those rows alone.

Nothing that is damaged is read. Of a pooled stream the commit objects of damaged shards go; of a
sequence stream the sound rows are cut into parts again first, since shards of frames are shared by
many rows. Records that can be made again are made again.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.format.generations import Commit, Generation, Stored, generation_of, read_generation
from cache.format.reader import Reader
from cache.format.streams import ABSENT, FAILED, OK
from cache.layout import DatasetPaths, GenerationPaths, Home
from cache.maintenance.verify import Damage
from cache.storage.objects import Damaged, content_digest, delete, put, put_record


def take_back(home: Home, damages: Iterable[Damage]) -> None:
    """Take back what was found damaged; run the extract commands afterwards.

    Raises:
        MmfuseError: if the store cannot be written.
    """
    by_generation: dict[tuple[str, str, int], list[Damage]] = defaultdict(list)
    for damage in damages:
        if damage.generation is not None:
            by_generation[damage.dataset, damage.label, damage.generation].append(damage)
        else:  # a pointer, a snapshot, the store's record: the next extract writes them anew
            delete(damage.path)
            if damage.what == "snapshot":
                delete(damage.path.with_suffix(".parquet"))
    for (dataset, label, number), found in by_generation.items():
        stream = DatasetPaths.of(home, dataset).stream(label)
        _take_back_generation(stream.generation(number), found)


def commands(damages: Iterable[Damage]) -> list[str]:
    """The extract commands that encode again what was taken back."""
    words = {(d.dataset, d.label.partition("/")[0].rpartition("-")[0]) for d in damages if d.label}
    return [f"mmfuse extract --dataset {name} --encoder {word}" for name, word in sorted(words)]


def _take_back_generation(paths: GenerationPaths, damages: list[Damage]) -> None:
    if any(damage.what == "record" for damage in damages):
        _restore_record(paths)
    try:
        generation = read_generation(paths)
    except Damaged:
        generation = None
    nodes = [damage.path for damage in damages if damage.what == "node"]
    for path in nodes:
        delete(path)
    if nodes and generation is not None:
        from cache.format.zarr_metadata import publish_nodes  # zarr: only where something is lost

        delete(paths.nodes)
        publish_nodes(generation)
    if generation is not None and generation.spec.sequence and paths.seal.exists():
        _unseal(generation, damages)
        return
    for damage in damages:
        if damage.shard is not None:
            delete(paths.commit(damage.shard))


def _unseal(generation: Generation, damages: list[Damage]) -> None:
    """Cut parts where rows are damaged; a damaged seal alone is written again from its copy."""
    seal = generation.seal()
    if seal is None or any(damage.what in {"rows", "commit"} for damage in damages):
        cut_again(generation)
        return
    for damage in damages:
        if damage.what == "seal":
            put_record(damage.path, seal, generation.paths.stream.dataset.scratch)


def _restore_record(paths: GenerationPaths) -> None:
    """The record is in the Zarr group's attributes too; without it the rows are encoded again."""
    delete(paths.record)
    try:
        node = json.loads((paths.group / "zarr.json").read_bytes())
        record = node["attributes"]["mmfuse"]
        generation_of(record, paths)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    put_record(paths.record, record, paths.stream.dataset.scratch)


def cut_again(generation: Generation) -> None:
    """Cut the sound rows of an assembled sequence stream into parts again, and unseal it.

    Shards of rows that hold a row which is not sound lose their commit. What a kill interrupts
    costs no more than that the rest is encoded again.
    """
    paths, scratch = generation.paths, generation.paths.stream.dataset.scratch
    parts = _Parts(generation)
    commits: dict[int, Commit | None] = {}
    for number, commit in generation.commits().items():
        part = parts.cut(commit)
        if part is None:
            commits[number] = None
            continue
        put(paths.part(number), part, scratch)
        objects = {**commit.objects, "part": Stored(len(part), content_digest(part))}
        commits[number] = replace(commit, objects=objects)
    delete(paths.seal)
    delete(paths.seal_copy)
    delete(paths.nodes)
    for number, renewed in commits.items():
        if renewed is None:
            delete(paths.commit(number))
        else:
            put_record(paths.commit(number), renewed.record(), scratch)


class _Parts:
    """Parts cut from the assembled arrays, as far as these are sound."""

    def __init__(self, generation: Generation) -> None:
        self._generation, self._reader = generation, Reader(generation)
        self._offsets = _offsets(generation, self._reader)

    def cut(self, commit: Commit) -> bytes | None:
        """The part of a shard, or None if one of its rows is not sound."""
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
        buffer = io.BytesIO()
        np.savez(buffer, values=values, lengths=lengths, state=state, inputs=inputs)
        return buffer.getvalue()

    def _state(self, commit: Commit) -> NDArray[np.uint8] | None:
        """From lengths and failures: the array may be what is damaged."""
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
    except Damaged:
        if len(generation.commits()) < len(generation.shards):
            return None
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(generation.lengths())])
