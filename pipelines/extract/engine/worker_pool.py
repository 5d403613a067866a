"""Process pool that prepares samples and replaces dead or hung workers."""

import contextlib
import pickle
import signal
import sys
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import connection, get_context
from queue import SimpleQueue
from typing import Any

from cache.errors import MmfuseError
from cache.writing.journal import Failure
from pipelines import catalog
from pipelines.extract.engine.prepare import Cell, Prepared, Recipe
from pipelines.extract.engine.worker_main import READY, work

TIMEOUT = 600.0  # seconds one sample may take before its worker counts as hanging
MAX_KILLS = 2  # workers that a sample may kill before it is recorded as failed
_MAX_STARTUP_DEATHS = 3  # workers that may die before they are ready
_CHUNK_SECONDS = 0.05  # work per chunk: long against a message, short against a wait
_CHUNK_CELLS = 256
_TICK = 1.0  # seconds between checks for hung workers


class WorkerPool:
    """A pool of spawned worker processes; never forked, so that no lock is inherited.

    One thread sends cells, receives results and watches the processes. A process that dies or
    hangs is replaced; its current sample is retried once and then recorded as failed.
    """

    def __init__(self, count: int, timeout: float = TIMEOUT) -> None:
        self._scheduler = _Scheduler(count, timeout)
        self._submitted: SimpleQueue[_Chunk | None] = SimpleQueue()
        self._recipes: dict[int, tuple[Recipe, bytes]] = {}
        self._broken: Exception | None = None
        self._woken, self._wake = get_context("spawn").Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
        self._thread.start()

    def submit(self, recipe: Recipe, cells: Sequence[Cell]) -> "Future[list[Prepared]]":
        """Queue cells; the future gives one result per cell, in order.

        Raises:
            MmfuseError: for an encoder that cannot be pickled.
        """
        future: Future[list[Prepared]] = Future()
        if cells:
            submission = _Submission(future, recipe, self._packed(recipe), len(cells))
            self._submitted.put(_Chunk(submission, list(enumerate(cells))))
            self._wake.send_bytes(b"-")
            if self._broken:
                submission.fail(self._broken)
        else:
            future.set_result([])
        return future

    def close(self) -> None:
        """End the processes; unfinished cells are dropped."""
        self._submitted.put(None)
        self._wake.send_bytes(b"-")
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def _packed(self, recipe: Recipe) -> bytes:
        if id(recipe) not in self._recipes:
            name = recipe.encoder.name
            try:
                packed = pickle.dumps((catalog.files(), pickle.dumps(recipe)))
            except Exception as error:  # pickling raises whatever the object's own code does
                raise MmfuseError(
                    f"encoder {name} cannot be sent to worker processes ({error}); use --workers 0"
                ) from error
            if b"__main__" in packed:
                raise MmfuseError(
                    f"encoder {name} is defined in the script itself, which worker processes do "
                    "not run; move it to a module of its own, or use workers=0"
                )
            self._recipes[id(recipe)] = (recipe, packed)
        return self._recipes[id(recipe)][1]

    def _run(self) -> None:
        # Blocked in this thread, SIGINT is blocked in every process that it starts.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        scheduler = self._scheduler
        try:
            while True:
                scheduler.hand_out()
                if scheduler.wait(self._woken):
                    chunk = self._submitted.get()
                    if chunk is None:
                        return
                    scheduler.waiting.append(chunk)
        except Exception as error:  # every waiting future must get it
            self._broken = error
            scheduler.fail(error)
            while not self._submitted.empty():
                chunk = self._submitted.get()
                if chunk is not None:
                    chunk.submission.fail(error)
        finally:
            scheduler.close()


class _Submission:
    """One call of `submit`: its future and the results so far."""

    def __init__(
        self, future: "Future[list[Prepared]]", recipe: Recipe, packed: bytes, count: int
    ) -> None:
        self.future, self.recipe, self.packed = future, recipe, packed
        self._results: dict[int, Prepared] = {}
        self._count = count

    def settle(self, place: int, result: Prepared) -> None:
        """Add one result; the last one completes the future."""
        self._results[place] = result
        if len(self._results) == self._count and not self.future.done():
            self.future.set_result([self._results[number] for number in range(self._count)])

    def fail(self, error: BaseException) -> None:
        """Set the future's exception."""
        if not self.future.done():
            self.future.set_exception(error)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide `__main__`, so that a new process does not run the user's script again.

    Spawned processes import the parent's `__main__`. A script that calls `extract` at its top
    level would extract again in every worker, and wait for leases that its parent holds.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass
class _Chunk:
    """Cells of one submission that are sent together, with their positions in it."""

    submission: _Submission
    cells: list[tuple[int, Cell]]


