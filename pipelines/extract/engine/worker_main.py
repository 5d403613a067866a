"""Main loop of a worker process: receives cells, sends prepared items, until the pipe closes."""

import os
import pickle
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

READY = b"ready"


def work(pipe: Connection, current: Any) -> None:  # noqa: ANN401 - a shared array has no public type
    """Serve one pipe: a recipe once, then lists of cells, each answered by a list of results.

    Args:
        pipe: both ways, pickled messages.
        current: shared doubles: position of the current cell (-1 for none) and the monotonic second
            it began, which tell the parent the cell at which this process died or hung.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # the workers are the parallelism
    from pipelines import catalog
    from pipelines.extract.engine.prepare import prepare

    recipes: dict[int, Any] = {}
    try:
        pipe.send_bytes(READY)
    except OSError:
        return  # the parent ended before this process was ready
    while True:
        try:
            message = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return  # the parent has ended
        number, recipe, cells = message
        try:
            if recipe is not None:
                files, packed = pickle.loads(recipe)
                catalog.import_files(files)
                recipes[number] = pickle.loads(packed)
            results = []
            for place, cell in enumerate(cells):
                current[1] = time.monotonic()
                current[0] = place
                results.append(prepare(recipes[number], cell))
            answer = _packed(results)
        except Exception as error:  # for the parent to raise
            answer = pickle.dumps(error)
        current[0] = -1
        try:
            pipe.send_bytes(answer)
        except OSError:
            return


def _packed(results: list[Any]) -> bytes:
    """The pickled results; an item that cannot be pickled becomes its cell's failure."""
    from pipelines.extract.engine.prepare import check_picklable

    try:
        return pickle.dumps(results, 5)
    except Exception:  # pickling raises whatever the object's own code does
        return pickle.dumps([check_picklable(result) for result in results], 5)
