"""The runner: one stream's rows, prepared ahead, encoded in batches, and handed to the shelf."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.writing.journal import Failure
from pipelines.encoding.encoder import truncations
from pipelines.extract.engine.batches import (
    MAX_FIRST_FAILURES,
    AllInputsFailedError,
    BatchBudget,
    BatchEncoder,
    bucketed_batches,
)
from pipelines.extract.engine.prepare import Cell, Prepared, Preparer, Recipe
from pipelines.extract.engine.shard_queue import ShardQueue, Window
from pipelines.extract.engine.shard_writer import ShardWriter
from pipelines.extract.engine.timings import Timings
from pipelines.extract.plan import StreamPlan
from pipelines.media.cells import FILES

_TICK = 0.2  # seconds between two looks for Ctrl-C


@dataclass(frozen=True)
class RunnerOptions:
    """How one stream is moved.

    Attributes:
        budget: of one batch.
        ahead: windows that are prepared while another one is encoded.
        strict: whether the first failure ends the run.
        max_bad: failures that end the run when there are more; None for any number.
        stop: says whether to end after the batch in hand.
    """

    budget: BatchBudget
    ahead: int
    strict: bool
    max_bad: int | None
    stop: Callable[[], bool]


class Runner:
    """Moves one stream's rows from the table to the shelf.

    Attributes:
        timings: seconds spent, by part.
        encoded: inputs that were encoded.
        failed: inputs that failed, by reason.
        types: inputs that failed, by the ending of their files' names.
    """

    def __init__(
        self,
        plan: StreamPlan,
        batch_encoder: BatchEncoder,
        options: RunnerOptions,
        timings: Timings,
    ) -> None:
        self._plan, self._batch_encoder, self._options = plan, batch_encoder, options
        self._stop, self.timings = options.stop, timings
        self._recipe = Recipe(plan.encoder, plan.modality.kind, plan.dataset.root)
        self._column = plan.dataset.table[plan.modality.name]
        self.encoded = 0
        self.failed: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self._all_failed = not plan.found.known  # until one input is found to be readable

    def run(
        self, queue: ShardQueue, preparer: Preparer, shard_writer: ShardWriter
    ) -> Generator[int, None, None]:
        """Move everything that the supply has; gives one number for each input settled.

        Inside a window, where batches go from long inputs to short ones, the numbers come as its
        cost is spent and not as its rows are, so that an ETA computed from them does not drift.
        Ends early, between two batches, when `stop` says so.

        Raises:
            MmfuseError: from the encoder or the store; when strict, at the first failure; when
                more have failed than may.
            HopelessError: when the first hundred inputs have all failed.
        """
        ahead: deque[tuple[Window, Future[list[Prepared]]]] = deque()
        while not self._stop():
            while len(ahead) < self._options.ahead:
                with self.timings.timed("waited_writer"):
                    window = queue.next(self._stop, wait=not ahead)
                if window is None:
                    break
                with self.timings.timed("waited_inputs"):
                    ahead.append((window, preparer.submit(self._recipe, self._cells(window))))
            if not ahead:
                return
            window, future = ahead.popleft()
            with self.timings.timed("waited_inputs"):
                prepared = self._wait(future)
            if prepared is not None:
                yield from self._encode_window(window, prepared, shard_writer)

    def _cells(self, window: Window) -> list[Cell]:
        values = self._column.gather(window.rows).to_list()
        digests = self._plan.inputs.digests[window.rows]
        return [
            Cell(row, value, digest.tobytes())
            for row, value, digest in zip(window.rows, values, digests, strict=True)
        ]

    def _wait(self, future: "Future[list[Prepared]]") -> list[Prepared] | None:
        """The results, or None if Ctrl-C comes first."""
        while True:
            try:
                return future.result(_TICK)
            except NotYet:
                if self._stop():
                    return None

    def _encode_window(
        self, window: Window, prepared: list[Prepared], shard_writer: ShardWriter
    ) -> Iterator[int]:
        """Encode one window and hand it over."""
        self.timings.read += sum(one.read for one in prepared)
        self.timings.prepare += sum(one.prepare for one in prepared)
        bad = {one.row: one.failure for one in prepared if one.failure is not None}
        bad = {row: failure for row, failure in bad.items() if row in window.todo}
        good = [one for one in prepared if one.failure is None]
        self._all_failed &= not good
        self._hand_over(window, list(bad), list(bad.values()), shard_writer)
        yield from range(len(bad))
        # Whole batches were settled by a broken-off run, or, after a limit, a part of one.
        cut = bucketed_batches([one.cost for one in good], self._options.budget)
        todo = [[good[p] for p in places if good[p].row in window.todo] for places in cut]
        todo = [batch for batch in todo if batch]
        rows, whole, spent, reported = sum(map(len, todo)), sum(map(_padded, todo)), 0, 0
        for batch in todo:
            if self._stop():
                return
            self._encode(window, batch, shard_writer)
            spent += _padded(batch)
            yield from range(reported, reported := rows * spent // whole)
        if window.last:
            with self.timings.timed("waited_writer"):
                shard_writer.commit(window.claim)

    def _encode(self, window: Window, batch: list[Prepared], shard_writer: ShardWriter) -> None:
        with self.timings.timed("encode"):
            found = self._batch_encoder.encode(
                [one.item for one in batch], [one.cost for one in batch]
            )
        cut = truncations(self._plan.encoder, [one.item for one in batch])
        self._hand_over(window, [one.row for one in batch], found, shard_writer, cut)

    def _hand_over(
        self,
        window: Window,
        rows: list[int],
        found: "list[NDArray[Any] | Failure] | list[Failure]",
        shard_writer: ShardWriter,
        truncated: Sequence[bool] = (),
    ) -> None:
        if not rows:
            return
        for row, one in zip(rows, found, strict=True):
            if isinstance(one, Failure):
                self._count(row, one)
            elif self._options.strict:
                self._check_finite(row, one)
        self.encoded += sum(not isinstance(one, Failure) for one in found)
        with self.timings.timed("waited_writer"):
            shard_writer.put(window.claim, rows, found, truncated)
        self._check_share(shard_writer.refused)

    def _check_finite(self, row: int, vector: NDArray[Any]) -> None:
        if not np.isfinite(vector.astype(self._plan.encoder.storage)).all():
            self._count(row, Failure("non-finite", "the vector holds NaN or infinity"))

    def _check_share(self, refused: int) -> None:
        """End the run when too many have failed, vectors that the store refused included."""
        most, failed = self._options.max_bad, self.failed.total() + refused
        if most is not None and failed > most:
            raise MmfuseError(
                f"{self._where}: {failed:,} inputs have failed with {self._plan.encoder.name}, "
                f"more than the {most:,} that --max-bad allows "
                f"({self._describe_failures(refused)}); what was done is kept: repair the data or "
                "allow more, then run it again to resume"
            )

    @property
    def _where(self) -> str:
        return f"{self._plan.dataset.name}: {self._plan.modality.name}"

    def _describe_failures(self, refused: int = 0) -> str:
        """What failed, by reason and by type of file."""
        reasons = self.failed + Counter({"non-finite or overflow": refused})
        both = [found.most_common() for found in (reasons, self.types) if found]
        return "; ".join(", ".join(f"{n:,} {word}" for word, n in found) for found in both)

    def _count(self, row: int, failure: Failure) -> None:
        self.failed[failure.reason] += 1
        cell = self._column[row]
        if self._recipe.kind in FILES and isinstance(cell, str):
            self.types[PurePath(cell).suffix.lower() or "no suffix"] += 1
        where = self._where
        detail = f"{failure.reason}: {failure.detail}" if failure.detail else failure.reason
        if self._options.strict:
            name = self._plan.dataset.table["id"][row]
            raise MmfuseError(
                f"{where} of sample {name} (row {row}) cannot be encoded by "
                f"{self._plan.encoder.name}: {detail}; what was done before it is kept; without "
                "--strict it would be recorded and left out"
            )
        if self._all_failed and self.failed.total() >= MAX_FIRST_FAILURES:
            raise AllInputsFailedError(
                f"{where}: the first {self.failed.total()} inputs have all failed with "
                f"{self._plan.encoder.name} ({self._describe_failures()}; the last: {detail}); "
                "nothing was stored"
            )


def _padded(batch: Sequence[Prepared]) -> int:
    """What a batch costs, padding included."""
    return len(batch) * max(one.cost for one in batch)
