"""Leases: one writer per shard; they expire when the process dies or stops its heartbeat.

Lease files are numbered: <shard>.<epoch>.json. The highest epoch holds the shard unless it is
released, its process is gone, or its last heartbeat is older than EXPIRY. To take over is to create
the next epoch (create-if-absent: only one process can); nothing is deleted before the shard's
commit exists. So no two processes can both believe that they removed the same stale lease.
"""

import contextlib
import os
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import MmfuseError
from cache.storage.objects import (
    DamagedError,
    create_record,
    delete,
    get_record,
    machine_id,
    process_start,
    put_record,
)

EXPIRY = 120.0  # seconds without a heartbeat
HEARTBEAT = 15.0  # seconds between heartbeats
_LIVE: set[str] = set()  # tokens of the leases this process holds, even if it cannot write them


@dataclass
class Lease:
    """A lease that this process holds; a thread sends heartbeats until it is released."""

    folder: Path
    name: str
    epoch: int
    scratch: Path
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    interval: float = HEARTBEAT
    _stop: threading.Event = field(default_factory=threading.Event)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def record(self, *, released: bool = False) -> dict[str, object]:
        """The lease file's content: the holder and the time of this heartbeat."""
        pid = os.getpid()
        return {
            "machine": machine_id(),
            "pid": pid,
            "started": process_start(pid),
            "token": self.token,
            "beat": time.time(),
            "released": released,
        }

    @property
    def path(self) -> Path:
        """The lease's file."""
        return _path(self.folder, self.name, self.epoch)

    def start(self) -> None:
        """Start the heartbeat thread."""
        _LIVE.add(self.token)
        threading.Thread(
            target=self._send_heartbeats, name=f"lease-{self.name}", daemon=True
        ).start()

    def held(self) -> bool:
        """Whether no other process has taken over."""
        return not _path(self.folder, self.name, self.epoch + 1).exists()

    def release(self) -> None:
        """Release the lease, so that others can take the shard."""
        self._end()
        with self._writing, contextlib.suppress(MmfuseError):  # disk full: it expires
            if self.path.exists():  # gone after a commit
                put_record(self.path, self.record(released=True), self.scratch)

    def retire(self) -> None:
        """Remove every lease file of a shard whose commit exists."""
        self._end()
        with self._writing:
            for epoch in range(self.epoch + 1):
                delete(_path(self.folder, self.name, epoch))

    def _end(self) -> None:
        self._stop.set()
        _LIVE.discard(self.token)

    def _send_heartbeats(self) -> None:
        while not self._stop.wait(self.interval):
            with (
                self._writing,
                contextlib.suppress(MmfuseError),
            ):  # disk full: retried at the next heartbeat
                if not self._stop.is_set() and self.path.exists():
                    put_record(self.path, self.record(), self.scratch)


def acquire(folder: Path, name: str, scratch: Path) -> Lease | None:
    """Acquire the lease of a shard; None while another live process holds it."""
    epoch = 0
    while (path := _path(folder, name, epoch)).exists():
        epoch += 1
    if epoch and is_alive(_path(folder, name, epoch - 1)):
        return None
    lease = Lease(folder, name, epoch, scratch, interval=HEARTBEAT)
    if not create_record(path, lease.record(), scratch):
        return None
    lease.start()
    return lease


def is_alive(path: Path) -> bool:
    """Whether the lease in this file is held: not released, not expired, its process running."""
    try:
        record = get_record(path)
    except DamagedError:
        return path.exists() and time.time() - path.stat().st_mtime < EXPIRY
    if record is None or record["released"]:
        return False
    return time.time() - record["beat"] < EXPIRY and not _gone(record)


def _gone(record: dict[str, Any]) -> bool:
    if record["machine"] != machine_id():
        return False
    if record["pid"] == os.getpid() and record["token"] not in _LIVE:
        return True
    return bool(process_start(record["pid"]) != record["started"])


def _path(folder: Path, name: str, epoch: int) -> Path:
    return folder / f"{name}.{epoch}.json"
