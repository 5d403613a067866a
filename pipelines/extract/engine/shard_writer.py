"""ShardWriter: threads that write vectors to the store while the next batch is encoded."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.writing.journal import Failure
from cache.writing.writer import ShardClaim

CHECKPOINT_SECONDS = 15.0  # between checkpoints: a kill -9 loses this much and a batch
BUFFERS = 2  # shards in memory: one that fills, one that is committed
_AHEAD = 4  # batches that may wait in the queue


@dataclass(frozen=True)
class _Put:
    claim: ShardClaim
    rows: Sequence[int]
    found: Sequence[NDArray[Any] | Failure]
    truncated: Sequence[bool]


class ShardWriter:
    """Writes batches in order, checkpoints at intervals, commits whole shards.

    One thread writes and checkpoints, another one commits, so that the next shard fills meanwhile.
    An error of the store is raised when the next batch is handed over, or by `close`.

    Attributes:
        seconds: time spent writing.
        refused: vectors that cannot be stored: not finite, or too large for the dtype.
        open: shards begun and not yet committed.
    """

    def __init__(self, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        self.seconds = 0.0
        self.refused = 0
        self._checkpoint_seconds = checkpoint_seconds
        self._queue: queue.Queue[_Put | ShardClaim | None] = queue.Queue(_AHEAD)
        self.open: list[ShardClaim] = []
        self._room = threading.Semaphore(BUFFERS)
        self._error: BaseException | None = None
        self._failed = False
        self._keep = True
        self._committing: set[int] = set()
        self._committer = ThreadPoolExecutor(1, "committer")
        self._thread = threading.Thread(target=self._run, name="shard_writer", daemon=True)
        self._thread.start()

    def begin(self, claim: ShardClaim) -> None:
        """Begin a shard; call `acquire_room` first."""
        self.open.append(claim)

    def acquire_room(self, timeout: float) -> bool:
        """Wait until another shard may begin; False if that takes longer than `timeout` seconds."""
        self._check()
        return self._room.acquire(timeout=timeout)

    def release_room(self) -> None:
        """Undo `acquire_room`, where there was no shard to begin."""
        self._room.release()

    def put(
        self,
        claim: ShardClaim,
        rows: Sequence[int],
        found: Sequence[NDArray[Any] | Failure],
        truncated: Sequence[bool] = (),
    ) -> None:
        """Hand over a batch: a vector or a failure per row, and whether its input was cut."""
        self._hand_over(_Put(claim, rows, found, truncated or [False] * len(rows)))

    def commit(self, claim: ShardClaim) -> None:
        """Hand over a shard whose rows have all been put."""
        self._hand_over(claim)

    def close(self, *, keep: bool = True) -> None:
        """Finish the queue, and release the shards that were not committed.

        Args:
            keep: whether to checkpoint those shards first.
        """
        self._keep = keep
        self._queue.put(None)
        self._thread.join()
        self._check()

    def _hand_over(self, item: "_Put | ShardClaim") -> None:
        self._check()
        self._queue.put(item)

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        last = time.monotonic()
        while (item := self._queue.get()) is not None:
            if self._failed:
                continue  # empty the queue, so that no caller blocks
            with self._guarded():
                if isinstance(item, _Put):
                    self.refused += _put(item)
                    if time.monotonic() - last >= self._checkpoint_seconds:
                        self._checkpoint()
                        last = time.monotonic()
                else:
                    self._committing.add(id(item))
                    self._committer.submit(self._commit, item)
        self._committer.shutdown()
        with self._guarded():
            if self._keep and not self._failed:
                self._checkpoint()
        for claim in list(self.open):
            self._close_claim(claim)

    def _checkpoint(self) -> None:
        for claim in [one for one in list(self.open) if id(one) not in self._committing]:
            claim.checkpoint()

    def _commit(self, claim: ShardClaim) -> None:
        with self._guarded():
            if not self._failed:
                claim.commit()
                self._close_claim(claim)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Time the block, and store its error, to be raised in the engine's thread."""
        start = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self._error, self._failed = error, True
        self.seconds += time.perf_counter() - start

    def _close_claim(self, claim: ShardClaim) -> None:
        self.open.remove(claim)
        self._committing.discard(id(claim))
        claim.__exit__(None, None, None)
        self._room.release()


def _put(item: _Put) -> int:
    """Write a batch to its shard; returns the number of refused vectors."""
    rows, values, truncated = [], [], []
    for row, found, cut in zip(item.rows, item.found, item.truncated, strict=True):
        if isinstance(found, Failure):
            item.claim.fail(row, found)
        else:
            rows.append(row)
            values.append(found)
            truncated.append(cut)
    return item.claim.put(np.array(rows, np.int64), values, truncated) if rows else 0
