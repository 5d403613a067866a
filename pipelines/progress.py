"""Track: the one hook around long work; an optional plain function that shows progress."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
    """Passes items on, showing how many of `total` have gone by under a label."""

    def __call__(self, items: Iterable[Item], label: str, total: int | None, /) -> Iterable[Item]:
        """The same items, in the same order."""


def untracked(items: Iterable[Item], label: str, total: int | None, /) -> Iterable[Item]:
    """Progress that nobody watches."""
    return items
