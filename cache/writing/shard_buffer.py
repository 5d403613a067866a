"""ShardBuffer: the rows of one shard in memory until it is committed, filled in any order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format.reader import concatenated_ranges
from cache.format.streams import OK, PENDING, StreamSpec


class ShardBuffer:
    """State and values of a shard's rows, numbered within the shard."""

    def __init__(self, rows: int, spec: StreamSpec) -> None:
        self._spec = spec
        self.state = np.zeros(rows, np.uint8)
        self._pooled = np.empty((0, 0))
        self._frames: list[NDArray[Any]] = []
        self._empty = np.empty((0, spec.width), spec.dtype)
        if spec.sequence:
            self._frames = [self._empty] * rows
        else:
            # Not initialised: the first touch of a whole shard's memory takes tenths of a second,
            # better spent in the writing thread's `fill` than in the engine's thread here.
            self._pooled = np.empty((rows, spec.width), spec.dtype)

    def fill(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], values: NDArray[Any]
    ) -> None:
        """Set rows as ok; values is (sum of lengths, D) in the stored dtype."""
        self.state[rows] = OK
        if not self._spec.sequence:
            self._pooled[rows] = values
            return
        pieces = np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []
        for row, piece in zip(rows.tolist(), pieces, strict=True):
            self._frames[row] = piece

    def follow(self, first: NDArray[np.int64]) -> NDArray[np.int64]:
        """Copy to pending rows the first row with their input; returns those whose first failed."""
        pending = np.flatnonzero((self.state == PENDING) & (self.state[first] != PENDING))
        leaders = first[pending]
        ok = self.state[leaders] == OK
        lengths, values = self.take(leaders[ok])
        self.fill(pending[ok], lengths, values)
        failed: NDArray[np.int64] = pending[~ok]
        return failed

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Lengths and values of rows."""
        if not self._spec.sequence:
            return np.ones(len(rows), np.int64), self._pooled[rows]
        pieces = [self._frames[row] for row in rows.tolist()]
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        return lengths, np.concatenate([self._empty, *pieces])

    @property
    def lengths(self) -> list[int]:
        """Frames per row of a sequence stream, 0 for rows without; empty for a pooled stream."""
        return [len(piece) for piece in self._frames]

    def whole(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Lengths (rows,) and values of the whole shard, in order; NaN where a row has none."""
        if not self._spec.sequence:
            self._pooled[self.state != OK] = np.nan
            return np.ones(len(self._pooled), np.int64), self._pooled
        return self.take(np.arange(len(self._frames)))


class CheckedVectors:
    """An encoder's vectors in the stored dtype, with the reasons why some cannot be stored."""

    def __init__(self, values: Sequence[NDArray[Any]] | NDArray[Any], spec: StreamSpec) -> None:
        stacked, self._lengths = _stack(values, spec)
        with np.errstate(over="ignore"):
            self._stored = stacked.astype(spec.dtype, copy=False)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self.reason = np.where(self._lengths > 0, "", "empty").astype(object)
        fits = _finite(self._stored)
        if not fits.all():
            row = np.repeat(np.arange(len(self._lengths)), self._lengths)
            self.reason[row[~fits]] = "overflow"
            self.reason[row[~np.isfinite(stacked).all(1)]] = "non-finite"

    def good(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
        """Positions, lengths and values of the rows that can be stored."""
        at = np.flatnonzero(self.reason == "")
        if len(at) == len(self._lengths):
            return at, self._lengths, self._stored
        lengths = self._lengths[at]
        return at, lengths, self._stored[concatenated_ranges(self._starts[at], lengths)]


def _finite(stored: NDArray[Any]) -> NDArray[np.bool_]:
    """(rows,) whether all values are finite, by their bits, since float16 arithmetic is slow."""
    word, exponent = ("<u2", 0x7C00) if stored.dtype.itemsize == 2 else ("<u4", 0x7F800000)
    bits = np.ascontiguousarray(stored).view(word) & np.array(exponent, word)
    finite: NDArray[np.bool_] = (bits != exponent).all(1)
    return finite


def _stack(
    values: Sequence[NDArray[Any]] | NDArray[Any], spec: StreamSpec
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if not spec.sequence and isinstance(values, np.ndarray) and values.shape[1:] == (spec.width,):
        return values, np.ones(len(values), np.int64)
    rank = 2 if spec.sequence else 1
    for value in values:
        if value.ndim != rank or value.shape[-1] != spec.width:
            shape = f"(T, {spec.width})" if spec.sequence else f"({spec.width},)"
            raise MmfuseError(f"an encoder gave a vector of shape {value.shape} instead of {shape}")
    lengths = np.array([len(v) if spec.sequence else 1 for v in values], np.int64)
    if not len(values):
        return np.empty((0, spec.width), spec.dtype), lengths
    return (np.concatenate(values) if spec.sequence else np.stack(list(values))), lengths
