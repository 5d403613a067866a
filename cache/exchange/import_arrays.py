"""Import of precomputed vectors from a file as a stream, aligned with the samples by id."""

import hashlib
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.exchange.array_files import LoadedArrays, load_arrays
from cache.exchange.deposit import StreamContent, deposit
from cache.feature_store import FeatureStore
from cache.fingerprints import digest, fingerprint
from cache.format.streams import ABSENT, OK, StreamInfo, StreamKey, StreamSpec
from cache.progress import Track, tracked_step, untracked
from cache.samples import Kind, Modality, Samples
from cache.snapshots import repoint_streams, with_known_modalities
from cache.storage.objects import DamagedError, get_record
from cache.writing.reuse import NO_FAILURES

VERSION = 1
_BLOCK = 1 << 14  # vectors whose digests are taken at a time


@dataclass(frozen=True)
class ImportSource:
    """A file to import, and the stream it becomes.

    Attributes:
        path: .npy, .npz, .parquet, .safetensors, .h5 or .pkl.
        encoder: first part of the stream's name: what made the vectors.
        modality: second part.
        kind: of the modality; None if the samples have it.
        array: name inside the file, see `load_arrays`.
        id: name of the ids inside the file, besides `ID_NAMES` of `array_files`; else that of the
            column that the ids of the samples were read from.
        weights: pretrained, weight-free or random, as stated by the user.
        dtype: to store; None means float16 for float16 vectors, else float32.
        provenance: further facts, such as the licence.
    """

    path: Path
    encoder: str
    modality: str
    kind: Kind | None = None
    array: str | None = None
    weights: Literal["pretrained", "weight-free", "random"] = "pretrained"
    dtype: Literal["float16", "float32"] | None = None
    provenance: Mapping[str, object] | None = None
    id: str | None = None


@dataclass(frozen=True)
class ImportResult:
    """Result of an import.

    Attributes:
        info: the stream.
        aligned: `id` or `order`.
        lacking: samples without a vector in the file; they are absent.
        unused: vectors whose id is not a sample's.
        failed: ids of samples whose vector holds NaN or infinity.
    """

    info: StreamInfo
    aligned: str
    lacking: int
    unused: int
    failed: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        text = f"aligned by {self.aligned}; {self.lacking} samples have none, {self.unused} unused"
        if not self.failed:
            return text
        shown = f"{', '.join(self.failed[:3])}{', …' if len(self.failed) > 3 else ''}"
        return f"{text}; {len(self.failed)} failed, of NaN or infinity ({shown})"


def import_arrays(
    store: FeatureStore, samples: Samples, source: ImportSource, *, track: Track = untracked
) -> ImportResult:
    """Write a file's vectors as a stream; importing the same file again changes nothing.

    Samples without a vector are absent. A vector with NaN or infinity fails its row.

    Args:
        store: of the dataset.
        samples: its rows.
        source: what to import.
        track: progress over what is read and the shards that are written.

    Raises:
        MmfuseError: if the file cannot be read, no id is a sample's, an id occurs twice, or
            there are no ids and the number of vectors is not that of the samples.
    """
    id_name = source.id or _column_of_ids(store)
    with tracked_step(track, f"read {source.path.name}"):
        loaded = load_arrays(source.path, source.array, id_name)
    at, aligned = _align(loaded, samples, source.path)
    sequence, width = _shape(loaded, source.path)
    dtype = source.dtype or _dtype(loaded)
    modality = Modality(source.modality, _kind(source, samples))
    samples = with_known_modalities(samples, store.paths, modality)
    fields = {
        "imported": _file_digest(source.path),
        "array": source.array,
        "dtype": dtype,
        "version": VERSION,
    }
    provenance = {
        **(source.provenance or {}),
        "weights": source.weights,
        "origin": "imported",
        "file": source.path.name,
    }
    spec = StreamSpec(modality.kind, width, dtype, sequence, fields, provenance)
    key = StreamKey(source.encoder, fingerprint(fields), source.modality)
    with tracked_step(track, f"read {source.path.name}"):
        content = _content(loaded, at, spec)
    info = deposit(store, key, spec, samples, content, track=track)
    repoint_streams(samples, store.paths)
    info = next(i for i in store.streams() if i.key == key)
    used = int((at >= 0).sum())
    failed = tuple(store.failures(key)["id"].to_list())
    return ImportResult(info, aligned, len(samples) - used, len(loaded.rows) - used, failed)


def _column_of_ids(store: FeatureStore) -> str | None:
    """The column that the ids of the dataset were read from, where that was recorded."""
    try:
        origin = get_record(store.paths.origin)
    except DamagedError:  # `cache verify` names it
        return None
    options = {} if origin is None else origin.get("options", {})
    return options.get("id") or None


