"""Read a dataset cell: cell → the bytes that identify it → the payload for an encoder."""

import io
import json
import math
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.samples import Kind
from pipelines.media.audio import decode_audio
from pipelines.media.decode import decode_image
from pipelines.media.payloads import Record, Series, Unreadable
from pipelines.media.video import decode_video

FILES: frozenset[Kind] = frozenset({"image", "audio", "video", "layout"})  # cells may be paths
TEXTS: frozenset[Kind] = frozenset({"text", "code"})  # cells are the text itself
MAX_BYTES = 4 << 30  # of one file or archive member; larger ones are refused
MAX_SERIES = 1 << 24  # values of one series, times × variables
_MEMBER_FORMATS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may grow without limit
_OPEN_ARCHIVES = 16  # zip files that a process keeps open
_DATES: dict[str, Callable[[str], object]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
}


def read(kind: Kind, cell: object, root: Path | None) -> Any:  # noqa: ANN401 - one of the payloads
    """`raw` and then `decode`: the payload that `Encoder.prepare` takes.

    Raises:
        Unreadable: with the reason, when the cell cannot be read or decoded.
    """
    return decode(kind, raw(kind, cell, root))


def raw(kind: Kind, cell: object, root: Path | None) -> bytes:
    """The bytes whose digest is the row's identity.

    Bytes of the file or archive member, the bytes themselves (also as `bytes` beside a `path`),
    text as UTF-8, a record as canonical JSON, a series as its shape and little-endian float32.

    Args:
        kind: kind of the modality.
        cell: what the table holds; null cells are absent and must not be passed.
        root: folder that paths are relative to.

    Raises:
        Unreadable: missing-file, outside-root, directory, permission, empty, wrong-type,
            non-finite, too-large, bad-archive, encrypted, or io (worth trying again).
    """
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
    elif kind in FILES and isinstance(cell, Mapping) and cell.get("bytes") is not None:
        data = bytes(cell["bytes"])
    elif kind in FILES:
        if not (path := path_of(cell)) and not isinstance(cell, str):
            raise Unreadable("wrong-type", f"expected a path or bytes, this is {_type(cell)}")
        data = _contents(locate(path, root))
    elif kind in TEXTS:
        data = _text_bytes(cell)
    elif kind == "tabular":
        data = _record_bytes(cell)
    else:
        data = _series_bytes(cell)
    if not data:
        raise Unreadable("empty", "there are no bytes in it")
    return data


def decode(kind: Kind, data: bytes) -> Any:  # noqa: ANN401 - one of the payloads
    """Raw bytes → an RGB image, a str, a Waveform, Frames, a Record or a Series.

    Raises:
        Unreadable: truncated, damaged, wrong-type, bomb, too-large, empty, non-finite,
            cancelled-phase, no-decoder.
    """
    match kind:
        case "image" | "layout":
            return decode_image(data)
        case "audio":
            return decode_audio(data)
        case "video":
            return decode_video(data)
        case "text" | "code":
            return _text(data)
        case "tabular":
            return _record(data)
        case "series":
            return _series(data)


