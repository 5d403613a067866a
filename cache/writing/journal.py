"""The journal: encoded rows whose shard is not committed yet, one file per checkpoint.

A kill loses at most the rows since the last checkpoint. Files are `<shard>-<epoch>-<number>.npz`,
immutable and written atomically; they are deleted once the shard's commit exists.
"""

import io
import json
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.storage.objects import delete, put


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no vector; `transient` failures may pass by themselves."""

    reason: str
    detail: str
    transient: bool = False


Retry = bool | Collection[str]  # failures to retry: all, none, or those with these reasons


def is_retried(failure: Failure, retry: Retry) -> bool:
    """Whether `retry` covers a failure; the word `transient` covers every transient one."""
    if isinstance(retry, bool):
        return retry
    return failure.reason in retry or (failure.transient and "transient" in retry)


@dataclass(frozen=True)
class JournalEntry:
    """The content of one checkpoint.

    Attributes:
        rows: (K,) int64 row numbers of the stream.
        lengths: (K,) int64 frames per row; all 1 in a pooled stream.
        values: (sum of lengths, D) in the stored dtype.
        failures: why rows failed, by row number.
        truncated: (K,) bool, whether a row's input was cut to the encoder's length.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    values: NDArray[Any]
    failures: Mapping[int, Failure]
    truncated: NDArray[np.bool_]


class Journal:
    """The journal of one shard."""

    def __init__(self, folder: Path, shard: int, scratch: Path) -> None:
        self._folder, self._prefix, self._scratch = folder, f"{shard:05d}-", scratch

    def write(self, entry: JournalEntry, epoch: int, number: int) -> None:
        """Write a checkpoint; it is durable when this returns."""
        buffer = io.BytesIO()
        rows = [[row, f.reason, f.detail, f.transient] for row, f in entry.failures.items()]
        failures = json.dumps(rows)
        np.savez(
            buffer,
            rows=entry.rows,
            lengths=entry.lengths,
            values=entry.values,
            failures=np.frombuffer(failures.encode(), np.uint8),
            truncated=entry.truncated,
        )
        put(self._folder / f"{self._prefix}{epoch}-{number}.npz", buffer.getbuffer(), self._scratch)

    def read(self) -> list[JournalEntry]:
        """Every undamaged checkpoint; damaged ones are ignored."""
        found = (_read(path) for path in self._paths())
        return [entry for entry in found if entry is not None]

    def clear(self) -> None:
        """Remove the shard's checkpoints."""
        for path in self._paths():
            delete(path)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._prefix}*.npz"))


def _read(path: Path) -> JournalEntry | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            failures = json.loads(file["failures"].tobytes().decode())
            rows = file["rows"]
            cut = file["truncated"] if "truncated" in file.files else np.zeros(len(rows), bool)
            return JournalEntry(
                rows,
                file["lengths"],
                file["values"],
                {row: Failure(*failure) for row, *failure in failures},
                cut,
            )
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError):
        return None  # damage is found by zip's own CRC-32
