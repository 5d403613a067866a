"""The store against plain numpy: random gathers, whole loads, bytes on disk, checking.

Run: python tests/benchmarks/store.py. Prints ratios of one run; nothing is asserted.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from store_rows import key_of, samples_of, spec_of

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.verify import verify


def best(work: Callable[[], object], repeats: int) -> float:
    """Least seconds of several calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def filled(home: Home, name: str, values: np.ndarray) -> FeatureStore:
    """A store with one stream of these values."""
    store = FeatureStore(home, name)
    rows, width = values.shape
    writer = store.writer(
        key_of(name),
        spec=spec_of(width=width, dtype=values.dtype.name),
        samples=samples_of(range(rows)),
        inputs=np.random.default_rng(0).integers(0, 256, (rows, 16), np.uint8),
        absent=np.zeros(rows, bool),
    )
    for shard in writer.shards:
        claim = writer.claim(shard)
        assert claim is not None
        with claim:
            claim.put(claim.todo, values[claim.todo])
            claim.commit()
    writer.finish()
    return store


def read_seconds(home: Home, folder: Path, size: int) -> dict[str, tuple[float, float]]:
    """Seconds of ours and of numpy: gathers of `size` rows, and whole loads, of one stream.

    200,000 × 512 float16, each way in turns; a gather's are the median of many.
    """
    rng = np.random.default_rng(0)
    values = rng.standard_normal((200_000, 512), np.float32).astype(np.float16)
    store, key = filled(home, "reading", values), key_of("reading")
    plain = folder / "plain.npy"
    np.save(plain, values)
    mapped = np.load(plain, mmap_mode="r")
    picks = [rng.integers(0, len(values), size) for _ in range(100_000 // size)]
    for pick in picks:
        assert np.array_equal(store.rows(key, pick), mapped[pick])
    ours, theirs = [], []
    for _ in range(5):  # each pick once a pass: at once again, it would be in the processor's cache
        ours += [best(lambda p=p: store.rows(key, p), 1) for p in picks]
        theirs += [best(lambda p=p: mapped[p], 1) for p in picks]
    assert np.array_equal(store.whole(key).values, values)
    whole = [(best(lambda: store.whole(key), 1), best(lambda: np.load(plain), 1)) for _ in range(9)]
    mine, loads = zip(*whole, strict=True)
    return {
        "gather": (float(np.median(ours)), float(np.median(theirs))),
        "whole": (float(np.median(mine)), float(np.median(loads))),
    }


def reading(home: Home, folder: Path) -> None:
    """Random gathers against np.memmap and whole loads against np.load."""
    found = read_seconds(home, folder, 256)
    (ours, theirs), (whole, load) = found["gather"], found["whole"]
    print(
        f"gather 256   {ours * 1e3:6.3f} ms, np.memmap {theirs * 1e3:.3f} ms"
        f": {ours / theirs:.2f} x (wanted ≤ 3)"
    )
    size = 200_000 * 512 * 2 / 1e9
    print(
        f"load whole   {size / whole:6.2f} GB/s with crc32c, np.load {size / load:.2f}: "
        f"{load / whole:.2f} x (wanted ≥ 0.7)"
    )


def storing(home: Home) -> None:
    """Checking every byte, and opening a stream that is complete."""
    size = verify(home, ["reading"]).bytes
    seconds = best(lambda: verify(home, ["reading"]), 3)
    print(f"verify       {size / 1e9 / seconds:6.2f} GB/s of warm data (wanted ≥ 1)")
    rows = 1_000_000
    store = filled(home, "noop", np.zeros((rows, 8), np.float32))
    inputs = np.random.default_rng(0).integers(0, 256, (rows, 16), np.uint8)
    samples, absent = samples_of(range(rows)), np.zeros(rows, bool)
    start = time.perf_counter()
    writer = FeatureStore(home, "noop").writer(
        key_of("noop"), spec=spec_of(), samples=samples, inputs=inputs, absent=absent
    )
    assert writer.complete
    assert store.dataset == "noop"
    print(f"no-op        {time.perf_counter() - start:6.2f} s to open 10^6 rows that are complete")


def disk(home: Home) -> None:
    """Bytes on disk above the data, a row."""
    for rows, width, dtype in [
        (65, 512, "float16"),
        (1797, 64, "float32"),
        (33_000, 512, "float16"),
        (1_000_000, 64, "float16"),
    ]:
        values = np.random.default_rng(0).standard_normal((rows, width), np.float32).astype(dtype)
        store = filled(home, f"disk{rows}", values)
        sizes = [
            (p, p.stat().st_size)
            for p in store.paths.zarr.parent.rglob(f"disk{rows}.*/**/*")
            if p.is_file()
        ]
        total = sum(size for _, size in sizes)
        nodes = sum(size for path, size in sizes if store.paths.zarr in path.parents)
        print(
            f"disk {rows:>9,} × {width} {dtype}: data × {nodes / values.nbytes:.4f}, beyond "
            f"1.01 × data {(nodes - 1.01 * values.nbytes) / rows:+.1f} B a row (wanted ≤ 64); with "
            f"records and samples {(total - 1.01 * values.nbytes) / rows:+.1f}"
        )


def main() -> None:
    """Everything, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as name:
        home = Home(Path(name) / "artifacts")
        reading(home, Path(name))
        storing(home)
        disk(home)


if __name__ == "__main__":
    main()
