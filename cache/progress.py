"""Progress hook: a callable that wraps an iterable and shows how much of it is done."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
    """Yields the items and shows how many of `total` are done, under a label."""

    def __call__(self, items: Iterable[Item], label: str, total: int | None, /) -> Iterable[Item]:
        """The same items, in the same order."""


def untracked(items: Iterable[Item], label: str, total: int | None, /) -> Iterable[Item]:
    """The items without any progress display."""
    return items


@contextmanager
def tracked_step(track: Track, label: str) -> Iterator[None]:
    """Show that a step goes on whose parts cannot be counted.

    Args:
        track: progress.
        label: what is done.
    """
    items = iter(track((None,), label, None))
    next(items, None)
    try:
        yield
    finally:
        for _ in items:  # the display ends with the items
            pass
