"""Keeping: what a promise of a contract was seen to be, kept or broken; of heads and encoders."""

from dataclasses import dataclass


class BrokenError(Exception):
    """A promise is not kept; the message is what was seen instead."""


@dataclass(frozen=True)
class Promise:
    """One promise, tried.

    Attributes:
        text: the promise as a sentence.
        kept: whether it was seen to hold.
        detail: what was seen.
    """

    text: str
    kept: bool
    detail: str