def _align(loaded: LoadedArrays, samples: Samples, path: Path) -> tuple[NDArray[np.int64], str]:
    """(N,) index of each sample's vector, -1 for none; and whether by `id` or `order`."""
    if loaded.ids is None:
        if len(loaded.rows) != len(samples):
            raise MmfuseError(
                f"{path} has no ids and {len(loaded.rows)} vectors, but there are {len(samples)} "
                "samples; add an array `id` beside the vectors"
            )
        return np.arange(len(samples)), "order"
    position = {name: number for number, name in enumerate(loaded.ids)}
    if len(position) != len(loaded.ids):
        raise MmfuseError(f"{path}: ids occur twice ({len(loaded.ids) - len(position)} times)")
    at = np.array([position.get(str(name), -1) for name in samples.ids.tolist()], np.int64)
    if (at < 0).all():
        raise MmfuseError(
            f"{path}: none of its ids is a sample; it has {loaded.ids[:3]}, the samples are "
            f"{samples.ids[:3].tolist()}"
        )
    return at, "id"


def _shape(loaded: LoadedArrays, path: Path) -> tuple[bool, int]:
    if isinstance(loaded.rows, np.ndarray):
        return False, loaded.rows.shape[1]
    shapes = {(row.ndim, row.shape[-1]) for row in loaded.rows}
    axes = max(row.ndim for row in loaded.rows) + 1
    if axes > 3:
        raise MmfuseError(
            f"{path}: an array of {axes} axes holds no vectors; those are (N, D), or (N, T, D) of "
            "sequences: flatten or average the others"
        )
    if len(shapes) != 1 or next(iter(shapes))[0] != 2:
        raise MmfuseError(f"{path}: vectors have different shapes: {sorted(shapes)[:5]}")
    return True, next(iter(shapes))[1]


def _dtype(loaded: LoadedArrays) -> str:
    rows = loaded.rows
    first = rows.dtype if isinstance(rows, np.ndarray) else rows[0].dtype
    return "float16" if first == np.float16 else "float32"


def _kind(source: ImportSource, samples: Samples) -> Kind:
    known = {m.name: m.kind for m in samples.modalities}.get(source.modality)
    kind = source.kind or known
    if kind is None:
        names = ", ".join(m.name for m in samples.modalities) or "none"
        raise MmfuseError(
            f"{source.modality} is no modality of this dataset (there are: {names}); say what "
            "kind of thing it is, such as --kind audio"
        )
    if known is not None and kind != known:
        raise MmfuseError(f"modality {source.modality} is of kind {known}, not {kind}")
    return kind


def _content(loaded: LoadedArrays, at: NDArray[np.int64], spec: StreamSpec) -> StreamContent:
    state = np.where(at >= 0, OK, ABSENT).astype(np.uint8)
    inputs = np.zeros((len(at), 16), np.uint8)
    there = np.flatnonzero(at >= 0)
    if not spec.sequence:
        values = _AlignedRows(np.asanyarray(loaded.rows), at, spec)
        for start in range(0, len(there), _BLOCK):
            rows = there[start : start + _BLOCK]
            inputs[rows] = _digests(values.gather(at[rows]), spec)
        return StreamContent(inputs, state, values, None, NO_FAILURES)
    found = [_stored(loaded.rows[at[row]], spec) for row in there.tolist()]
    inputs[there] = _digests(found, spec)
    lengths = np.zeros(len(at), np.int64)
    lengths[there] = [len(value) for value in found]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return StreamContent(inputs, state, np.concatenate(found), offsets, NO_FAILURES)


class _AlignedRows:
    """Vectors of a file in the order of the samples, read a slice at a time; NaN where absent."""

    def __init__(self, rows: NDArray[Any], at: NDArray[np.int64], spec: StreamSpec) -> None:
        self._rows, self._at, self._spec = rows, at, spec
        self.shape = len(at), spec.width

    def __getitem__(self, part: slice) -> NDArray[Any]:
        at = self._at[part]
        found = np.full((len(at), self._spec.width), np.nan, self._spec.dtype)
        found[at >= 0] = self.gather(at[at >= 0])
        return found

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(K, D) of these rows of the file, in the stored dtype."""
        found = _stored(self._rows[rows], self._spec)
        memory = getattr(self._rows, "_mmap", None)
        if memory is not None:  # what was read stays in the page cache, not in this process
            memory.madvise(mmap.MADV_DONTNEED)
        return found


def _digests(values: Iterable[NDArray[Any]], spec: StreamSpec) -> NDArray[np.uint8]:
    """(K, 16) digests of stored vectors."""
    person = f"vector:{spec.kind}"
    joined = b"".join(digest(person, value.tobytes()) for value in values)
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def _stored(value: NDArray[Any], spec: StreamSpec) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(value).astype(spec.dtype, copy=False)


def _file_digest(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
