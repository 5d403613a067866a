"""Snapshots that share their rows: a dataset may have more modalities in one than in another.

Features that were imported bring modalities which the dataset's own table lacks. Rows are the same
rows all the same, so streams are kept under the snapshot that knows every modality.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from cache.format.generations import SCHEMA, current
from cache.layout import DatasetPaths, StreamPaths
from cache.samples import Modality, Samples, core_id, snapshot_modalities, write_snapshot
from cache.storage.objects import Damaged, put_record


def keep(samples: Samples, paths: DatasetPaths) -> str:
    """Keep the samples and return the snapshot's id: of the widest one with the same rows.

    Streams with the same rows that were made before a modality was known are pointed to it too.
    """
    samples = widened(samples, paths)
    name = write_snapshot(samples, paths)
    if any(seen[1] != name for _, seen in _pointers(paths)):
        adopt(samples, paths)
    return name


def widened(samples: Samples, paths: DatasetPaths, *more: Modality) -> Samples:
    """The samples with every modality that this dataset's streams know of the same rows.

    Those that are known already keep their order, so that the same rows are the same snapshot in
    whichever order the modalities came.
    """
    core, known = core_id(samples), dict[str, Modality]()
    for snapshot in sorted({seen[1] for _, seen in _pointers(paths)}):
        with contextlib.suppress(Damaged):  # `cache verify` names it
            other, modalities = snapshot_modalities(snapshot, paths)
            if other == core and len(modalities) > len(known):
                known = {m.name: m for m in modalities} | known
            elif other == core:
                known |= {m.name: m for m in modalities if m.name not in known}
    known |= {m.name: m for m in samples.modalities}
    for modality in more:
        known.setdefault(modality.name, modality)
    modalities = tuple(known.values())
    return samples if modalities == samples.modalities else replace(samples, modalities=modalities)


def adopt(samples: Samples, paths: DatasetPaths) -> None:
    """Point every stream with the same rows to these samples, which know all its modalities."""
    name, core = write_snapshot(samples, paths), core_id(samples)
    for stream, (generation, snapshot) in _pointers(paths):
        if snapshot == name:
            continue
        with contextlib.suppress(Damaged):
            other, modalities = snapshot_modalities(snapshot, paths)
            if other == core and set(modalities) <= set(samples.modalities):
                record = {"schema": SCHEMA, "generation": generation, "snapshot": name}
                put_record(stream.current, record, paths.scratch)


def _pointers(paths: DatasetPaths) -> Iterator[tuple[StreamPaths, tuple[int, str]]]:
    for folder in sorted(p for p in paths.streams.glob("*/*") if p.is_dir()):
        stream = paths.stream(f"{folder.parent.name}/{folder.name}")
        with contextlib.suppress(Damaged):
            seen = current(stream)
            if seen is not None:
                yield stream, seen