class _Worker:
    """One worker process, its current chunk, and the recipes it has received."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # position of the current cell and the monotonic second it began
        self.current = context.RawArray("d", [-1.0, 0.0])
        arguments = (theirs, self.current)
        self.process = context.Process(
            target=work, args=arguments, name="mmfuse-worker", daemon=True
        )
        with _without_main():
            self.process.start()
        theirs.close()
        self.ready = False
        self.chunk: _Chunk | None = None
        self.known: set[int] = set()

    def send(self, chunk: _Chunk) -> None:
        """Send a chunk, with its recipe if the worker does not have it yet."""
        self.chunk = chunk
        submission = chunk.submission
        number = id(submission.recipe)
        recipe = None if number in self.known else submission.packed
        self.known.add(number)
        message = (number, recipe, [cell for _, cell in chunk.cells])
        with contextlib.suppress(OSError):  # it died: noticed by its sentinel
            self.pipe.send_bytes(pickle.dumps(message, 5))

    def receive(self) -> Any:  # noqa: ANN401 - a list of results, an error, or None when ready
        """Receive the worker's message.

        Raises:
            EOFError, OSError: if it died.
        """
        answer = self.pipe.recv_bytes()
        if answer == READY:
            self.ready = True
            return None
        return pickle.loads(answer)

    def hangs(self, timeout: float) -> bool:
        """Whether its current cell takes longer than `timeout` seconds."""
        place, since = self.current
        return self.chunk is not None and place >= 0 and time.monotonic() - since > timeout

    def end(self) -> int | None:
        """End the process; returns its exit code."""
        self.pipe.close()
        self.process.join(0.1 if self.chunk else 1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class _Scheduler:
    """Sends cells, receives results, and replaces dead or hung workers."""

    def __init__(self, count: int, timeout: float) -> None:
        self.waiting: deque[_Chunk] = deque()
        self._count, self._timeout = count, timeout
        self._workers: list[_Worker] = []
        self._kills: Counter[tuple[int, int]] = Counter()
        self._startup_deaths = 0
        self._cell_seconds = 0.0  # moving average of seconds per cell

    def hand_out(self) -> None:
        """Send waiting cells to every idle worker."""
        while self.waiting and len(self._workers) < self._count:
            self._workers.append(_Worker())
        for worker in self._workers:
            if self.waiting and worker.ready and worker.chunk is None:
                worker.send(self._next_chunk())

    def wait(self, woken: connection.Connection) -> bool:
        """Wait for messages and deaths, a second at most; True when something was submitted."""
        pipes: dict[Any, _Worker] = {worker.pipe: worker for worker in self._workers}
        ends: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in self._workers}
        signalled = connection.wait([woken, *pipes, *ends], _TICK)
        dead = {ends[one]: "worker-died" for one in signalled if one in ends}
        for worker in [pipes[one] for one in signalled if one in pipes]:
            try:
                self._receive(worker)
            except (EOFError, OSError):
                dead[worker] = "worker-died"
        for worker in self._workers:
            if worker.hangs(self._timeout):
                dead.setdefault(worker, "timeout")
        for worker, reason in dead.items():
            self._workers.remove(worker)
            self._replace_dead(worker, reason)
        if woken in signalled:
            woken.recv_bytes()
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """Set an error on every unfinished submission."""
        held = [worker.chunk for worker in self._workers if worker.chunk]
        for chunk in [*self.waiting, *held]:
            chunk.submission.fail(error)

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.end()

    def _next_chunk(self) -> _Chunk:
        """The next cells for one worker: about 50 ms of work, at most its share."""
        chunk = self.waiting[0]
        share = -(-len(chunk.cells) // self._count)
        fitting = int(_CHUNK_SECONDS / self._cell_seconds) if self._cell_seconds else 4
        size = max(1, min(share, fitting, _CHUNK_CELLS))
        if size >= len(chunk.cells):
            return self.waiting.popleft()
        portion = _Chunk(chunk.submission, chunk.cells[:size])
        chunk.cells = chunk.cells[size:]
        return portion

    def _receive(self, worker: _Worker) -> None:
        answer = worker.receive()
        chunk, worker.chunk = worker.chunk, None
        if chunk is None:
            return
        if isinstance(answer, BaseException):
            chunk.submission.fail(answer)
            self.waiting = deque(
                other for other in self.waiting if other.submission is not chunk.submission
            )
            return
        for (place, _), result in zip(chunk.cells, answer, strict=True):
            chunk.submission.settle(place, result)
        spent = sum(result.read + result.prepare for result in answer) / len(answer)
        self._cell_seconds = 0.5 * (self._cell_seconds or spent) + 0.5 * spent
        self._startup_deaths = 0

    def _replace_dead(self, worker: _Worker, reason: str) -> None:
        """Requeue a dead worker's cells; a cell that kills two workers is recorded as failed."""
        place, chunk = int(worker.current[0]), worker.chunk
        code = worker.end()
        if chunk is None or not 0 <= place < len(chunk.cells):
            self._startup_deaths += 1
            if chunk is not None:
                self.waiting.appendleft(chunk)
            if self._startup_deaths >= _MAX_STARTUP_DEATHS:
                raise MmfuseError(
                    f"worker processes die at start-up (exit code {code}); use --workers 0"
                )
            return
        number, cell = chunk.cells[place]
        rest = chunk.cells[:place] + chunk.cells[place + 1 :]
        if rest:
            self.waiting.appendleft(_Chunk(chunk.submission, rest))
        self._kills[id(chunk.submission.recipe), cell.row] += 1
        if self._kills[id(chunk.submission.recipe), cell.row] < MAX_KILLS:
            # Alone, so that no other cell is lost if it kills again.
            self.waiting.appendleft(_Chunk(chunk.submission, [(number, cell)]))
            return
        detail = f"preparing it ended {MAX_KILLS} worker processes, the last with exit code {code}"
        if reason == "timeout":
            detail = f"preparing it took more than {self._timeout:g} s, {MAX_KILLS} times"
        failure = Failure(reason, detail, transient=True)
        chunk.submission.settle(number, Prepared(cell.row, None, 0, failure, 0.0, 0.0))
