"""Repair: damaged rows are discarded, so that the next `extract` encodes only those again.

Nothing damaged is read. In a pooled stream, the commit objects of damaged shards are deleted; a
sequence stream is split into parts first, since its shards of frames are shared by many rows.
Records that can be restored are written again.
"""

import json
from collections import defaultdict
from collections.abc import Iterable

from cache.format.generations import Generation, generation_of, read_generation
from cache.layout import DatasetPaths, GenerationPaths, Home
from cache.maintenance.verify import Damage
from cache.storage.objects import DamagedError, delete, put_record
from cache.writing.sequences import split_into_parts


def repair(home: Home, damages: Iterable[Damage]) -> None:
    """Discard damaged rows and files; run the extract commands afterwards.

    Raises:
        MmfuseError: if the store cannot be written.
    """
    by_generation: dict[tuple[str, str, int], list[Damage]] = defaultdict(list)
    for damage in damages:
        if damage.generation is not None:
            by_generation[damage.dataset, damage.label, damage.generation].append(damage)
        else:  # a pointer, snapshot or store record: the next extract writes it again
            delete(damage.path)
            if damage.what == "snapshot":
                delete(damage.path.with_suffix(".parquet"))
    for (dataset, label, number), found in by_generation.items():
        stream = DatasetPaths.of(home, dataset).stream(label)
        _repair_generation(stream.generation(number), found)


def extract_commands(damages: Iterable[Damage]) -> list[str]:
    """The extract commands that encode the discarded rows again."""
    words = {(d.dataset, d.label.partition("/")[0].rpartition("-")[0]) for d in damages if d.label}
    return [f"mmfuse extract --dataset {name} --encoder {word}" for name, word in sorted(words)]


def _repair_generation(paths: GenerationPaths, damages: list[Damage]) -> None:
    if any(damage.what == "record" for damage in damages):
        _restore_record(paths)
    try:
        generation = read_generation(paths)
    except DamagedError:
        generation = None
    nodes = [damage.path for damage in damages if damage.what == "node"]
    for path in nodes:
        delete(path)
    if nodes and generation is not None:
        from cache.format.zarr_metadata import publish_nodes  # it imports zarr

        delete(paths.nodes)
        publish_nodes(generation)
    if generation is not None and generation.spec.sequence and paths.seal.exists():
        _unseal(generation, damages)
        return
    for damage in damages:
        if damage.shard is not None:
            delete(paths.commit(damage.shard))


def _unseal(generation: Generation, damages: list[Damage]) -> None:
    """Split into parts if rows are damaged; restore a damaged seal from its copy."""
    seal = generation.seal()
    if seal is None or any(damage.what in {"rows", "commit"} for damage in damages):
        split_into_parts(generation)
        return
    for damage in damages:
        if damage.what == "seal":
            put_record(damage.path, seal, generation.paths.stream.dataset.scratch)


def _restore_record(paths: GenerationPaths) -> None:
    """Restore a record from the Zarr group's attributes, or delete it: rows are encoded again."""
    delete(paths.record)
    try:
        node = json.loads((paths.group / "zarr.json").read_bytes())
        record = node["attributes"]["mmfuse"]
        generation_of(record, paths)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    put_record(paths.record, record, paths.stream.dataset.scratch)
