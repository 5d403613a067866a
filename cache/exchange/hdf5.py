"""HDF5 export and import: a dataset's streams in one file that any HDF5 reader opens.

Layout (all numbers little-endian, all text UTF-8):

    /                     attributes format = "mmfuse-features", schema = 1, dataset
    /samples              attributes task = {"kind", "names"}, modalities, source, as JSON
    /samples/id           (N,) text;  /samples/split (N,) text;  /samples/group (N,) text, if any
    /samples/target       (N,) int64 class numbers | (N, C) float32 labels | (N,) float64 values
    /streams/<encoder>-<fp8>/<modality>        attributes encoder, fingerprint, modality, kind,
                                               dtype, sequence, and fields, provenance as JSON
        values            (N, D), or (sum T, D) with offsets (N + 1,) int64; float16 or float32
        present (N,) bool; state (N,) uint8: 1 ok, 2 absent, 3 failed; inputs (N, 16) uint8
        failures          text: JSON rows [row, reason, detail, transient]
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.exchange.deposit import StreamContent, deposit
from cache.feature_store import FeatureStore
from cache.format.streams import OK, StreamInfo, StreamKey, StreamSpec
from cache.layout import Home
from cache.progress import Track, untracked
from cache.samples import Modality, Samples, Task
from cache.storage.objects import user_errors
from cache.writing.reuse import NO_FAILURES, read_failures

FORMAT, SCHEMA = "mmfuse-features", 1
BLOCK = 1 << 16  # rows that are in memory at once


def export_hdf5(
    store: FeatureStore,
    path: Path,
    words: Sequence[str] | None = None,
    *,
    track: Track = untracked,
) -> list[StreamInfo]:
    """Write streams of a dataset into a file, which is replaced when all is written.

    Args:
        store: of the dataset.
        path: the file to write.
        words: which streams, as in `FeatureStore.resolve`; None means all.
        track: progress over blocks of rows.

    Raises:
        MmfuseError: if a word matches no stream, a stream is damaged, or the disk is not writable.
    """
    found = store.resolve(words)
    unfinished = path.with_name(f".{path.name}.partial")
    with user_errors(path):
        try:
            with h5py.File(unfinished, "w") as file:
                file.attrs.update({"format": FORMAT, "schema": SCHEMA, "dataset": store.dataset})
                _write_samples(file.create_group("samples"), store.samples(found[0]))
                for info in found:
                    group = file.create_group(f"streams/{info.key.label}")
                    _write_stream(group, store, info, track)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return found


def import_hdf5(
    home: Home, path: Path, dataset: str | None = None, *, track: Track = untracked
) -> tuple[str, list[StreamInfo]]:
    """Import a file of `export_hdf5` exactly; existing streams are left unchanged.

    Args:
        home: where to.
        path: the file.
        dataset: another name for the dataset.
        track: progress over the shards that are written.

    Returns:
        The dataset's name, and its streams that the file has.

    Raises:
        MmfuseError: if the file is missing, of another format, newer, or inconsistent.
    """
    with _opened(path) as file:
        name = dataset or str(file.attrs["dataset"])
        store, samples = FeatureStore(home, name), _read_samples(file["samples"])
        return name, [
            _read_stream(group, store, samples, track) for group in _groups(file["streams"])
        ]


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise MmfuseError(f"no such file: {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise MmfuseError(f"{path} is not an HDF5 file, or it is damaged") from error
    if file.attrs.get("format") != FORMAT:
        file.close()
        raise MmfuseError(
            f"{path} is HDF5, but not exported by mmfuse; to import one of its arrays, name it "
            "(--array) and the stream that it becomes (--stream ENCODER/MODALITY)"
        )
    if int(file.attrs["schema"]) > SCHEMA:
        file.close()
        raise MmfuseError(f"{path} was written by a newer mmfuse; upgrade mmfuse")
    return file


def _write_samples(group: h5py.Group, samples: Samples) -> None:
    group.attrs["task"] = json.dumps({"kind": samples.task.kind, "names": samples.task.names})
    group.attrs["modalities"] = json.dumps([[m.name, m.kind] for m in samples.modalities])
    group.attrs["source"] = samples.source
    text = h5py.string_dtype()
    group.create_dataset("id", data=samples.ids, dtype=text)
    group.create_dataset("split", data=samples.splits, dtype=text)
    if samples.groups is not None:
        groups = ["" if name is None else name for name in samples.groups]  # "": a row alone
        group.create_dataset("group", data=groups, dtype=text)
    group.create_dataset("target", data=samples.targets)


def _read_samples(group: h5py.Group) -> Samples:
    task = json.loads(group.attrs["task"])
    return Samples(
        ids=_words(group["id"]),
        splits=_words(group["split"]),
        targets=group["target"][:],
        groups=_groups_of(group),
        task=Task(task["kind"], tuple(task["names"])),
        modalities=tuple(Modality(*m) for m in json.loads(group.attrs["modalities"])),
        source=group.attrs["source"],
    )


def _groups_of(group: h5py.Group) -> NDArray[np.object_] | None:
    """(N,) names of groups, None for a row alone; None where the data set has no groups."""
    if "group" not in group:
        return None
    words = _words(group["group"])
    words[words == ""] = None
    return words


def _words(column: h5py.Dataset) -> NDArray[np.object_]:
    words: NDArray[np.object_] = np.asarray(column.asstr()[:], object)
    return words


def _write_stream(group: h5py.Group, store: FeatureStore, info: StreamInfo, track: Track) -> None:
    key, reader = info.key, store.reader(info.key)
    group.attrs.update(
        {
            "encoder": key.encoder,
            "fingerprint": key.fingerprint,
            "modality": key.modality,
            "kind": info.kind,
            "dtype": info.dtype,
            "sequence": info.sequence,
            "fields": json.dumps(info.fields),
            "provenance": json.dumps(info.provenance),
        }
    )
    grid = reader.frame_grid
    values = group.create_dataset("values", (grid.rows, grid.width), grid.dtype)
    starts = range(0, grid.rows, BLOCK)
    for start in track(starts, f"export {key.name} of {store.dataset}: blocks", len(starts)):
        stop = min(grid.rows, start + BLOCK)
        values[start:stop] = reader.gather(np.arange(start, stop))
    if info.sequence:
        group.create_dataset("offsets", data=reader.offsets)
    small = reader.small()
    group.create_dataset("present", data=small.state == OK)
    group.create_dataset("state", data=small.state)
    group.create_dataset("inputs", data=small.inputs)
    failures = [list(row) for row in read_failures(reader.generation).iter_rows()]
    group.create_dataset("failures", data=json.dumps(failures), dtype=h5py.string_dtype())


def _read_stream(
    group: h5py.Group, store: FeatureStore, samples: Samples, track: Track
) -> StreamInfo:
    about: dict[str, Any] = dict(group.attrs)
    key = StreamKey(str(about["encoder"]), str(about["fingerprint"]), str(about["modality"]))
    sequence = bool(about["sequence"])
    spec = StreamSpec(
        str(about["kind"]),
        int(group["values"].shape[1]),
        str(about["dtype"]),
        sequence,
        json.loads(about["fields"]),
        json.loads(about["provenance"]),
    )
    rows = json.loads(group["failures"].asstr()[()])
    content = StreamContent(
        group["inputs"][:],
        group["state"][:],
        group["values"][:],
        group["offsets"][:] if sequence else None,
        pl.DataFrame(rows, schema=NO_FAILURES.schema, orient="row"),
    )
    return deposit(store, key, spec, samples, content, track=track)


def _groups(top: h5py.Group) -> Iterator[h5py.Group]:
    for encoder in sorted(top):
        for modality in sorted(top[encoder]):
            yield top[encoder][modality]
