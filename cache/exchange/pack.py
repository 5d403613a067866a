"""Packs: a feature cache as one file to share: features, ids, splits and targets, no raw data.

A pack is a ZIP file whose members are stored, not compressed:

    manifest.json                    format, schema, licence, datasets, streams, and of every other
                                     member its length and blake2b-128; `check` is its own
    <d>/samples.json                 ids, splits, groups, targets, task, modalities of dataset d
    <d>/<s>/values.npy               (N, D), or (sum T, D) with offsets.npy (N + 1,)
    <d>/<s>/state.npy inputs.npy     (N,) 1 ok, 2 absent, 3 failed; (N, 16) digests
    <d>/<s>/failures.json            rows [row, reason, detail, transient]

It holds no raw data: texts and images are there as vectors and digests only.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo
from cache.layout import Home
from cache.progress import Track, untracked
from cache.samples import Samples
from cache.storage.objects import pack_record, user_errors
from cache.writing.reuse import read_failures

FORMAT, SCHEMA = "mmfuse-pack", 1
BLOCK = 1 << 16  # rows that are in memory at once
_DATE = (1980, 1, 1, 0, 0, 0)  # the same cache gives the same bytes


@dataclass(frozen=True)
class PackResult:
    """Result of packing.

    Attributes:
        path: the file.
        bytes: its length.
        streams: by dataset.
    """

    path: Path
    bytes: int
    streams: Mapping[str, tuple[StreamInfo, ...]]


def pack(
    home: Home,
    path: Path,
    datasets: Sequence[str] | None = None,
    *,
    licences: Mapping[str, str] | None = None,
    words: Sequence[str] | None = None,
    track: Track = untracked,
) -> PackResult:
    """Write complete streams of datasets, with their samples, into one file.

    Args:
        home: where from.
        path: the file to write; an existing one is replaced when all is written.
        datasets: names; None means all.
        licences: one line per dataset.
        words: which streams, as in `FeatureStore.resolve`; None means all.
        track: progress over blocks of rows.

    Raises:
        MmfuseError: if there is nothing to pack, a stream is damaged, or the disk is not writable.
    """
    names = home.datasets() if datasets is None else list(datasets)
    if not names:
        raise MmfuseError(f"no features in {home.root}; run: mmfuse extract")
    unfinished = path.with_name(f".{path.name}.partial")
    streams: dict[str, tuple[StreamInfo, ...]] = {}
    with user_errors(path):
        try:
            with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
                members = _Members(file)
                entries = []
                for number, name in enumerate(names):
                    store = FeatureStore(home, name)
                    streams[name] = tuple(store.resolve(words))
                    entry = _dataset(members, f"d{number}", store, streams[name], track)
                    entries.append({**entry, "licence": (licences or {}).get(name, "")})
                members.finish({"format": FORMAT, "schema": SCHEMA, "datasets": entries})
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return PackResult(path, path.stat().st_size, streams)


@dataclass
class _Members:
    """Writes members and collects their lengths and digests for the manifest."""

    file: zipfile.ZipFile
    digests: dict[str, list[object]] = field(default_factory=dict)

    def write(self, name: str, parts: Iterator[bytes | memoryview]) -> None:
        state, size = hashlib.blake2b(digest_size=16), 0
        with self._open(name) as member:
            for part in parts:
                member.write(part)
                state.update(part)
                size += len(part)
        self.digests[name] = [size, state.hexdigest()]

    def json(self, name: str, content: object) -> None:
        self.write(name, iter([json.dumps(content).encode()]))

    def array(self, name: str, array: NDArray[Any]) -> None:
        blocks = (array[start : start + BLOCK] for start in range(0, len(array), BLOCK))
        self.blocks(name, array.shape, array.dtype, blocks)

    def blocks(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        blocks: Iterator[NDArray[Any]],
    ) -> None:
        self.write(name, _npy(shape, dtype, blocks))

    def finish(self, manifest: Mapping[str, object]) -> None:
        with self._open("manifest.json") as member:
            member.write(pack_record({**manifest, "members": self.digests}))

    def _open(self, name: str) -> IO[bytes]:
        return self.file.open(zipfile.ZipInfo(name, _DATE), "w", force_zip64=True)


def _npy(
    shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterator[NDArray[Any]]
) -> Iterator[bytes | memoryview]:
    header = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    yield header.getvalue()
    for block in blocks:
        yield np.ascontiguousarray(block).data.cast("B")


def _dataset(
    members: _Members,
    folder: str,
    store: FeatureStore,
    streams: Sequence[StreamInfo],
    track: Track,
) -> dict[str, object]:
    members.json(f"{folder}/samples.json", describe(store.samples(streams[0])))
    entries = []
    for number, info in enumerate(streams):
        _stream(members, f"{folder}/s{number}", store, info, track)
        entries.append(
            {
                "encoder": info.key.encoder,
                "fingerprint": info.key.fingerprint,
                "modality": info.key.modality,
                "kind": info.kind,
                "width": info.width,
                "dtype": info.dtype,
                "sequence": info.sequence,
                "fields": info.fields,
                "provenance": info.provenance,
            }
        )
    return {"name": store.dataset, "folder": folder, "streams": entries}


def _stream(
    members: _Members, folder: str, store: FeatureStore, info: StreamInfo, track: Track
) -> None:
    reader = store.reader(info.key)
    grid = reader.frame_grid
    starts = range(0, grid.rows, BLOCK)
    label = f"pack {info.key.name} of {store.dataset}: blocks"
    blocks = (
        reader.gather(np.arange(start, min(grid.rows, start + BLOCK)))
        for start in track(starts, label, len(starts))
    )
    members.blocks(f"{folder}/values.npy", (grid.rows, grid.width), np.dtype(grid.dtype), blocks)
    if info.sequence:
        members.array(f"{folder}/offsets.npy", reader.offsets)
    small = reader.small()
    members.array(f"{folder}/state.npy", small.state)
    members.array(f"{folder}/inputs.npy", small.inputs)
    failures = [list(row) for row in read_failures(reader.generation).iter_rows()]
    members.json(f"{folder}/failures.json", failures)


def describe(samples: Samples) -> dict[str, object]:
    """Samples as JSON."""
    return {
        "ids": samples.ids.tolist(),
        "splits": samples.splits.tolist(),
        "groups": None if samples.groups is None else samples.groups.tolist(),
        "targets": [None if each != each else each for each in samples.targets.tolist()],  # noqa: PLR0124 - NaN
        "task": [samples.task.kind, list(samples.task.names)],
        "modalities": [[m.name, m.kind] for m in samples.modalities],
        "source": samples.source,
    }
