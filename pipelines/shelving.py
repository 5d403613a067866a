"""The write leg: one thread that puts vectors on the shelf while the next batch is encoded."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.filling import ShardClaim
from pipelines.preparing import Failure

CHECKPOINT_SECONDS = 15.0  # between two checkpoints: what a kill -9 costs, with a batch on top
BUFFERS = 2  # shards that are held in memory: one that fills, one that is committed
_AHEAD = 4  # batches that may wait for the thread


@dataclass(frozen=True)
class _Put:
    claim: ShardClaim
    rows: Sequence[int]
    found: Sequence[NDArray[Any] | Failure]


class Shelver:
    """Takes batches in order, checkpoints by the clock, commits whole shards.

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
        self._keep = True
        self._thread = threading.Thread(target=self._run, name="shelver", daemon=True)
        self._thread.start()

    def take(self, claim: ShardClaim) -> None:
        """Begin a shard; call `room` first."""
        self.open.append(claim)

    def room(self, timeout: float) -> bool:
        """Wait until another shard may be begun; False if that takes longer than `timeout` s."""
        self._check()
        return self._room.acquire(timeout=timeout)

    def give_room_back(self) -> None:
        """Undo `room`, where there was no shard to begin."""
        self._room.release()

    def put(
        self, claim: ShardClaim, rows: Sequence[int], found: Sequence[NDArray[Any] | Failure]
    ) -> None:
        """Hand over a batch: a vector or a failure for each of the rows."""
        self._hand_over(_Put(claim, rows, found))

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
        failed = False
        while (item := self._queue.get()) is not None:
            if failed:
                continue  # the queue is emptied, so that nobody waits for this thread
            start = time.perf_counter()
            try:
                if isinstance(item, _Put):
                    self.refused += _put(item)
                    if time.monotonic() - last >= self._checkpoint_seconds:
                        for claim in list(self.open):
                            claim.checkpoint()
                        last = time.monotonic()
                else:
                    item.commit()
                    self._drop(item)
            except BaseException as error:  # raised where the engine next looks
                self._error, failed = error, True
            self.seconds += time.perf_counter() - start
        for claim in list(self.open):
            try:
                if self._keep and not failed:
                    claim.checkpoint()
            except BaseException as error:  # as above
                self._error, failed = error, True
            self._drop(claim)

    def _drop(self, claim: ShardClaim) -> None:
        self.open.remove(claim)
        claim.__exit__(None, None, None)
        self._room.release()


def _put(item: _Put) -> int:
    """Settle a batch; returns how many of its vectors were refused."""
    rows, values = [], []
    for row, found in zip(item.rows, item.found, strict=True):
        if isinstance(found, Failure):
            item.claim.fail(row, found.reason, found.detail, found.transient)
        else:
            rows.append(row)
            values.append(found)
    return item.claim.put(np.array(rows, np.int64), values) if rows else 0
