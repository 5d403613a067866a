"""ShardQueue: the next rows to encode, shard by shard; several processes share a stream."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.format.generations import Shard
from cache.writing.writer import ShardClaim, StreamWriter
from pipelines.extract.engine.shard_writer import ShardWriter

Rows = NDArray[np.int64]
_POLL = 0.25  # seconds between checks of shards that other processes hold
_OWN = 0.005  # seconds between checks of shards that this process is about to commit


@dataclass(frozen=True)
class Window:
    """Rows of one shard that are batched together.

    Attributes:
        claim: the leased shard.
        rows: row numbers, those already encoded by an interrupted run included.
        todo: rows to encode now.
        last: whether the shard is complete after this window.
    """

    claim: ShardClaim
    rows: list[int]
    todo: frozenset[int]
    last: bool


class ShardQueue:
    """Windows of every shard that this process can lease; waits for shards that others hold.

    Attributes:
        done: whether there are no more windows.
    """

    def __init__(
        self, writer: StreamWriter, shard_writer: ShardWriter, size: int, limit: int | None
    ) -> None:
        self._writer, self._shard_writer, self._size = writer, shard_writer, size
        self._left = limit
        self._shards = list(writer.shards)
        self._windows: Iterator[Window] = iter(())
        self.done = False

    def next(self, stop: Callable[[], bool], *, wait: bool) -> Window | None:
        """The next window; None if there is none (without `wait`: none yet), or on `stop`."""
        while not stop():
            window = next(self._windows, None)
            if window is not None or self.done:
                return window
            if not self._claim(_POLL if wait else 0.0) and not wait:
                return None
        return None

    def _claim(self, timeout: float) -> bool:
        """Lease one more shard; False if there is no room or others hold the rest."""
        if self._left == 0 or not self._shards:
            self.done = True
            return False
        if not self._shard_writer.acquire_room(timeout):
            return False
        claim = self._first_free()
        if claim is None:
            self._shard_writer.release_room()
            self.done = not self._shards
            if not self.done and timeout:
                time.sleep(_OWN if self._shard_writer.open else timeout)
            return False
        self._shard_writer.begin(claim)
        self._cut(claim)
        return True

    def _first_free(self) -> ShardClaim | None:
        generation = self._writer.generation
        for shard in list(self._shards):
            if self._depends_on_open(shard):
                return None  # nor a later shard, which may share this one's inputs
            claim = self._writer.claim(shard)
            if claim is not None:
                self._shards.remove(shard)
                return claim
            if generation.commit(shard) is not None:
                self._shards.remove(shard)
        return None

    def _depends_on_open(self, shard: Shard) -> bool:
        """Whether a shard has inputs that are being encoded in an earlier, still open shard."""
        if not self._shard_writer.open:
            return False
        first = self._writer.first[shard.start : shard.stop]
        return any(
            bool(((first >= other.start) & (first < other.stop)).any())
            for other in [claim.shard for claim in list(self._shard_writer.open)]
        )

    def _cut(self, claim: ShardClaim) -> None:
        todo = claim.todo if self._left is None else claim.todo[: self._left]
        whole = len(todo) == len(claim.todo)
        if self._left is not None:
            self._left -= len(todo)
        if whole and not len(todo):
            self._shard_writer.commit(claim)
            return
        self._windows = self._cut_windows(claim, np.union1d(claim.resumed, todo), todo, whole=whole)

    def _cut_windows(
        self, claim: ShardClaim, rows: Rows, todo: Rows, *, whole: bool
    ) -> Iterator[Window]:
        """Windows of a shard, lazily: a million rows as Python integers are 60 MB.

        They are cut by position among all rows that this run, or the interrupted one before it, had
        to encode, so that a resumed shard has the same batches.
        """
        for start in range(0, len(rows), self._size):
            own = rows[start : start + self._size]
            wanted = own[np.isin(own, todo, assume_unique=True)].tolist()
            if wanted:
                last = wanted[-1] == todo[-1]
                yield Window(claim, own.tolist(), frozenset(wanted), last and whole)
