"""Result of one conformance check of a head or an encoder, passed or failed."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from pipelines import catalog


class CheckFailedError(Exception):
    """A check failed; the message says what was seen instead."""


@dataclass(frozen=True)
class Check:
    """Result of one conformance check.

    Attributes:
        text: the requirement as a sentence.
        passed: whether it holds.
        detail: what was seen.
    """

    text: str
    passed: bool
    detail: str


def describe_error(error: Exception) -> str:
    """`RuntimeError: boom (my_head.py, line 21)`; no place where no file of a plug-in is in it."""
    own = set(catalog.files().values())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if str(Path(frame.filename).absolute()) in own]
    message = f"{type(error).__name__}: {error}"
    if not lines:
        return message
    return f"{message} ({Path(lines[-1].filename).name}, line {lines[-1].lineno})"
