"""The write leg: threads that put vectors on the shelf while the next batch is encoded."""

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

CHECKPOINT_SECONDS = 15.0  # between two checkpoints: what a kill -9 costs, with a batch on top
BUFFERS = 2  # shards that are held in memory: one that fills, one that is committed
_AHEAD = 4  # batches that may wait for the thread


@dataclass(frozen=True)
class _Put:
    claim: ShardClaim
    rows: Sequence[int]
    found: Sequence[NDArray[Any] | Failure]
    truncated: Sequence[bool]


class ShardWriter:
    """Takes batches in order, checkpoints by the clock, commits whole shards.

    One thread puts and checkpoints, another one commits, so that the next shard fills meanwhile.
    An error of the store is raised where the next batch is handed over, or at `close`.

    Attributes:
        seconds: time spent writing.
        refused: vectors that the store could not keep: not finite, or too large for its dtype.
        open: shards that were begun and are not committed.
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
        """Wait until another shard may be begun; False if that takes longer than `timeout` s."""
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
        """Hand over a batch: for each row a vector or a failure, and whether its input was cut."""
        self._hand_over(_Put(claim, rows, found, truncated or [False] * len(rows)))

    def commit(self, claim: ShardClaim) -> None:
        """Hand over a shard of which every row has been put."""
        self._hand_over(claim)

    def close(self, *, keep: bool = True) -> None:
        """Finish what was handed over, and let go of the shards that were not committed.

        Args:
            keep: whether to checkpoint them first.
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
                continue  # the queue is emptied, so that nobody waits for this thread
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
        """Time what is done, and keep an error for where the engine next looks."""
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
    """Settle a batch; returns how many of its vectors were refused."""
    rows, values, truncated = [], [], []
    for row, found, cut in zip(item.rows, item.found, item.truncated, strict=True):
        if isinstance(found, Failure):
            item.claim.fail(row, found)
        else:
            rows.append(row)
            values.append(found)
            truncated.append(cut)
    return item.claim.put(np.array(rows, np.int64), values, truncated) if rows else 0
