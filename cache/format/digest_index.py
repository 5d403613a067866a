"""Vectorised lookup of input digests: which rows are equal, and which are known.

A digest is (16,) uint8. Sixteen zeros mean "no identity": such a row equals no other.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint8]  # (N, 16)


def identity(inputs: Digests, absent: NDArray[np.bool_]) -> str:
    """Hex digest of every row's input and absence, in order; it identifies a generation."""
    state = hashlib.blake2b(digest_size=16)
    state.update(np.ascontiguousarray(zero_absent(inputs, absent)).data)
    state.update(np.packbits(absent).data)
    state.update(str(len(inputs)).encode())
    return state.hexdigest()


def zero_absent(inputs: Digests, absent: NDArray[np.bool_]) -> Digests:
    """The inputs with zeros where rows are absent."""
    return np.where(absent[:, None], np.uint8(0), inputs) if absent.any() else inputs


def first_of_each(inputs: Digests) -> NDArray[np.int64]:
    """(N,) number of the first row with the same input as each row, perhaps the row itself."""
    high, low = _halves(inputs)
    order = np.lexsort((low, high))  # stable: the first row of a group leads it
    new = _leads(high, low, order) | ((high == 0) & (low == 0))[order]
    leader = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    first = np.empty(len(order), np.int64)
    first[order] = order[leader]
    return first


@dataclass(frozen=True)
class DigestIndex:
    """Sorted index of distinct digests, with the first position of each."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    position: NDArray[np.int64]

    @classmethod
    def of(cls, inputs: Digests) -> "DigestIndex":
        """An index of (K, 16) digests; equal ones have the position of the first."""
        high, low = _halves(inputs)
        order = np.lexsort((low, high))  # stable: the first of equal ones leads them
        order = order[_leads(high, low, order) & ((high != 0) | (low != 0))[order]]
        return cls(high[order], low[order], order)

    def find(self, inputs: Digests) -> NDArray[np.int64]:
        """(N,) position of each digest, -1 where it is unknown."""
        high, low = _halves(inputs)
        found = np.full(len(inputs), -1, np.int64)
        if not len(self.high):
            return found
        at = np.searchsorted(self.high, high)
        seeking = np.arange(len(inputs))
        while len(seeking):  # one pass, unless the first eight bytes of two digests agree
            seeking = seeking[at[seeking] < len(self.high)]
            seeking = seeking[self.high[at[seeking]] == high[seeking]]
            hit = self.low[at[seeking]] == low[seeking]
            found[seeking[hit]] = self.position[at[seeking[hit]]]
            seeking = seeking[~hit]
            at[seeking] += 1
        return found


def _leads(
    high: NDArray[np.uint64], low: NDArray[np.uint64], order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,) whether each digest in this order differs from the one before it."""
    new = np.ones(len(order), bool)
    for half in (high, low):
        sorted_half = half[order]
        differs = sorted_half[1:] != sorted_half[:-1]
        new[1:] = differs if half is high else new[1:] | differs
    return new


def _halves(inputs: Digests) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(inputs).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
