"""MmfuseError: what the person at the keyboard can mend."""

import difflib
from collections.abc import Iterable


class MmfuseError(Exception):
    """A mistake that the user can mend: says what, where, and what to do, in one message."""


def unknown(what: str, word: str, known: Iterable[str]) -> MmfuseError:
    """An error for a word nobody knows, with the nearest known ones.

    Args:
        what: the noun, such as "encoder".
        word: what was asked for.
        known: every word that would have been right.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return MmfuseError(f"no {what} named {word!r}{hint} (known: {', '.join(names) or 'none'})")
