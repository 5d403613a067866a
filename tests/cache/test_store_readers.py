"""Readers beside writers, and readers in other processes: nothing half-written is ever seen."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import store_reader
from project import with_project
from store_rows import expected, fill, key_of, open_writer, shrink
from waiting import HANG

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.storage.objects import put

ROWS, GENERATIONS, WRITES = 110, 25, 100


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a stream of three shards."""
    shrink(monkeypatch.setattr)
    rows = list(range(ROWS))
    fill(open_writer(FeatureStore(Home(tmp_path), "toy"), rows), rows)
    return Home(tmp_path)


def start(home: Home, how: str, stop: Path) -> subprocess.Popen:
    """A process that reads, past its first time."""
    script = Path(store_reader.__file__)
    command = [sys.executable, str(script), str(home.root), how, str(stop)]
    process = subprocess.Popen(
        command, env=with_project(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == "reading\n"
    return process


def end(process: subprocess.Popen, stop: Path) -> tuple[int, int]:
    """Reads and edits that a process has seen; it must have ended without an error."""
    stop.touch()
    output, errors = process.communicate(timeout=HANG)
    assert (process.returncode, errors) == (0, "")
    reads, seen = output.split()
    return int(reads), int(seen)


def test_a_reader_sees_every_generation_whole(home, tmp_path):
    """Polled while generations are published, a stream is always one of them, in their order."""
    reader, rows = start(home, "store", tmp_path / "stop"), list(range(ROWS))
    for row in range(GENERATIONS):
        rows[row] += store_reader.EDITED
        assert fill(open_writer(FeatureStore(home, "toy"), rows), rows) == [rows[row]]
    reads, seen = end(reader, tmp_path / "stop")
    assert reads >= store_reader.READS
    assert seen >= GENERATIONS - 1


@pytest.mark.parametrize("how", ["store", "zarr"])
def test_a_shard_that_is_written_again_is_never_seen_in_part(home, tmp_path, how):
    """A hundred times each shard is replaced, as repair does, while a reader reads."""
    store = FeatureStore(home, "toy")
    paths = store.paths.stream(key_of().label).generation(1)
    blocks = {paths.block("values", n): None for n in range(3)}
    blocks = {path: path.read_bytes() for path in blocks}
    reader = start(home, how, tmp_path / "stop")
    for _ in range(WRITES):
        for path, data in blocks.items():
            put(path, data, store.paths.scratch)
    reads, seen = end(reader, tmp_path / "stop")
    assert reads >= store_reader.READS
    assert seen == 0


def test_spawned_readers_open_what_their_parent_has_open(home):
    """Four processes read while the parent's store is mapped; none of them hangs."""
    store, rows = FeatureStore(home, "toy"), list(range(ROWS))
    np.testing.assert_array_equal(store.rows(key_of(), np.arange(ROWS)), expected(rows))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        jobs = [
            pool.apply_async(store_reader.look, (str(home.root), how))
            for how in ("store", "zarr") * 4
        ]
        assert [job.get(timeout=HANG) for job in jobs] == [0] * 8
    np.testing.assert_array_equal(store.whole(key_of()).values, expected(rows))
