"""Parts of a sequence stream: one shard's rows as an .npz file, until all parts are assembled."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.format.digest_index import Digests
from cache.format.generations import Generation
from cache.storage.objects import content_digest


@dataclass(frozen=True)
class Part:
    """The rows of one shard of a sequence stream.

    Attributes:
        values: (sum of lengths, D) in the stored dtype.
        lengths: (K,) int64 frames of each row.
        state: (K,) uint8, as in `StreamValues`.
        inputs: (K, 16) digests.
    """

    values: NDArray[Any]
    lengths: NDArray[np.int64]
    state: NDArray[np.uint8]
    inputs: Digests

    def encode(self) -> bytes:
        """The bytes of the .npz file."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            values=self.values,
            lengths=self.lengths,
            state=self.state,
            inputs=self.inputs,
        )
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> "Part":
        """The part in the bytes of an .npz file."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return cls(file["values"], file["lengths"], file["state"], file["inputs"])


def read_part(generation: Generation, number: int) -> Part | None:
    """The part of a committed shard; None if it is missing or damaged."""
    commit = generation.commit(generation.shard(number))
    try:
        data = generation.paths.part(number).read_bytes()
    except FileNotFoundError:
        return None
    if commit is None or content_digest(data) != commit.objects["part"].digest:
        return None
    return Part.decode(data)
