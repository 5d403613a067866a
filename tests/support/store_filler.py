"""A process that fills a stream slowly enough to be killed: python store_filler.py HOME MODE SEED.

MODE is `pooled` or `sequence`. `ready` is printed before the first claim. With a fourth argument
the process waits for that file to appear before it begins, so that several begin together.
"""

import sys
import time
from pathlib import Path

import numpy as np
from store_rows import WIDTH, open_writer, spec_of, vector
from waiting import wait_until

import cache.format.shards
import cache.writing.sequences
from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.writing.writer import StreamWriter

INPUTS = [i * 13 % 700 if i % 11 else None for i in range(900)]


def small() -> None:
    """Many small shards."""
    cache.format.grid.CHUNK_BYTES = 16 * WIDTH * 4
    cache.format.grid.CHUNKS_PER_SHARD = 3
    cache.writing.sequences.PART_BYTES = 1


def opened(home: Path, mode: str) -> StreamWriter:
    """The writer that every process of a test opens."""
    store = FeatureStore(Home(home), "toy")
    return open_writer(store, INPUTS, spec=spec_of(sequence=mode == "sequence"))


def fill_slowly(writer: StreamWriter, seed: int) -> None:
    """Lease shards in a random order; journal every few rows; publish when all are in."""
    rng = np.random.default_rng(seed)
    while not writer.complete:
        for number in rng.permutation(len(writer.shards)):
            claim = writer.claim(writer.shards[number])
            if claim is None:
                continue
            with claim:
                for batch in np.array_split(claim.todo, max(1, len(claim.todo) // 5)):
                    sequence = writer.generation.spec.sequence
                    claim.put(batch, [vector(INPUTS[row], sequence=sequence) for row in batch])
                    claim.checkpoint()
                claim.commit()
        if not writer.finish():
            time.sleep(0.02)


def main() -> None:
    """Fill the stream."""
    home, mode, seed, *start = sys.argv[1:]
    small()
    writer = opened(Path(home), mode)
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    if start:
        wait_until(Path(start[0]).exists)
    fill_slowly(writer, int(seed))


if __name__ == "__main__":
    main()