def absent(column: pl.Series, kind: Kind) -> NDArray[np.bool_]:
    """(N,) True where a modality's cell is absent: null, or a record without a single value."""
    nulls = column.is_null()
    if kind == "tabular" and isinstance(column.dtype, pl.Struct):
        empty = ~nulls
        for series in column.struct.unnest().get_columns():
            lacks = series.is_null()
            if series.dtype.is_float():
                lacks |= series.is_nan().fill_null(value=True)
            empty &= lacks
            if not empty.any():
                break
        nulls |= empty
    return nulls.to_numpy().astype(bool)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a path cell lie: a plain file, or a member of an archive."""

    path: str
    member: str | None = None


def locate(cell: str, root: Path | None) -> Place:
    r"""Find the file of a path cell: below `root`, else `<top>/…` inside `<root>/<top>.zip`.

    The path itself may not lead out of the root (`..`, another absolute path); a symbolic link
    inside the root is intended by its owner and is followed. `a\b.png` and `file:///…` are paths
    too.

    Raises:
        Unreadable: missing-file or outside-root.
    """
    if root is None:
        raise Unreadable("missing-file", f"{cell!r} is a path, and the dataset has no data root")
    if not cell or "\0" in cell:
        raise Unreadable("missing-file", f"{cell!r} is not a path")
    top = _top(os.fspath(root), os.getcwd())  # noqa: PTH109 - strings: a million cells pass here
    path = file_path(cell, top)
    inside = path[len(top.rstrip("/")) + 1 :]
    if path not in (top, os.path.join(top, inside)):  # noqa: PTH118 - as above
        raise Unreadable("outside-root", f"{cell!r} leads out of {top}")
    if os.path.lexists(path):
        return Place(path)
    first, _, rest = inside.partition("/")
    archive = os.path.join(top, f"{first}.zip")  # noqa: PTH118 - as above
    if rest and os.path.isfile(archive):  # noqa: PTH113 - as above
        names = _archive(archive)[1]
        for member in (inside, rest):
            if member in names:
                return Place(archive, member)
        raise Unreadable("missing-file", f"no {inside} in {archive}")
    raise Unreadable("missing-file", f"no file {path}")


def path_of(cell: object) -> str:
    """The path in a cell of a media file; "" where the cell holds no path."""
    if isinstance(cell, Mapping):
        cell = cell.get("path")
    return cell if isinstance(cell, str) else ""


def file_path(cell: str, top: str) -> str:
    """The normalised absolute path that a cell means below the folder `top`.

    Where no file has that very name: backslashes separate folders, `file:` begins a URL, blanks
    around the name are dropped, and letters may be composed or decomposed in Unicode.
    """
    path = os.path.normpath(os.path.join(top, cell))  # noqa: PTH118 - a million cells pass here
    plain = cell.isascii() and cell == cell.strip() and "\\" not in cell
    if (plain and not cell.startswith("file:")) or os.path.lexists(path):
        return path
    word = cell.strip()
    if word.startswith("file:"):
        url = urlsplit(word)
        word = unquote(("" if url.netloc == "localhost" else url.netloc) + url.path)
    path = os.path.normpath(os.path.join(top, word.replace("\\", "/")))  # noqa: PTH118
    if word.isascii() or os.path.lexists(path) or not path.startswith(top):
        return path
    below = path[len(top) :]
    forms = (top + unicodedata.normalize(form, below) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.lexists(form)), path)


@lru_cache(maxsize=16)
def _top(root: str, folder: str) -> str:
    """The root as a normalised absolute path; `folder` is what it is relative to."""
    return os.path.normpath(os.path.join(folder, root))  # noqa: PTH118 - as above


def _contents(place: Place) -> bytes:
    try:
        if place.member is not None:
            return _member(place.path, place.member)
        with open(place.path, "rb", opener=_at_once) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise Unreadable("wrong-type", f"{place.path} is a pipe or a device, not a file")
            if state.st_size > MAX_BYTES:
                raise Unreadable("too-large", f"{place.path} has {state.st_size:,} bytes")
            return file.read()
    except IsADirectoryError:
        raise Unreadable("directory", f"{place.path} is a folder, not a file") from None
    except FileNotFoundError:
        raise Unreadable("missing-file", f"no file {place.path}") from None
    except PermissionError:
        raise Unreadable("permission", f"{place.path} is not readable: permission denied") from None
    except OSError as error:
        raise Unreadable("io", f"{place.path}: {error}", transient=True) from error


def _at_once(path: str, flags: int) -> int:
    """Open without blocking, should this be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _member(path: str, member: str) -> bytes:
    archive, names = _archive(path)
    info = names[member]
    if info.is_dir():
        raise Unreadable("directory", f"{member} in {path} is a folder, not a file")
    if info.flag_bits & 1:
        raise Unreadable("encrypted", f"{member} in {path} needs a password")
    if info.file_size > MAX_BYTES:
        raise Unreadable("too-large", f"{member} in {path} has {info.file_size:,} bytes")
    if info.compress_type not in _MEMBER_FORMATS:
        detail = (
            f"{member} in {path} is neither stored nor deflated; make the zip without bzip2, LZMA"
        )
        raise Unreadable("bad-archive", detail)
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise Unreadable("bad-archive", f"{member} in {path}: {error}") from error


