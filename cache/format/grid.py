"""Grid: how the rows of an array are cut into inner chunks and shards."""

import math
from dataclasses import dataclass

import numpy as np

CHUNK_BYTES = 1 << 20  # ~1 MB: a read checks whole chunks
CHUNKS_PER_SHARD = 48
CRC_BYTES = 4


@dataclass(frozen=True)
class Grid:
    """How (rows, width) values are cut: `per_shard` chunks of `chunk_rows` rows per shard.

    Chunks are as equal as possible, so that the last one wastes little.
    """

    rows: int
    width: int
    dtype: str
    chunk_rows: int
    per_shard: int

    @classmethod
    def plan(cls, rows: int, width: int, dtype: str) -> "Grid":
        """Chunks of about 1 MB, at most 48 per shard; smaller arrays are one chunk."""
        size = rows * width * np.dtype(dtype).itemsize
        chunk_rows = max(1, math.ceil(rows / max(1, math.ceil(size / CHUNK_BYTES))))
        chunks = max(1, math.ceil(rows / chunk_rows))
        shards = math.ceil(chunks / CHUNKS_PER_SHARD)
        return cls(rows, width, dtype, chunk_rows, math.ceil(chunks / shards))

    @property
    def shard_rows(self) -> int:
        """Rows of a whole shard."""
        return self.chunk_rows * self.per_shard

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.rows / self.shard_rows)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk's values, without its crc32c."""
        return self.chunk_rows * self.width * np.dtype(self.dtype).itemsize

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the one after its last."""
        start = shard * self.shard_rows
        return start, min(self.rows, start + self.shard_rows)

    def chunks(self, shard: int) -> int:
        """Number of chunks in a shard; the last shard may have fewer."""
        start, stop = self.bounds(shard)
        return math.ceil((stop - start) / self.chunk_rows)

    def file_bytes(self, shard: int) -> int:
        """Size of a shard's file."""
        return self.chunks(shard) * (self.chunk_bytes + CRC_BYTES) + 16 * self.per_shard + CRC_BYTES
