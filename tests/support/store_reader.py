"""A process that reads a stream again and again: python store_reader.py HOME HOW STOP.

HOW is `store` (mapped, by our own reader) or `zarr` (plain Zarr, by its own codecs). It ends when
the file STOP appears, and prints how often it read, and how many edits it saw at most.
"""

import sys
from pathlib import Path

import numpy as np
from store_rows import key_of, vector

from cache.feature_store import FeatureStore
from cache.layout import Home

READS = 10  # at least so many
EDITED = 1000  # what the input of an edited row is greater by


def edits(values: np.ndarray) -> int:
    """How many rows have been edited; the rows before that have all been, those after have not."""
    rows = len(values)
    known = np.stack([vector(row) for row in range(rows)])
    changed = np.stack([vector(row + EDITED) for row in range(rows)])
    new = (values == changed).all(1)
    count = int(new.sum())
    assert new[:count].all(), "an edit is missing"
    assert (values[count:] == known[count:]).all(), "a row is neither as it was nor as it will be"
    return count


def look(home: str, how: str) -> int:
    """Read the whole stream once."""
    if how == "store":
        return edits(FeatureStore(Home(Path(home)), "toy").whole(key_of()).values)
    import zarr

    group = zarr.open_group(Home(Path(home)).features("toy"), mode="r")
    return edits(group[f"{key_of().label}/values"][:])


def main(home: str, how: str, stop: str) -> None:
    """Read until the file STOP exists, and once more; edits never disappear."""
    reads, seen, stopped = 0, 0, False
    while not stopped or reads < READS:
        stopped = Path(stop).exists()
        now = look(home, how)
        assert now >= seen, f"{now} edits after {seen}"
        reads, seen = reads + 1, now
        if reads == 1:
            print("reading", flush=True)  # noqa: T201 - what the test waits for
    print(reads, seen)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(*sys.argv[1:])
