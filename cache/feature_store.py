"""FeatureStore: the cached feature streams of one dataset; stage 1 fills it, stage 2 reads it."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format.digest_index import Digests, zero_absent
from cache.format.generations import Generation, current_generation, open_store, read_generation
from cache.format.reader import Reader
from cache.format.streams import (
    StreamInfo,
    StreamKey,
    StreamSpec,
    StreamValues,
    resolve,
)
from cache.layout import DatasetPaths, Home
from cache.runs import RunRecord
from cache.samples import Samples
from cache.snapshots import publish_snapshot, read_snapshot, same_splits, snapshot_task
from cache.storage.objects import DamagedError, get_record, put_record, remove_orphans
from cache.writing.journal import Retry
from cache.writing.opening import check_same, open_generation
from cache.writing.reuse import read_failures
from cache.writing.writer import Rows, StreamWriter


class FeatureStore:
    """Every stream of one dataset.

    Raises:
        MmfuseError: if a newer mmfuse wrote this store.
    """

    def __init__(self, home: Home | str | os.PathLike[str] | None, dataset: str) -> None:
        self.home, self.dataset = Home.of(home), dataset
        self.paths = DatasetPaths.of(self.home, dataset)
        open_store(self.paths, dataset, create=False)
        self._readers: dict[StreamKey, tuple[object, Reader, str]] = {}
        self._samples: dict[str, Samples] = {}  # of the last snapshot that was asked for

    def streams(self) -> list[StreamInfo]:
        """All streams by label, complete or not, each as readers see it."""
        found = []
        for encoder in sorted(p for p in self.paths.streams.glob("*") if p.is_dir()):
            for modality in sorted(p for p in encoder.glob("*") if p.is_dir()):
                info = self._info(f"{encoder.name}/{modality.name}")
                if info is not None:
                    found.append(info)
        return found

    @property
    def task_kind(self) -> str | None:
        """The kind of task of the dataset: classes, labels or value; None without any stream."""
        kinds = (snapshot_task(info.snapshot, self.paths) for info in self.streams())
        return next((kind for kind in kinds if kind), None)

    def resolve(self, words: Sequence[str] | None) -> list[StreamInfo]:
        """The complete streams that words mean: `clip/image`, `clip-1a2b3c4d/image`, `clip`.

        None means all of them, one fingerprint a name.

        Raises:
            MmfuseError: where a word means no complete stream or several, or where the streams
                belong to different samples; the message names the command to run.
        """
        return resolve(self.dataset, self.streams(), words)

    def samples(self, info: StreamInfo) -> Samples:
        """Ids, splits and targets of a stream's rows.

        Raises:
            MmfuseError: if they are missing or damaged.
        """
        if info.snapshot not in self._samples:
            self._samples = {info.snapshot: read_snapshot(info.snapshot, self.paths)}
        return self._samples[info.snapshot]

    def are_samples_of(self, info: StreamInfo, snapshot: str) -> bool:
        """Whether a stream has the rows of a snapshot, rows of no split aside."""
        return same_splits(info.snapshot, snapshot, self.paths)

    def streams_of(self, record: RunRecord) -> dict[str, StreamInfo]:
        """By name, the streams that a run was trained on, whatever they hold now.

        Raises:
            MmfuseError: for one that is gone.
        """
        there = {(info.key.fingerprint, info.key.modality): info for info in self.streams()}
        found = {}
        for stream in record.streams:
            info = there.get((stream.fingerprint, stream.modality))
            if info is None:
                raise MmfuseError(
                    f"the features {stream.encoder}-{stream.fingerprint[:8]}/{stream.modality} "
                    f"that {record.id} was trained on are gone; run: mmfuse extract --dataset "
                    f"{record.dataset} --encoder {stream.encoder}"
                )
            found[stream.name] = info
        return found

    def inputs_of(self, record: RunRecord) -> dict[str, str]:
        """By name, the `inputs_digest` of each stream that a run was trained on.

        Raises:
            MmfuseError: if a stream is gone or not complete, or of other samples or inputs now.
        """
        again = f"run: mmfuse train --dataset {record.dataset} --method {record.method}"
        infos, found = self.streams_of(record), {}
        for stream in record.streams:
            info = infos[stream.name]
            self.reader(info.key)  # which a stream that is not complete does not have
            if not self.are_samples_of(info, record.snapshot):
                raise MmfuseError(
                    f"the samples of {record.dataset} changed since {record.id} was trained; "
                    f"{again}"
                )
            found[stream.name] = self.inputs_digest(info)
            if stream.inputs not in ("", found[stream.name]):
                raise MmfuseError(
                    f"what {stream.name} was made of changed since {record.id} was trained; {again}"
                )
        return found

    def inputs_digest(self, info: StreamInfo) -> str:
        """Digest of what was encoded, row for row, rows of no split aside: 32 hex digits.

        Raises:
            MmfuseError: if the stream is not complete, or damaged.
        """
        labelled = self.samples(info).splits != ""
        with self._naming_repair(info.key):
            inputs = self.reader(info.key).small().inputs
        return hashlib.blake2b(inputs[labelled].tobytes(), digest_size=16).hexdigest()

    def whole(self, key: StreamKey, order: NDArray[np.int64] | None = None) -> StreamValues:
        """Every row of a stream; each chunk's crc32c is checked while it is copied.

        Args:
            key: of the stream.
            order: (N,) the row that comes first, second and so on; None: as they are stored.

        Raises:
            MmfuseError: if the stream is not there, not complete, or damaged.
        """
        with self._naming_repair(key):
            return self.reader(key).whole(order)

    def rows(self, key: StreamKey, index: NDArray[np.int64]) -> NDArray[Any]:
        """(K, D) of rows in any order, repeats allowed, straight from the page cache.

        Raises:
            IndexError: for a row that is not there.
            MmfuseError: if the stream is not there, not complete, damaged, or of sequences.
        """
        with self._naming_repair(key):
            reader = self.reader(key)
            if reader.generation.spec.sequence:
                raise MmfuseError(f"{key.label} holds sequences; read them with sequences()")
            return reader.gather(_checked(index, reader.generation.rows))

    def sequences(
        self, key: StreamKey, index: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Frames (sum T, D) of rows in any order, and where each begins, (K + 1,).

        Raises:
            IndexError: for a row that is not there.
            MmfuseError: if the stream is not there, not complete, damaged, or pooled.
        """
        with self._naming_repair(key):
            reader = self.reader(key)
            if not reader.generation.spec.sequence:
                raise MmfuseError(f"{key.label} is pooled; read it with rows()")
            lengths, frames = reader.ragged(_checked(index, reader.generation.rows))
            return frames, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])

    def failures(self, key: StreamKey) -> pl.DataFrame:
        """row, id, file, reason, detail, transient of the rows that failed, by row.

        `file` is the path in the dataset's table, null where the cell was none or is not recorded.

        Raises:
            MmfuseError: if there is no such stream.
        """
        info = self._find(key)
        generation = self._generation(key, info.generation)
        table = read_failures(generation)
        ids = self.samples(info).ids if info.snapshot else np.full(info.rows, "", object)
        names = pl.Series("id", ids[table["row"].to_numpy()].tolist(), dtype=pl.String)
        known = self.failed_files(key)
        files = pl.Series("file", [known.get(name) for name in names], dtype=pl.String)
        return table.with_columns(names, files).select(
            "row", "id", "file", "reason", "detail", "transient"
        )

    def failed_files(self, key: StreamKey) -> dict[str, str]:
        """Files of failed rows by id, as extraction recorded them; empty where it did not."""
        try:
            found = get_record(self.paths.stream(key.label).report)
        except DamagedError:  # reported by `cache verify`; no feature depends on it
            return {}
        return dict((found or {}).get("files", {}))

    def writer(
        self,
        key: StreamKey,
        *,
        spec: StreamSpec,
        samples: Samples,
        inputs: Digests,
        absent: NDArray[np.bool_],
        retry_failed: Retry = False,
    ) -> StreamWriter:
        """Open a stream to fill it, or resume: the same rows are the same generation.

        Args:
            key: which stream.
            spec: what the encoder makes.
            samples: the rows, in the dataset's order.
            inputs: (N, 16) uint8 digests of the bytes behind each row; zeros mean that a row has
                none: it equals no other row and is never reused.
            absent: (N,) bool, rows without the modality.
            retry_failed: encode failed rows again (all, or those with these reasons), in a new
                generation.

        Raises:
            MmfuseError: if the store cannot be written, a newer mmfuse wrote it, or the modality is
                of another kind.
        """
        if inputs.shape != (len(samples), 16) or absent.shape != (len(samples),):
            raise ValueError(f"inputs {inputs.shape}, absent {absent.shape}, {len(samples)} rows")
        kinds = {modality.name: modality.kind for modality in samples.modalities}
        if kinds.get(key.modality, spec.kind) != spec.kind:
            raise MmfuseError(
                f"{key.name}: {key.modality} of {self.dataset} is {kinds[key.modality]}, "
                f"and these vectors are of {spec.kind}"
            )
        open_store(self.paths, self.dataset, create=True)
        remove_orphans(self.paths.scratch)
        snapshot = publish_snapshot(samples, self.paths)
        rows = Rows(zero_absent(inputs, absent), absent, snapshot)
        again = bool(retry_failed)
        generation = open_generation(self.paths, key, spec, rows, retry_failed=again)
        writer = StreamWriter(self.home, generation, rows, retry_failed)
        if generation.complete():
            writer.finish()  # ids or splits may have changed, or rows been restored
        return writer

    def keep_latency(self, key: StreamKey, seconds: Mapping[str, float] | None) -> None:
        """Store the seconds per new sample (`p50`, `p95`); None stores nothing."""
        if seconds is not None:
            put_record(self.paths.stream(key.label).latency, seconds, self.paths.scratch)

    def latency(self, key: StreamKey) -> dict[str, float] | None:
        """Seconds per new sample (`p50`, `p95`); None if they were never measured."""
        try:
            found = get_record(self.paths.stream(key.label).latency)
        except DamagedError:  # reported by `cache verify`; no feature depends on it
            return None
        return None if found is None else {name: found[name] for name in ("p50", "p95")}

    def _generation(self, key: StreamKey, number: int) -> Generation:
        generation = read_generation(self.paths.stream(key.label).generation(number))
        if generation is None:
            raise MmfuseError(f"{self.dataset}: no generation {number} of {key.label}")
        return generation

    def _info(self, label: str) -> StreamInfo | None:
        stream = self.paths.stream(label)
        seen = current_generation(stream)
        numbers = [seen[0]] if seen else list(reversed(stream.generations()))
        for number in numbers:
            generation = read_generation(stream.generation(number))
            if generation is not None:
                return _describe(generation, seen[1] if seen else "")
        return None

    def _find(self, key: StreamKey) -> StreamInfo:
        info = self._info(key.label)
        if info is None:
            raise MmfuseError(
                f"no features of {self.dataset} for {key.name}; run: "
                f"mmfuse extract --dataset {self.dataset} --encoder {key.encoder}"
            )
        check_same(info.key, key)
        return info

    def reader(self, key: StreamKey) -> Reader:
        """A reader of the current generation; reused while the pointer file is unchanged.

        Raises:
            MmfuseError: if the stream is not there or not complete.
        """
        held = self._readers.get(key)
        pointer = held[2] if held else str(self.paths.stream(key.label).current)
        try:
            stat = os.stat(pointer)  # noqa: PTH116 - part of every gather
            token: object = (stat.st_ino, stat.st_mtime_ns)
        except FileNotFoundError:
            token = None
        if held is None or held[0] != token:
            info = self._find(key)
            if not info.complete:
                raise MmfuseError(
                    f"{key.label} of {self.dataset} is not complete ({info.counts['pending']} of "
                    f"{info.rows} rows are missing); run: "
                    f"mmfuse extract --dataset {self.dataset} --encoder {key.encoder}"
                )
            reader = Reader(self._generation(key, info.generation))
            held = self._readers[key] = token, reader, pointer
        return held[1]

    @contextlib.contextmanager
    def _naming_repair(self, key: StreamKey) -> Iterator[None]:
        try:
            yield
        except DamagedError as error:
            self._readers.pop(key, None)
            raise MmfuseError(
                f"{key.label} of {self.dataset}: {error}; run: mmfuse cache verify --repair, then "
                f"mmfuse extract --dataset {self.dataset} --encoder {key.encoder}"
            ) from error


def _checked(index: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    index = np.asarray(index, np.int64)
    if len(index) and (index.min() < 0 or index.max() >= rows):
        raise IndexError(f"row numbers {index.min()}…{index.max()}, but there are {rows} rows")
    return index


def _describe(generation: Generation, snapshot: str) -> StreamInfo:
    counts = {"ok": 0, "absent": 0, "failed": 0, "pending": generation.rows}
    for commit in generation.intact().values():
        for name in ("ok", "absent", "failed"):
            counts[name] += commit.counts[name]
        counts["pending"] -= len(commit.shard)
    spec = generation.spec
    return StreamInfo(
        key=generation.key,
        kind=spec.kind,
        width=spec.width,
        dtype=spec.dtype,
        sequence=spec.sequence,
        fields=spec.fields,
        provenance=spec.provenance,
        rows=generation.rows,
        counts=counts,
        complete=bool(snapshot) and generation.complete(),
        snapshot=snapshot,
        generation=generation.number,
        path=generation.paths.group,
    )
