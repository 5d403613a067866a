"""Preparing samples: a cell of the table → the encoder's input, or a failure."""

import pickle
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from threadpoolctl import ThreadpoolController

from cache.errors import MmfuseError
from cache.fingerprints import digest
from cache.samples import Kind
from cache.writing.journal import Failure
from pipelines.encoding.encoder import Encoder
from pipelines.media.cells import FILES, decode, raw
from pipelines.media.payloads import Unreadable


@dataclass(frozen=True)
class Recipe:
    """Encoder, kind and root to prepare the cells of one stream; picklable, for workers."""

    encoder: Encoder
    kind: Kind
    root: Path | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell to prepare: its row, its value in the table, and its planned digest."""

    row: int
    value: object
    digest: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared cell: an item and its cost, or a failure; and the seconds it took."""

    row: int
    item: Any
    cost: int
    failure: Failure | None
    read: float
    prepare: float


class Preparer(Protocol):
    """Prepares cells, in this process or in others."""

    def submit(self, recipe: Recipe, cells: Sequence[Cell]) -> "Future[list[Prepared]]":
        """Start preparing cells; the future gives one result per cell, in order."""

    def close(self) -> None:
        """Stop, and end worker processes."""


class InlinePreparer:
    """Prepares in this process, synchronously; for few or cheap cells.

    With one thread of BLAS, as worker processes have: the products of one cell are small, and two
    threads that wait for each other on a busy machine took fifty times as long for a short clip.
    """

    def __init__(self) -> None:
        self._blas = ThreadpoolController()

    def submit(self, recipe: Recipe, cells: Sequence[Cell]) -> "Future[list[Prepared]]":
        """Prepare cells; the future is done when this returns."""
        future: Future[list[Prepared]] = Future()
        with self._blas.limit(limits=1, user_api="blas"):
            future.set_result([prepare(recipe, cell) for cell in cells])
        return future

    def close(self) -> None:
        """Nothing to stop."""


def prepare(recipe: Recipe, cell: Cell) -> Prepared:
    """Read, decode and prepare one cell; errors become its failure.

    Raises:
        MmfuseError: from the encoder, for what the user can fix.
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
    except Exception as error:  # an encoder's error on one sample never ends the run
        failure = Failure("error", f"{type(error).__name__}: {error}")
    end = time.perf_counter()
    return Prepared(cell.row, item, cost, failure, read - start, end - read)


def _check_unchanged(kind: Kind, data: bytes, planned: bytes) -> None:
    if digest(kind, data) != planned:
        raise Unreadable("changed", "the file changed during the run", transient=True)


def check_picklable(result: Prepared) -> Prepared:
    """The result, or a failure if its item cannot be pickled."""
    try:
        pickle.dumps(result.item)
    except Exception as error:  # pickling raises whatever the object's own code does
        detail = f"prepare returned an item that cannot be pickled: {type(error).__name__}: {error}"
        return replace(result, item=None, failure=Failure("error", detail))
    return result
