"""Reading and preparing samples: a cell of the table → what the model eats, or why not."""

import pickle
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cache.errors import MmfuseError
from cache.fingerprints import digest
from cache.samples import Kind
from cache.writing.journal import Failure
from pipelines.encoding.encoder import Encoder
from pipelines.media.cells import FILES, decode, raw
from pipelines.media.payloads import Unreadable


@dataclass(frozen=True)
class Recipe:
    """How the cells of one stream are prepared; small and picklable, workers get a copy."""

    encoder: Encoder
    kind: Kind
    root: Path | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell to prepare: its row, what the table holds, and the digest it was planned by."""

    row: int
    value: object
    digest: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cell after preparing: an item and its cost, or a failure; and the seconds it took."""

    row: int
    item: Any
    cost: int
    failure: Failure | None
    read: float
    prepare: float


class Preparer(Protocol):
    """Prepares cells, here or in other processes."""

    def submit(self, recipe: Recipe, cells: Sequence[Cell]) -> "Future[list[Prepared]]":
        """Cells → what became of each, in their order, now or later."""

    def close(self) -> None:
        """End whatever runs."""


class InlinePreparer:
    """Prepares in this process, at once: right for few or cheap cells."""

    def submit(self, recipe: Recipe, cells: Sequence[Cell]) -> "Future[list[Prepared]]":
        """Cells → what became of each; done when it returns."""
        future: Future[list[Prepared]] = Future()
        future.set_result([prepare(recipe, cell) for cell in cells])
        return future

    def close(self) -> None:
        """Nothing runs."""


def prepare(recipe: Recipe, cell: Cell) -> Prepared:
    """Read, decode and prepare one cell; whatever is wrong with it becomes its failure.

    Raises:
        MmfuseError: what the person at the keyboard must mend, from the encoder.
    """
    start = read = time.perf_counter()
    item, cost, failure = None, 0, None
    try:
        data = raw(recipe.kind, cell.value, recipe.root)
        read = time.perf_counter()
        if isinstance(cell.value, str) and recipe.kind in FILES:
            _check_unchanged(recipe.kind, data, cell.digest)
        payload = decode(recipe.kind, data)
        item, cost = recipe.encoder.prepare(recipe.kind, payload)
    except Unreadable as fault:
        failure = Failure(fault.reason, fault.detail, fault.transient)
    except MmfuseError:
        raise
    except Exception as error:  # an encoder's fault with one sample never ends the run
        failure = Failure("error", f"{type(error).__name__}: {error}")
    end = time.perf_counter()
    return Prepared(cell.row, item, cost, failure, read - start, end - read)


def _check_unchanged(kind: Kind, data: bytes, planned: bytes) -> None:
    if digest(kind, data) != planned:
        raise Unreadable("changed", "the file changed while the run went on", transient=True)


def check_picklable(result: Prepared) -> Prepared:
    """The result itself, or a failure where its item cannot be pickled to another process."""
    try:
        pickle.dumps(result.item)
    except Exception as error:  # pickling raises whatever the object's own code does
        detail = f"prepare gave what cannot be sent: {type(error).__name__}: {error}"
        return replace(result, item=None, failure=Failure("error", detail))
    return result
