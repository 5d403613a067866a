"""Remembered file digests: by git's rule, a file that has not changed is not read again."""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.storage.objects import put

DIGEST_BYTES = 16
RACY_NS = 2_000_000_000  # the coarsest modification time of a file system in use (FAT) is 2 s

_SCHEMA = {
    "place": pl.String,
    "size": pl.Int64,
    "mtime_ns": pl.Int64,
    "inode": pl.UInt64,
    "recorded_ns": pl.Int64,
    "digest": pl.Binary,
}


def stamps(paths: Sequence[str]) -> pl.DataFrame:
    """size, mtime_ns and inode of each path; null where there is no file.

    Args:
        paths: absolute, or relative to the working directory; "" counts as no file.
    """
    size: list[int | None] = []
    mtime: list[int | None] = []
    inode: list[int | None] = []
    stat = os.stat  # this loop is the cost of a no-op extract of files
    for path in paths:
        try:
            found = stat(path)
        except OSError:
            size.append(None)
            mtime.append(None)
            inode.append(None)
            continue
        size.append(found.st_size)
        mtime.append(found.st_mtime_ns)
        inode.append(found.st_ino)
    columns = {"size": size, "mtime_ns": mtime, "inode": inode}
    return pl.DataFrame(columns, schema={name: _SCHEMA[name] for name in columns})


class DigestMemory:
    """Digests by place, each valid while size, mtime_ns and inode match and the mtime is old.

    Old means: more than `RACY_NS`, a file system's coarsest clock tick, before the file was read. A
    file that changed in the tick in which it was read is read again.
    """

    def __init__(self, path: Path, *, forget: bool = False) -> None:
        self.path = path
        self._known = pl.DataFrame(schema=_SCHEMA) if forget else _read(path)
        self._learned: list[pl.DataFrame] = []

    def recall(self, places: pl.Series, seen: pl.DataFrame) -> pl.Series:
        """The digest of each place as 16 bytes, null where it has to be read.

        Args:
            places: (N,) names such as `image:/data/a.png`.
            seen: (N,) rows of `stamps`, in the same order.
        """
        asked = seen.with_columns(place=places)
        both = asked.join(
            self._known, on="place", how="left", maintain_order="left", suffix="_then"
        )
        same = (
            (pl.col("size") == pl.col("size_then"))
            & (pl.col("mtime_ns") == pl.col("mtime_ns_then"))
            & (pl.col("inode") == pl.col("inode_then"))
            & (pl.col("mtime_ns") + RACY_NS < pl.col("recorded_ns"))
        )
        return both.select(pl.when(same).then(pl.col("digest")))["digest"]

    def learn(
        self, places: pl.Series, seen: pl.DataFrame, digests: NDArray[np.uint8], recorded_ns: int
    ) -> None:
        """Remember digests, with the file stamps taken before and the clock before reading.

        Args:
            places: (N,) names.
            seen: (N,) rows of `stamps`; places without a file are not remembered.
            digests: (N, 16) uint8.
            recorded_ns: `time.time_ns()` from before the first of the files was read.
        """
        column = pl.Series("digest", [row.tobytes() for row in digests], pl.Binary)
        frame = seen.with_columns(
            place=places, recorded_ns=pl.lit(recorded_ns, pl.Int64), digest=column
        )
        self._learned.append(frame.select(*_SCHEMA).filter(pl.col("size").is_not_null()))

    def save(self) -> None:
        """Write new digests, atomically; without new ones nothing is written.

        Where two processes save at once, the last one wins: the other's files are read again.

        Raises:
            MmfuseError: when the disk is full, read-only or not ours.
        """
        if not sum(map(len, self._learned)):
            return
        known = pl.concat([self._known, *self._learned]).unique("place", keep="last")
        buffer = io.BytesIO()
        known.write_parquet(buffer)
        put(self.path, buffer.getbuffer())
        self._known, self._learned = known, []


def _read(path: Path) -> pl.DataFrame:
    if path.is_file():
        # An unreadable memory is no error: the files are read again.
        with contextlib.suppress(pl.exceptions.PolarsError, OSError):
            frame = pl.read_parquet(path, memory_map=False)
            if frame.schema == _SCHEMA:
                return frame
    return pl.DataFrame(schema=_SCHEMA)
