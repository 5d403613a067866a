"""Input digests: sixteen bytes per cell of a modality; unchanged files are not read again."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.fingerprints import digest
from cache.samples import Kind, Modality
from cache.storage.file_digests import DIGEST_BYTES, DigestMemory, stamps
from pipelines.data.dataset import Dataset
from pipelines.media.cells import FILES, TEXTS, absent, file_path, raw
from pipelines.media.payloads import Unreadable
from pipelines.progress import Track, untracked

_BLOCK = 256  # files that are read ahead
_ROWS = 1 << 16
_THREADS = 8  # hashing releases the GIL, and disks serve several reads at once


@dataclass(frozen=True)
class InputDigests:
    """Digests of a modality's cells.

    Attributes:
        digests: (N, 16) uint8; zeros where the cell is absent. An unreadable cell has the
            digest of its text and error, so that it is recognised until it can be read.
        absent: (N,) bool.
    """

    digests: NDArray[np.uint8]
    absent: NDArray[np.bool_]


def input_digests(
    dataset: Dataset, modality: Modality, memory: DigestMemory, track: Track = untracked
) -> InputDigests:
    """Digests of every cell of a modality; files with a remembered digest are not opened.

    Args:
        dataset: the rows.
        modality: which column of them.
        memory: digests of files from earlier runs; new ones are added and saved.
        track: progress over the files that are read.
    """
    column = dataset.table[modality.name]
    gone = absent(column, modality.kind)
    if modality.kind in FILES and column.dtype == pl.String:
        found = _files(column, modality, dataset.root, memory, track)
    else:
        found = _in_table(column, modality, track)
    found[gone] = 0
    return InputDigests(found, gone)


def _in_table(column: pl.Series, modality: Modality, track: Track) -> NDArray[np.uint8]:
    """(N, 16) for cells that the table itself holds."""
    kind = modality.kind
    found = np.empty((len(column), DIGEST_BYTES), np.uint8)
    hashed = partial(blake2b, digest_size=DIGEST_BYTES, person=kind.encode()[:16])
    starts = range(0, len(column), _ROWS)  # cells as Python objects, a part at a time
    label = f"{modality.name}: reading blocks of {_ROWS:,} cells"
    for start in track(starts, label, len(starts)):
        cells = _cells(column.slice(start, _ROWS), kind)
        found[start : start + _ROWS] = _rows(b"".join([hashed(cell).digest() for cell in cells]))
    return found


def _cells(column: pl.Series, kind: Kind) -> Iterator[bytes]:
    """Bytes per row, equal if and only if the payloads are equal."""
    if column.dtype == pl.Binary or (column.dtype == pl.String and kind in TEXTS):
        return iter(column.cast(pl.Binary).fill_null(b"").to_list())
    if isinstance(column.dtype, pl.Struct):
        return _records(column)
    if column.dtype == pl.List(pl.Float32) and _whole(column):
        return _series(column)
    return (_cell(kind, cell) for cell in column)


def _whole(column: pl.Series) -> bool:
    """Whether no value inside the lists is null, NaN or infinite."""
    values = column.drop_nulls().explode(empty_as_null=False)
    return not values.null_count() and bool(values.is_finite().all())


def _cell(kind: Kind, cell: object) -> bytes:
    try:
        return b"" if cell is None else raw(kind, cell, None)
    except Unreadable as fault:
        shown = cell.to_list() if isinstance(cell, pl.Series) else cell
        return f"unreadable: {fault.reason}: {shown!r}".encode()


def _records(column: pl.Series) -> Iterator[bytes]:
    """Bytes of records, built by column: a million of them as JSON would take half a minute."""
    frame = column.struct.unnest()
    types = dict(zip(frame.columns, frame.dtypes, strict=True))
    words = sorted(name for name, dtype in types.items() if not _numeric(dtype))
    plain = sorted(name for name, dtype in types.items() if _numeric(dtype))
    head = repr([(name, str(types[name])) for name in words + plain]).encode()
    fixed = np.zeros((len(frame), len(plain), 9), np.uint8)  # eight bytes of value, one of null
    values = frame.select(pl.col(plain).to_physical())
    by_width: dict[type[pl.DataType], list[int]] = {pl.Float64: [], pl.Int64: []}
    for place, dtype in enumerate(values.dtypes):
        by_width[pl.Float64 if dtype.is_float() else pl.Int64].append(place)
    for wide, places in by_width.items():
        if places:
            part = values.select(pl.nth(places).cast(wide)).fill_nan(None)
            fixed[:, places, 8] = part.select(pl.all().is_null()).to_numpy()
            numbers = np.ascontiguousarray(part.fill_null(0).to_numpy())  # (N, K) of eight bytes
            fixed[:, places, :8] = numbers.view(np.uint8).reshape(*numbers.shape, 8)
    rows = (row.tobytes() for row in fixed)
    texts = [_texts(frame[name]) for name in words]
    for row, *cells in zip(rows, *texts, strict=True):
        yield b"".join([head, row, *cells])


def _numeric(dtype: pl.DataType) -> bool:
    """Whether eight bytes hold any value of a dtype."""
    exact = dtype.is_numeric() and dtype != pl.UInt64 and not dtype.is_decimal()
    return exact or dtype.is_temporal() or dtype == pl.Boolean


def _texts(values: pl.Series) -> list[bytes]:
    """Each value with its length before it, so that neighbouring values cannot be confused."""
    if values.dtype == pl.String:
        return [b"-" if v is None else b"%d:%b" % (len(v), v) for v in values.cast(pl.Binary)]
    return [b"%d:%b" % (len(v), v) for v in (repr(value).encode() for value in values)]


def _series(column: pl.Series) -> Iterator[bytes]:
    """Series of width 1 as slices of one array; the bytes are those of `media.cells.raw`."""
    flat = column.explode(empty_as_null=False).drop_nulls().to_numpy().astype("<f4").tobytes()
    width = (1).to_bytes(4, "little")
    start = 0
    for length in column.list.len().fill_null(0).to_list():
        stop = start + 4 * length
        yield width + flat[start:stop] if length else _cell("series", [])
        start = stop


def _files(
    column: pl.Series, modality: Modality, root: Path | None, memory: DigestMemory, track: Track
) -> NDArray[np.uint8]:
    """(N, 16) for cells that are paths; each file once, however many rows name it."""
    cells = column.drop_nulls().unique(maintain_order=True)
    top = "" if root is None else os.path.abspath(root)  # noqa: PTH100 - a million cells pass here
    places = (f"{modality.kind}:{top}/" + cells).alias("place")
    before = time.time_ns()
    seen = _stamps([_below(cell, top) for cell in cells.to_list()], top)
    known = memory.recall(places, seen)
    found = np.zeros((len(cells), DIGEST_BYTES), np.uint8)
    found[known.is_not_null().to_numpy()] = _rows(b"".join(known.drop_nulls().to_list()))
    unknown = known.is_null().arg_true()
    if len(unknown):
        label = f"{modality.name}: reading files"
        results: list[_Read] = []
        reading = _reading(cells.gather(unknown).to_list(), partial(_read, modality.kind, root))
        try:
            results.extend(track(reading, label, len(unknown)))
        finally:  # digests taken before Ctrl-C are saved
            done = unknown.head(len(results))
            rows = _rows(b"".join(result.digest for result in results))
            good = pl.Series([result.readable for result in results], dtype=pl.Boolean)
            sound = done.filter(good)
            memory.learn(places[sound], seen[sound], rows[good.to_numpy()], before)
            memory.save()
        found[unknown.to_numpy()] = rows
    numbered = pl.DataFrame({"cell": cells, "number": np.arange(len(cells))})
    order = pl.DataFrame({"cell": column}).join(
        numbered, on="cell", how="left", maintain_order="left"
    )
    spread = np.zeros((len(column), DIGEST_BYTES), np.uint8)
    here = order["number"].is_not_null().to_numpy()
    spread[here] = found[order["number"].drop_nulls().to_numpy()]
    return spread


def _below(cell: str, top: str) -> str:
    """The cell as a path below `top`, where it is written as an absolute, Windows or URL path."""
    if not cell.startswith(("/", "file:")) and "\\" not in cell:
        return cell
    path = file_path(cell, top)
    return path.removeprefix(f"{top}/") if path.startswith(f"{top}/") else cell


def _stamps(cells: list[str], top: str) -> pl.DataFrame:
    """size, mtime_ns and inode of each file, or of the archive that may contain it."""
    seen = stamps([f"{top}/{cell}" for cell in cells] if top else [""] * len(cells))
    lacking = seen["size"].is_null().arg_true().to_list()
    if not lacking or not top:
        return seen
    firsts = [cells[row].partition("/")[0] for row in lacking]
    archives = sorted(set(firsts))
    state = dict(zip(archives, stamps([f"{top}/{a}.zip" for a in archives]).rows(), strict=True))
    members = pl.DataFrame([state[first] for first in firsts], schema=seen.schema, orient="row")
    whole = seen.with_row_index("row")
    return whole.update(
        members.with_columns(row=pl.Series(lacking, dtype=pl.UInt32)), on="row"
    ).drop("row")


@dataclass(frozen=True)
class _Read:
    digest: bytes
    readable: bool


def _reading(cells: list[str], read: Callable[[str], _Read]) -> Iterator[_Read]:
    """Read files in several threads, in order, at most a block ahead."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(cells), _BLOCK):
            yield from pool.map(read, cells[start : start + _BLOCK])


def _read(kind: Kind, root: Path | None, cell: str) -> _Read:
    try:
        return _Read(digest(kind, raw(kind, cell, root)), readable=True)
    except Unreadable as fault:
        return _Read(digest(kind, f"unreadable: {fault.reason}: {cell}".encode()), readable=False)


def _rows(joined: bytes) -> NDArray[np.uint8]:
    """Concatenated digests → (N, 16)."""
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES).copy()


def training_rows(dataset: Dataset, found: InputDigests) -> NDArray[np.int64]:
    """Rows of the train split that have the modality."""
    train = (dataset.table["split"] == "train").to_numpy()
    return np.flatnonzero(train & ~found.absent)


def fitted_on(dataset: Dataset, found: InputDigests) -> str:
    """Hex digest of the digests of the training rows, whatever their order."""
    rows = found.digests[training_rows(dataset, found)]
    ordered = rows[np.lexsort(rows.T[::-1])]
    return hashlib.blake2b(ordered.tobytes(), digest_size=16).hexdigest()
