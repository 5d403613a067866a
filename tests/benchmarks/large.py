"""Ten million rows × 64 dimensions, once: seconds, memory and bytes on disk of each step.

Run: python tests/benchmarks/large.py [--rows 10000000] [--folder DIR]; needs about 3 GB of disk.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from store_rows import key_of, samples_of, spec_of

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.verify import verify

WIDTH = 64


class Clock:
    """Prints what a step took and the most memory that the process had so far.

    Its own memory (RssAnon, looked at every 20 ms): mapped shards are the page cache's.
    """

    def __init__(self) -> None:
        self.last, self.peak = time.perf_counter(), 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            own = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(own.split()[1]) * 1024)
            time.sleep(0.02)

    def tell(self, step: str, rows: int) -> None:
        """Say what the step since the last call took."""
        now = time.perf_counter()
        print(
            f"{step:22}{now - self.last:8.2f} s {rows / (now - self.last):14,.0f} rows/s   "
            f"peak {self.peak / 1e9:.2f} GB, {self.peak / rows:.0f} B a row",
            flush=True,
        )
        self.last = time.perf_counter()


def values_of(rows: np.ndarray) -> np.ndarray:
    """Vectors that name their row."""
    return (rows[:, None] % 2039 + np.arange(WIDTH)).astype(np.float16)


def main() -> None:
    """Fill, open again, append, load, gather, verify."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        walk(Home(Path(name)), options.rows)


def walk(home: Home, rows: int) -> None:
    """Every step on one store."""
    clock, rng = Clock(), np.random.default_rng(0)
    samples = samples_of(range(rows))
    inputs = rng.integers(0, 256, (rows, 16), np.uint8)
    clock.tell("make samples", rows)
    encoded = fill(home, rows, samples, inputs)
    clock.tell(f"fill ({encoded:,})", rows)
    assert fill(home, rows, samples, inputs) == 0
    clock.tell("no-op", rows)
    more = rows + rows // 100
    samples = samples_of(range(more))
    inputs = np.concatenate([inputs, rng.integers(0, 256, (more - rows, 16), np.uint8)])
    clock.tell("make 1 % more", more)
    encoded = fill(home, more, samples, inputs)
    assert encoded == more - rows
    clock.tell(f"append ({encoded:,})", more)
    store, key = FeatureStore(home, "large"), key_of()
    found = store.whole(key)
    clock.tell("load whole", more)
    pick = rng.integers(0, more, 4096)
    assert np.array_equal(found.values[pick], values_of(pick))
    del found
    for _ in range(100):
        store.rows(key, rng.integers(0, more, 256))
    clock.tell("100 gathers of 256", 25_600)
    assert verify(home).damages == ()
    clock.tell("verify", more)
    disk = sum(p.stat().st_size for p in store.streams()[0].path.rglob("*") if p.is_file())
    print(f"disk: {disk / more:.1f} B a row, {disk / more - 2 * WIDTH:.1f} of them not data")


def fill(home: Home, rows: int, samples: object, inputs: np.ndarray) -> int:
    """What `extract` does; returns the rows that had to be encoded."""
    store, encoded = FeatureStore(home, "large"), 0
    spec = spec_of(width=WIDTH, dtype="float16")
    absent = np.zeros(rows, bool)
    writer = store.writer(key_of(), spec=spec, samples=samples, inputs=inputs, absent=absent)
    for shard in writer.shards:
        claim = writer.claim(shard)
        if claim is not None:
            with claim:
                encoded += len(claim.todo)
                claim.put(claim.todo, values_of(claim.todo))
                claim.commit()
    writer.finish()
    return encoded


if __name__ == "__main__":
    main()
