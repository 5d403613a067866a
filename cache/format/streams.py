"""Streams: what one encoder's features of one modality are, and what a row can be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import check_name

PENDING, OK, ABSENT, FAILED = 0, 1, 2, 3  # values of the array `state`
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class StreamKey:
    """What a stream is, whatever rows it has: the fingerprint says what made it."""

    encoder: str
    fingerprint: str
    modality: str

    @property
    def name(self) -> str:
        """`clip/image`: what the command line says."""
        return f"{self.encoder}/{self.modality}"

    @property
    def label(self) -> str:
        """`clip-1a2b3c4d/image`: what tells fingerprints apart, and the path in the Zarr group."""
        return f"{self.encoder}-{self.fingerprint[:8]}/{self.modality}"


@dataclass(frozen=True)
class StreamSpec:
    """What an encoder makes of a modality.

    Attributes:
        kind: kind of the modality.
        width: D.
        dtype: of the stored values, float16 or float32.
        sequence: whether a row is (T_i, D) instead of (D,).
        fields: what the fingerprint is made of.
        provenance: what else is worth recording; `weights` is pretrained, weight-free or random.
    """

    kind: str
    width: int
    dtype: str
    sequence: bool
    fields: Mapping[str, object]
    provenance: Mapping[str, object]


@dataclass(frozen=True)
class StreamInfo:
    """A stream of a dataset as it stands.

    Attributes:
        key: encoder, fingerprint, modality.
        kind, width, dtype, sequence, fields, provenance: as in `StreamSpec`.
        rows: N.
        counts: rows that are ok, absent, failed and pending.
        complete: whether every row is settled and readable.
        snapshot: id of the samples that the rows belong to.
        generation: counts from 1; changed rows or order make a new one.
        path: the Zarr group.
    """

    key: StreamKey
    kind: str
    width: int
    dtype: str
    sequence: bool
    fields: Mapping[str, object]
    provenance: Mapping[str, object]
    rows: int
    counts: dict[str, int]
    complete: bool
    snapshot: str
    generation: int
    path: Path


@dataclass(frozen=True)
class StreamValues:
    """A whole stream.

    Attributes:
        values: (N, D), or (sum T, D) of a sequence stream; NaN where a row is not present.
        offsets: (N + 1,) int64 of a sequence stream, else None; row i is values[o[i]:o[i + 1]].
        present: (N,) bool.
        state: (N,) uint8: 0 not yet, 1 ok, 2 absent, 3 failed.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64] | None
    present: NDArray[np.bool_]
    state: NDArray[np.uint8]


def check_key(key: StreamKey) -> None:
    """Refuse names that would not be path parts.

    Raises:
        MmfuseError: for such a name, or a fingerprint that is none.
    """
    for what, word in (("encoder", key.encoder), ("modality", key.modality)):
        if "/" in check_name(what, word):
            raise MmfuseError(f"{what} {word!r} must not contain '/'")
    if len(key.fingerprint) != 64 or set(key.fingerprint) - set("0123456789abcdef"):
        raise MmfuseError(f"{key.name}: a fingerprint is 64 hex digits, not {key.fingerprint!r}")


StateName = Literal["pending", "ok", "absent", "failed"]
STATES: tuple[StateName, ...] = ("pending", "ok", "absent", "failed")


def count(state: NDArray[np.uint8]) -> dict[str, int]:
    """Rows by state, by name."""
    numbers = np.bincount(state, minlength=len(STATES))
    return {name: int(n) for name, n in zip(STATES, numbers, strict=True)}