def _archive(path: str) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    state = os.stat(path)  # noqa: PTH116 - a million cells pass here
    # The process is part of the key: after a fork two processes would share one file position.
    return _opened(path, state.st_ino, state.st_mtime_ns, state.st_size, os.getpid())


@lru_cache(maxsize=_OPEN_ARCHIVES)
def _opened(path: str, *_identity: int) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Unreadable("bad-archive", f"{path}: {error}") from error
    return archive, {info.filename: info for info in archive.infolist()}


def _text_bytes(cell: object) -> bytes:
    if not isinstance(cell, str):
        raise Unreadable("wrong-type", f"expected text, this is {_type(cell)}")
    if not cell.strip():
        raise Unreadable("empty", "the text is empty")
    try:
        return cell.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("wrong-type", f"the text is not Unicode: {error.reason}") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("wrong-type", f"the text is not UTF-8: {error.reason}") from error


def _record_bytes(cell: object) -> bytes:
    if not isinstance(cell, Mapping):
        raise Unreadable("wrong-type", f"expected a record, this is {_type(cell)}")
    fields = {str(name): _field(str(name), value) for name, value in cell.items()}
    if all(value is None for value in fields.values()):
        raise Unreadable("empty", "the record has no value at all")
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _field(name: str, value: object) -> object:
    """JSON for one value of a record; dates are a list of their type and their ISO form."""
    if type(value) is float and math.isfinite(value):  # as most are; a row may have thousands
        return value
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, Decimal):
        value = float(value)
    elif isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, float) and np.isinf(value):
        raise Unreadable("non-finite", f"{name} is infinite")
    if isinstance(value, float) and np.isnan(value):
        return None  # a missing number
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for type_ in (datetime, date, time):  # a datetime is a date too
        if isinstance(value, type_):
            return [type_.__name__, value.isoformat()]
    raise Unreadable("wrong-type", f"{name} is {_type(value)}, not a number, a string or a date")


def _record(data: bytes) -> Record:
    try:
        fields = json.loads(data)
        return {
            name: _DATES[value[0]](value[1]) if isinstance(value, list) else value
            for name, value in fields.items()
        }
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise Unreadable("damaged", f"not a record: {error}") from error


def _series_bytes(cell: object) -> bytes:
    """Width V as four bytes, then (T, V) float32; null elements are missing and become NaN."""
    if isinstance(cell, str) or not hasattr(cell, "__iter__"):
        raise Unreadable("wrong-type", f"expected a list of numbers, this is {_type(cell)}")
    size = 0
    for row in cell:
        size += len(row) if hasattr(row, "__len__") else 1
        if size > MAX_SERIES:
            raise Unreadable("too-large", f"the series has more than {MAX_SERIES:,} values")
    rows = [list(row) if hasattr(row, "__iter__") else [row] for row in cell]
    if not rows or not rows[0]:
        raise Unreadable("empty", "the series has no values")
    if len({len(row) for row in rows}) > 1:
        raise Unreadable("wrong-type", "the series has rows of different lengths")
    try:
        values = np.array([[np.nan if x is None else x for x in row] for row in rows], np.float32)
        missing = np.array([[x is None for x in row] for row in rows])
    except (TypeError, ValueError) as error:
        raise Unreadable("wrong-type", f"the series is not numbers: {error}") from error
    if missing.all():
        raise Unreadable("empty", "every value of the series is missing")
    if not np.isfinite(values[~missing]).all():
        raise Unreadable("non-finite", "the series holds NaN or infinity; missing values are null")
    return len(rows[0]).to_bytes(4, "little") + values.astype("<f4").tobytes()


def _series(data: bytes) -> Series:
    width = int.from_bytes(data[:4], "little")
    body = io.BytesIO(data[4:]).getbuffer()
    if not width or len(body) % (4 * width):
        raise Unreadable("damaged", "the bytes are not a series")
    return np.frombuffer(body, "<f4").reshape(-1, width).astype(np.float32)  # (T, V)


def _type(value: object) -> str:
    return f"a {type(value).__name__}"
