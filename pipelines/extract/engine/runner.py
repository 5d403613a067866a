"""Runs one stream: prepare, batch, encode, write."""

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
from pipelines.media.cells import FILES, path_of

_TICK = 0.2  # seconds between checks for Ctrl-C


@dataclass(frozen=True)
class RunnerOptions:
    """Options of running one stream.

    Attributes:
        budget: of one batch.
        ahead: windows prepared while another one is encoded.
        strict: whether the first failure ends the run.
        max_bad: largest allowed number of failures; None for any number.
        stop: returns whether to end after the current batch.
    """

    budget: BatchBudget
    ahead: int
    strict: bool
    max_bad: int | None
    stop: Callable[[], bool]


class Runner:
    """Prepares, encodes and hands over one stream's rows to the shard writer.

    Attributes:
        timings: seconds spent, by step.
        encoded: number of inputs encoded.
        failed: number of failures by reason.
        types: number of failures by file suffix.
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
        self._all_failed = not plan.found.known  # until one input is readable

    def run(
        self, queue: ShardQueue, preparer: Preparer, shard_writer: ShardWriter
    ) -> Generator[int, None, None]:
        """Run all windows of the queue; yields once per input encoded or failed.

        Inside a window, where batches go from long inputs to short ones, it yields in proportion
        to cost and not to rows, so that an ETA computed from it does not drift. Ends early, between
        two batches, when `stop` returns True.

        Raises:
            MmfuseError: from the encoder or the store; when strict, at the first failure; when
                more than `max_bad` have failed.
            AllInputsFailedError: when the first hundred inputs have all failed.
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
        """The results, or None after Ctrl-C."""
        while True:
            try:
                return future.result(_TICK)
            except NotYet:
                if self._stop():
                    return None

    def _encode_window(
        self, window: Window, prepared: list[Prepared], shard_writer: ShardWriter
    ) -> Iterator[int]:
        """Encode one window and hand it to the shard writer."""
        self.timings.read += sum(sample.read for sample in prepared)
        self.timings.prepare += sum(sample.prepare for sample in prepared)
        bad = {sample.row: sample.failure for sample in prepared if sample.failure is not None}
        bad = {row: failure for row, failure in bad.items() if row in window.todo}
        good = [sample for sample in prepared if sample.failure is None]
        self._all_failed &= not good
        self._hand_over(window, list(bad), list(bad.values()), shard_writer)
        yield from range(len(bad))
        # An interrupted run finished whole batches, or, with a limit, part of one.
        cut = bucketed_batches([sample.cost for sample in good], self._options.budget)
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
                [sample.item for sample in batch], [sample.cost for sample in batch]
            )
        cut = truncations(self._plan.encoder, [sample.item for sample in batch])
        self._hand_over(window, [sample.row for sample in batch], found, shard_writer, cut)

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
        """Raise when too many inputs have failed, vectors that the store refused included."""
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
        """Failures by reason and by file suffix, as text."""
        reasons = self.failed + Counter({"non-finite or overflow": refused})
        both = [found.most_common() for found in (reasons, self.types) if found]
        return "; ".join(", ".join(f"{n:,} {word}" for word, n in found) for found in both)

    def _count(self, row: int, failure: Failure) -> None:
        self.failed[failure.reason] += 1
        cell, where = self._column[row], self._where
        which = f"sample {self._plan.dataset.table['id'][row]} (row {row})"
        if self._recipe.kind in FILES and (path := path_of(cell)):
            self.types[PurePath(path).suffix.lower() or "no suffix"] += 1
            which = f"{which[:-1]}, {path})"
        detail = f"{failure.reason}: {failure.detail}" if failure.detail else failure.reason
        if self._options.strict:
            raise MmfuseError(
                f"{where} of {which} cannot be encoded by "
                f"{self._plan.encoder.name}: {detail}; rows finished before it are kept; "
                "without --strict it would be recorded and left out"
            )
        if self._all_failed and self.failed.total() >= MAX_FIRST_FAILURES:
            raise AllInputsFailedError(
                f"{where}: the first {self.failed.total()} inputs have all failed with "
                f"{self._plan.encoder.name} ({self._describe_failures()}; the last, {which}: "
                f"{detail}); nothing was stored"
            )


def _padded(batch: Sequence[Prepared]) -> int:
    """Cost of a batch, padding included."""
    return len(batch) * max(sample.cost for sample in batch)
