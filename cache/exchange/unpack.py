"""Import of packs from untrusted sources; no name in a pack is ever used as a path.

A pack is read in place. Only members that its manifest lists are read, and only if they are plain
stored files of the listed length and digest that do not overlap; names are compared, never joined
to a folder. So absolute paths, `..`, links, devices and zip bombs have no effect.
"""

import hashlib
import io
import json
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.exchange.deposit import StreamContent, check_content, deposit
from cache.exchange.pack import FORMAT, SCHEMA
from cache.feature_store import FeatureStore
from cache.format.streams import DTYPES, StreamInfo, StreamKey, StreamSpec, check_key
from cache.layout import Home, check_modality_name, check_name
from cache.progress import Track, untracked
from cache.samples import KINDS, Modality, Samples, Task
from cache.storage.objects import unpack_record
from cache.writing.reuse import NO_FAILURES

_NAME = re.compile(
    r"manifest\.json|d\d{1,6}/samples\.json|"
    r"d\d{1,6}/s\d{1,6}/(values\.npy|offsets\.npy|state\.npy|inputs\.npy|failures\.json)"
)
_BLOCK = 1 << 24
_BROKEN = (  # errors that reading a malformed pack may raise
    zipfile.BadZipFile,
    struct.error,
    pl.exceptions.PolarsError,
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class UnpackResult:
    """Result of unpacking: streams and licence note by dataset."""

    streams: Mapping[str, tuple[StreamInfo, ...]]
    licences: Mapping[str, str]


def unpack(home: Home, path: Path, *, track: Track = untracked) -> UnpackResult:
    """Import every stream of a pack; existing ones are left unchanged.

    Everything is checked before anything is written.

    Args:
        home: where to.
        path: the pack.
        track: progress over the members that are checked and the shards that are written.

    Raises:
        MmfuseError: if the file is no pack, damaged, tampered with, or inconsistent; nothing is
            written then.
    """
    if not path.is_file():
        raise MmfuseError(f"no such file: {path}")
    try:
        archive = _Archive(path, track)
        datasets = [_dataset(archive, entry) for entry in archive.manifest["datasets"]]
    except _BROKEN as error:
        raise MmfuseError(f"{path} is no pack of mmfuse, or it is damaged: {error}") from error
    streams: dict[str, tuple[StreamInfo, ...]] = {}
    for dataset in datasets:
        store = FeatureStore(home, dataset.name)
        streams[dataset.name] = tuple(
            deposit(store, key, spec, dataset.samples, content, track=track)
            for key, spec, content in dataset.streams
        )
    return UnpackResult(streams, {dataset.name: dataset.licence for dataset in datasets})


class _Archive:
    """The members of a pack as checked byte ranges of its file."""

    def __init__(self, path: Path, track: Track) -> None:
        self._path = path
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
            self._places = {info.filename: self._place(info) for info in infos}
        if len(self._places) != len(infos):
            raise MmfuseError(f"{path}: a member occurs twice")
        self._refuse_overlaps()
        data = self._bytes("manifest.json")
        if json.loads(data).get("format") != FORMAT:
            raise MmfuseError(f"{path} is a ZIP file, but no pack of mmfuse")
        manifest = unpack_record(data, path)
        if manifest["schema"] > SCHEMA:
            raise MmfuseError(f"{path} was packed by a newer mmfuse; upgrade mmfuse")
        announced = manifest["members"]
        if set(announced) != set(self._places) - {"manifest.json"}:
            raise MmfuseError(f"{path}: its members are not those that its manifest lists")
        checked = track(announced.items(), f"check {path.name}: members", len(announced))
        for name, (size, digest) in checked:
            if self._places[name][1] != size or self._digest(name) != digest:
                raise MmfuseError(f"{path}: {name} is damaged: its digest does not fit")
        self.manifest: dict[str, Any] = manifest

    def json(self, name: str) -> Any:  # noqa: ANN401
        """A member as JSON."""
        return json.loads(self._bytes(name))

    def array(self, name: str) -> NDArray[Any]:
        """A member as a memory-mapped array."""
        start, size = self._places[name]
        with self._path.open("rb") as file:
            file.seek(start)
            head = io.BytesIO(file.read(min(size, 4096)))
        if np.lib.format.read_magic(head) != (1, 0):
            raise MmfuseError(f"{self._path}: {name} is not in a known format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        length = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
        if fortran or dtype.hasobject or head.tell() + length != size:
            raise MmfuseError(
                f"{self._path}: {name} does not have the length that its header states"
            )
        if not length:
            return np.empty(shape, dtype)
        return np.memmap(self._path, dtype, "r", start + head.tell(), shape)

    def _place(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Offset and length of a member's bytes.

        Raises:
            MmfuseError: unless it is a plain stored file with a valid name.
        """
        mode = info.external_attr >> 16
        plain = (
            _NAME.fullmatch(info.filename)
            and info.orig_filename == info.filename
            and info.compress_type == zipfile.ZIP_STORED
            and info.compress_size == info.file_size
            and not info.flag_bits & 0x1
            and (stat.S_IFMT(mode) in (0, stat.S_IFREG))
        )
        if not plain:
            raise MmfuseError(
                f"{self._path}: the member {info.filename!r} does not belong in a pack (a link, "
                "a folder, a compressed file, or an invalid name); nothing was written"
            )
        with self._path.open("rb") as file:
            file.seek(max(0, info.header_offset))  # a damaged directory may state any
            start = file.read(30)
        if info.header_offset < 0 or len(start) < 30 or not start.startswith(b"PK\x03\x04"):
            raise MmfuseError(f"{self._path}: {info.filename} is not at its stated offset")
        header = struct.unpack("<4s5H3L2H", start)
        return info.header_offset + 30 + header[-2] + header[-1], info.file_size

    def _refuse_overlaps(self) -> None:
        end, length = 0, self._path.stat().st_size
        for start, size in sorted(self._places.values()):
            if start < end or start + size > length:
                raise MmfuseError(f"{self._path}: its members overlap; nothing was written")
            end = start + size

    def _bytes(self, name: str) -> bytes:
        start, size = self._places[name]
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def _digest(self, name: str) -> str:
        start, size = self._places[name]
        state = hashlib.blake2b(digest_size=16)
        with self._path.open("rb") as file:
            file.seek(start)
            while size and (block := file.read(min(size, _BLOCK))):
                state.update(block)
                size -= len(block)
        return state.hexdigest()


@dataclass(frozen=True)
class _Dataset:
    name: str
    licence: str
    samples: Samples
    streams: list[tuple[StreamKey, StreamSpec, StreamContent]]


def _dataset(archive: _Archive, entry: dict[str, Any]) -> _Dataset:
    name, folder = check_name("dataset", str(entry["name"])), str(entry["folder"])
    samples = _samples(archive.json(f"{folder}/samples.json"))
    streams = [
        _stream(archive, f"{folder}/s{number}", about, len(samples))
        for number, about in enumerate(entry["streams"])
    ]
    return _Dataset(name, str(entry["licence"]), samples, streams)


def _stream(
    archive: _Archive, folder: str, about: dict[str, Any], rows: int
) -> tuple[StreamKey, StreamSpec, StreamContent]:
    key = StreamKey(str(about["encoder"]), str(about["fingerprint"]), str(about["modality"]))
    check_key(key)
    spec = StreamSpec(
        str(about["kind"]),
        int(about["width"]),
        str(about["dtype"]),
        bool(about["sequence"]),
        dict(about["fields"]),
        _without_paths(about["provenance"]),
    )
    if spec.dtype not in DTYPES or spec.kind not in KINDS:
        raise MmfuseError(f"{key.name}: cannot be stored as {spec.dtype} of kind {spec.kind}")
    failures = archive.json(f"{folder}/failures.json")
    values = archive.array(f"{folder}/values.npy")
    if values.dtype != np.dtype(spec.dtype):
        raise MmfuseError(f"{key.name}: its values are {values.dtype}, not {spec.dtype}")
    content = StreamContent(
        np.asarray(archive.array(f"{folder}/inputs.npy")),
        np.asarray(archive.array(f"{folder}/state.npy")),
        values,
        np.asarray(archive.array(f"{folder}/offsets.npy"), np.int64) if spec.sequence else None,
        pl.DataFrame(failures, schema=NO_FAILURES.schema, orient="row"),
    )
    check_content(spec, rows, content)
    return key, spec, content


def _samples(about: dict[str, Any]) -> Samples:
    kind, names = about["task"]
    dtype = {"classes": np.int64, "labels": np.float32, "value": np.float64}[kind]
    ids = _words(about["ids"])
    if len(set(ids.tolist())) != len(ids):
        raise MmfuseError("its sample ids are not unique")
    samples = Samples(
        ids=ids,
        splits=_words(about["splits"]),
        targets=np.array(about["targets"], dtype),
        groups=None if about["groups"] is None else _words(about["groups"]),
        task=Task(kind, tuple(str(name) for name in names)),
        modalities=tuple(_modality(*m) for m in about["modalities"]),
        source="real" if about["source"] == "real" else "synthetic",
    )
    shape = (len(ids), len(names)) if kind == "labels" else (len(ids),)
    columns = [samples.splits, *([samples.groups] if samples.groups is not None else [])]
    if samples.targets.shape != shape or any(len(column) != len(ids) for column in columns):
        raise MmfuseError("its samples are inconsistent")
    return samples


def _modality(name: str, kind: Any) -> Modality:  # noqa: ANN401 - checked here
    if kind not in KINDS:
        raise MmfuseError(f"unknown kind {kind!r} of modality {name!r}")
    return Modality(check_modality_name(name), kind)


def _words(words: list[object]) -> NDArray[np.object_]:
    column = np.empty(len(words), object)
    column[:] = [str(word) for word in words]
    return column


def _without_paths(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without a recorded path of an encoder's file, which `predict` would import."""
    call = provenance.get("build_encoder")
    word = call.get("word") if isinstance(call, Mapping) else None
    if isinstance(word, str) and not word.endswith(".py"):
        return dict(provenance)
    return {name: value for name, value in provenance.items() if name != "build_encoder"}
