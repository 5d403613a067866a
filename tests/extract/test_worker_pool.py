"""Worker processes: order, isolation of bad samples, replacement of dead workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from own_encoder import LETTERS
from small_encoders import texts
from waiting import HANG, wait_until

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.fingerprints import digest
from cache.layout import Home
from cache.writing.journal import Failure
from pipelines.encoding.encoder import build_encoder
from pipelines.extract.engine.prepare import Cell, InlinePreparer, Recipe
from pipelines.extract.engine.worker_pool import WorkerPool
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.media.payloads import Unreadable


@dataclass(frozen=True)
class Words:
    """An encoder of text that does what the text says, to itself or to its process."""

    name: str = "words"

    def prepare(self, kind, payload):
        """The word's length as item and cost, or the accident that it names."""
        match payload.split():
            case ["bad"]:
                raise Unreadable("odd", "it says so itself", transient=True)
            case ["raise"]:
                raise ValueError("boom")
            case ["exit"]:
                os._exit(7)
            case ["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["sleep"]:
                time.sleep(600)
            case ["error"]:
                raise MmfuseError("install something")
            case ["lambda"]:
                return (lambda: None), 1
            case ["once", path]:
                if not os.path.exists(path):  # noqa: PTH110
                    open(path, "w").close()  # noqa: PTH123
                    os._exit(1)
        return np.full(3, len(payload)), len(payload)


RECIPE = Recipe(Words(), "text", None)


def cells(*words):
    """A cell a word, in order."""
    return [Cell(row, word, digest("text", word.encode())) for row, word in enumerate(words)]


def outcome(results):
    """Row, item and reason of every result."""
    return [
        (r.row, None if r.failure else int(r.item[0]), r.failure and r.failure.reason)
        for r in results
    ]


@pytest.fixture(scope="module")
def pool():
    """Two workers, shared by the tests since starting them takes a second."""
    workers = WorkerPool(2, timeout=1.5)
    yield workers
    workers.close()


def test_workers_give_what_this_process_gives_in_the_same_order(pool):
    """Where cells are prepared changes neither items nor order, over several orders at once."""
    words = [f"{'x' * (n % 17)}{n}" for n in range(1000)]
    first = pool.submit(RECIPE, cells(*words))
    second = pool.submit(RECIPE, cells(*reversed(words)))
    expected = InlinePreparer().submit(RECIPE, cells(*words)).result()
    assert outcome(first.result(HANG)) == outcome(expected)
    assert outcome(second.result(HANG))[0][1] == len(words[-1])


@pytest.mark.parametrize("place", ["here", "workers"])
def test_a_bad_cell_costs_itself_alone(pool, place):
    """Unreadable keeps its reason, other exceptions become `error`, neighbours are untouched."""
    words = ["a", "bad", "bb", "raise", "ccc", "", "dddd"]
    preparer = InlinePreparer() if place == "here" else pool
    results = preparer.submit(RECIPE, cells(*words)).result(HANG)
    assert outcome(results) == [
        (0, 1, None),
        (1, None, "odd"),
        (2, 2, None),
        (3, None, "error"),
        (4, 3, None),
        (5, None, "empty"),
        (6, 4, None),
    ]
    assert results[1].failure == Failure("odd", "it says so itself", transient=True)
    assert results[3].failure == Failure("error", "ValueError: boom")


@pytest.mark.parametrize(
    ("word", "reason", "detail"),
    [
        ("exit", "worker-died", "exit code 7"),
        ("kill", "worker-died", "-9"),
        ("sleep", "timeout", "1.5 s"),
    ],
)
def test_a_sample_that_ends_or_hangs_its_worker_twice_is_left_alone(pool, word, reason, detail):
    """Every other cell arrives, and the culprit is named by its reason."""
    words = [*["fine"] * 40, word, *["good"] * 40]
    results = pool.submit(RECIPE, cells(*words)).result(HANG)
    assert [r.row for r in results if r.failure] == [40]
    assert results[40].failure.reason == reason
    assert detail in results[40].failure.detail
    assert results[40].failure.transient
    assert all(int(r.item[0]) == 4 for r in results if not r.failure)


def test_a_sample_that_ended_a_worker_at_random_is_tried_again(pool, tmp_path):
    """One accident quarantines nothing: the sample is tried once more and arrives."""
    words = ["a", f"once {tmp_path / 'mark'}", "b"]
    assert [r.failure for r in pool.submit(RECIPE, cells(*words)).result(HANG)] == [None] * 3


def test_an_item_that_cannot_be_sent_is_its_own_failure(pool):
    """What cannot be pickled costs its cell, and the detail says why."""
    results = pool.submit(RECIPE, cells("a", "lambda", "b")).result(HANG)
    assert [r.failure and r.failure.reason for r in results] == [None, "error", None]
    assert "cannot be pickled" in results[1].failure.detail


def test_what_the_user_must_fix_stops_the_submission(pool):
    """A MmfuseError of an encoder is not a bad sample: it reaches the caller."""
    with pytest.raises(MmfuseError, match="install something"):
        pool.submit(RECIPE, cells("a", "error", "b")).result(HANG)
    assert outcome(pool.submit(RECIPE, cells("a")).result(HANG)) == [(0, 1, None)]


def test_an_encoder_that_cannot_be_sent_is_an_error_that_says_what_to_do(pool):
    """A locally defined encoder answers with `--workers 0`, at once."""

    class Local:
        name = "local"

    with pytest.raises(MmfuseError, match=r"local cannot be sent.*--workers 0"):
        pool.submit(Recipe(Local(), "text", None), cells("a"))


def test_workers_that_cannot_begin_are_an_error_not_a_wait():
    """Workers that die before their first cell end the wait with what to do."""
    workers = WorkerPool(1)
    try:
        future = workers.submit(Recipe(Unborn(), "text", None), cells("a"))
        with pytest.raises(MmfuseError, match=r"die at start-up.*--workers 0"):
            future.result(HANG)
        again = workers.submit(RECIPE, cells("a"))
        with pytest.raises(MmfuseError, match="die at start-up"):
            again.result(HANG)
    finally:
        workers.close()


class Unborn:
    """An encoder whose loading ends the process, but only where it is loaded."""

    name = "unborn"

    def __reduce__(self):
        return os._exit, (3,)


def test_closing_leaves_no_process_and_no_thread():
    """Unfinished work ends with the processes, also in the middle of a sample."""
    before = {thread.name for thread in threading.enumerate()}
    workers = WorkerPool(2)
    waiting = workers.submit(RECIPE, cells("sleep", "sleep"))
    running = workers._scheduler._workers
    wait_until(lambda: any(worker.current[0] >= 0 for worker in list(running)))
    processes = [worker.process.pid for worker in running]
    workers.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert not waiting.done()
    assert {thread.name for thread in threading.enumerate()} == before


def test_a_script_without_a_main_guard_extracts_with_workers(tmp_path):
    """Workers do not run the user's script again, so `extract` at its top level just works."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "import mmfuse\n"
        "from pipelines.extract.extract import ExtractOptions\n"
        "digits = mmfuse.open_dataset('digits')[0]\n"
        "pixels = mmfuse.build_encoder('pixels')\n"
        f"home = mmfuse.Home(Path({str(tmp_path / 'home')!r}))\n"
        "options = ExtractOptions(workers=2, limit=60)\n"
        "print(mmfuse.extract(digits, [pixels], home=home, options=options)[0].new)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.stdout.strip().isdigit(), done.stderr
    assert int(done.stdout) >= 60


def test_an_encoder_in_a_file_of_the_users_works_in_workers_too(tmp_path):
    """Workers import the file by its path before they are sent an object of it."""
    (tmp_path / "mine.py").write_text(LETTERS)
    encoder = build_encoder(str(tmp_path / "mine.py"))
    words = [f"{'a' * n}b" for n in range(50)]
    options = ExtractOptions(workers=2)
    home = Home(tmp_path / "home")
    (report,) = extract(texts({"m": words}), [encoder], home=home, options=options)
    found = FeatureStore(home, "small").whole(report.key).values
    assert found[:, :2].tolist() == [[n, 1] for n in range(50)]
    assert report.workers == 2
