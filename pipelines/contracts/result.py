"""Keeping: what a promise of a contract was seen to be, kept or broken; of heads and encoders."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from pipelines import catalog


class CheckFailedError(Exception):
    """A promise is not kept; the message is what was seen instead."""


@dataclass(frozen=True)
class Check:
    """One promise, tried.

    Attributes:
        text: the promise as a sentence.
        passed: whether it was seen to hold.
        detail: what was seen.
    """

    text: str
    passed: bool
    detail: str


def describe_error(error: Exception) -> str:
    """`RuntimeError: boom (my_head.py, line 21)`; without a place where no such file is in it."""
    own = set(catalog.files().values())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if str(Path(frame.filename).absolute()) in own]
    said = f"{type(error).__name__}: {error}"
    return f"{said} ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else said
