"""Objects: whole files written atomically, and JSON records that carry their own digest.

Only operations that an object store has too: put whole, create if absent, get, delete, list.
"""

import contextlib
import errno
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import MmfuseError

_DAY = 86_400.0
_ADVICE = {
    errno.ENOSPC: "the disk is full; what is committed is safe: free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; what is committed is safe: free some and run again",
    errno.EFBIG: "files of this size are not allowed here; what is committed is safe",
    errno.EROFS: "the file system is read-only; choose another place with --home DIR",
    errno.EACCES: "no permission; change it, or choose another place with --home DIR",
    errno.EPERM: "not permitted; change that, or choose another place with --home DIR",
    errno.EIO: "the disk reports an input/output error; what is committed is safe",
}


class DamagedError(MmfuseError):
    """Stored bytes are not those that were written."""


@contextlib.contextmanager
def user_errors(path: Path) -> Iterator[None]:
    """Turn an OSError that the user can fix into a MmfuseError that says what to do.

    Raises:
        MmfuseError: disk full, quota, read-only, no permission, input/output error.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        raise MmfuseError(f"{path}: {advice}") from error


def put(path: Path, data: bytes | memoryview, scratch: Path | None = None) -> None:
    """Write a whole file atomically: temporary file, fsync, rename; what was there is replaced.

    A reader sees the old bytes or the new ones; after a power cut it is one of the two.

    Args:
        path: the file; its folder is created if needed.
        data: all of it.
        scratch: folder of the temporary file, on the same file system; the file's own if None.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours; nothing has changed then.
    """
    with user_errors(path), _temporary(data, scratch or path.parent) as temporary:
        ensure_folder(path.parent)
        temporary.replace(path)
        sync_folder(path.parent)


def create(path: Path, data: bytes, scratch: Path) -> bool:
    """Create a file with these bytes; False if the name is taken.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours.
    """
    with user_errors(path), _temporary(data, scratch) as temporary:
        ensure_folder(path.parent)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
                raise
            return _create_exclusively(path, data)  # a file system without hard links
        sync_folder(path.parent)
    return True


def delete(path: Path) -> None:
    """Delete an object, if it exists."""
    with user_errors(path), contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def put_record(path: Path, record: Mapping[str, object], scratch: Path) -> None:
    """Write a JSON record with its own digest inside."""
    put(path, pack_record(record), scratch)


def create_record(path: Path, record: Mapping[str, object], scratch: Path) -> bool:
    """Write a JSON record unless the name is taken."""
    return create(path, pack_record(record), scratch)


def get_record(path: Path) -> dict[str, Any] | None:
    """A JSON record, or None where there is none.

    Raises:
        DamagedError: if it is not what was written.
    """
    try:
        with user_errors(path):
            data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return unpack_record(data, path)


def pack_record(record: Mapping[str, object]) -> bytes:
    """Canonical JSON with `check`, the digest of the rest."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False)
    check = hashlib.blake2b(body.encode(), digest_size=8).hexdigest()
    return f'{body[:-1]},"check":"{check}"}}\n'.encode()


def unpack_record(data: bytes, path: Path) -> dict[str, Any]:
    """The record in these bytes.

    Raises:
        DamagedError: if its digest does not fit.
    """
    body, mark, tail = data.rpartition(b',"check":"')
    body += b"}"
    check = hashlib.blake2b(body, digest_size=8).hexdigest().encode()
    if not mark or tail != check + b'"}\n':
        raise DamagedError(
            f"{path} is damaged: its digest does not fit; run: mmfuse cache verify --repair"
        )
    record: dict[str, Any] = json.loads(body)
    return record


def content_digest(data: bytes | memoryview) -> str:
    """Hex blake2b-128 of an object's bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def ensure_folder(folder: Path) -> None:
    """Create a folder and its parents, each fsynced in its own parent.

    Raises:
        MmfuseError: where a file is in the way, or the system has no folders there.
    """
    if folder.is_dir():
        return
    ensure_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        why = "a file is in the way" if folder.exists() else "the system makes no folder there"
        raise MmfuseError(f"{folder}: {why}; choose another place with --home DIR") from error
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that renames in it survive a power cut."""
    with contextlib.suppress(PermissionError):  # a folder that is writable but not readable
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def machine_id() -> str:
    """Host name and process namespace: where process numbers are comparable."""
    try:
        return f"{socket.gethostname()}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """Start time of a process on this machine, in system ticks; None if it is not running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
        return "" if _answers(pid) else None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]  # a zombie holds no lease


def orphans(scratch: Path) -> list[Path]:
    """Temporary files whose process is gone, or which are older than a day."""
    if not scratch.is_dir():
        return []
    host, now = _host(), time.time()
    found = []
    for path in scratch.iterdir():
        owner, _, rest = path.name.partition("~")
        pid = rest.partition("~")[0]
        gone = owner == host and pid.isdecimal() and process_start(int(pid)) is None
        with contextlib.suppress(FileNotFoundError):
            if gone or now - path.stat().st_mtime > _DAY:
                found.append(path)
    return sorted(found)


def remove_orphans(scratch: Path) -> list[Path]:
    """Remove the orphans; returns them."""
    gone = orphans(scratch)
    for path in gone:
        delete(path)
    return gone


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    return hashlib.blake2b(machine_id().encode(), digest_size=4).hexdigest()


@contextlib.contextmanager
def _temporary(data: bytes | memoryview, scratch: Path) -> Iterator[Path]:
    ensure_folder(scratch)
    path = scratch / f"{_host()}~{os.getpid()}~{uuid.uuid4().hex[:12]}.partial"
    try:
        with path.open("xb", buffering=0) as file:
            view = memoryview(data).cast("B")
            while len(view):
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _create_exclusively(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    sync_folder(path.parent)
    return True
