"""MmfuseError: errors that the user can fix."""

import difflib
from collections.abc import Iterable


class MmfuseError(Exception):
    """An error that the user can fix; its message states what, where, and what to do."""


def unknown(what: str, word: str, known: Iterable[str]) -> MmfuseError:
    """An error for an unknown name, with the nearest known one.

    Args:
        what: the noun, such as "encoder".
        word: the name that was given.
        known: every valid name.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return MmfuseError(f"no {what} named {word!r}{hint} (known: {', '.join(names) or 'none'})")
