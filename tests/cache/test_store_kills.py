"""The store under kill -9 and under several processes at once."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import store_filler
from prestarted import WITHOUT_TORCH, Process, prestarted
from project import with_project
from store_rows import expected, key_of
from waiting import HANG, killed_and_finished, wait_until

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.storage.leases import acquire, is_alive
from cache.storage.objects import put_record
from cache.writing.journal import Failure

FILLER = Path(store_filler.__file__)


def start(home: Path, mode: str, seed: int = 0, *more: str) -> Process:
    """A process that fills the stream, past its imports."""
    words = [FILLER, home, mode, seed, *more]
    process = prestarted(WITHOUT_TORCH).start(words, environment=with_project())
    assert process.stdout.readline() == "ready\n"
    return process


def arrays(home: Path) -> dict[str, str]:
    """Digest of every file below the Zarr group, by path."""
    top = Home(home).features("toy")
    return {
        path.relative_to(top).as_posix(): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


def whole_run(home: Path, mode: str) -> float:
    """Fill without interruption; returns the seconds it took."""
    process = start(home, mode)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 0, errors
    return time.monotonic() - begun


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["pooled", "sequence"])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, mode, kills):
    """Kills at random moments, then one run: every array is that of a run that was left alone."""
    seconds = whole_run(tmp_path / "alone", mode)
    for home in killed_and_finished(tmp_path, lambda h: start(h, mode, kills), kills, seconds):
        check_ended(home, tmp_path / "alone", mode)


def check_ended(home: Path, alone: Path, mode: str) -> None:
    """The arrays of an undisturbed run, every value right, nothing of the runs left behind."""
    assert arrays(home) == arrays(alone)
    store = FeatureStore(Home(home), "toy")
    values = store.whole(key_of())
    there = [i for i in store_filler.INPUTS if i is not None]
    sequence = mode == "sequence"
    ok = values.values if sequence else values.values[values.present]
    assert np.array_equal(ok, expected(there, sequence=sequence))
    left = [p for p in store.paths.streams.rglob("*") if p.parent.name in {"journal", "parts"}]
    assert left == []


@pytest.mark.parametrize("mode", ["pooled", "sequence"])
def test_four_processes_share_one_stream(tmp_path, mode):
    """Four writers, many shards: no row is lost, and all four end well."""
    signal_file = tmp_path / "go"
    processes = [start(tmp_path / "home", mode, seed, str(signal_file)) for seed in range(4)]
    signal_file.touch()
    for process in processes:
        _, errors = process.communicate(timeout=HANG)
        assert process.returncode == 0, errors
    whole_run(tmp_path / "alone", mode)
    assert arrays(tmp_path / "home") == arrays(tmp_path / "alone")
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    (generation,) = store.paths.stream(key_of().label).generations()
    paths = store.paths.stream(key_of().label).generation(generation)
    runs = {path.read_text().split('"run":"')[1].split('"')[0] for path in paths.commits.glob("*")}
    assert len(runs) > 1


def test_two_processes_that_begin_at_once_open_one_generation(tmp_path, monkeypatch):
    """Whatever a rival does between a look at the store and what comes of it, rows are shared."""
    from cache.writing import opening

    for place in ("_preferred", "_grid", "create_generation"):
        home, original, rivals = tmp_path / place, getattr(opening, place), []

        def step(*arguments, home=home, original=original, rivals=rivals):
            if not rivals:
                rivals.append(None)
                rivals.append(store_filler.opened(home, "pooled"))
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(opening, place, step)
            writer = store_filler.opened(home, "pooled")
        assert rivals[1].generation.number == writer.generation.number == 1
        assert len(list(home.rglob("stream.json"))) == 1


def test_what_a_killed_process_had_journalled_is_not_encoded_again(tmp_path, monkeypatch):
    """Rows of the journal are known to the next run."""
    monkeypatch.setattr("cache.format.grid.CHUNK_BYTES", 1 << 20)
    home = tmp_path / "home"
    writer = store_filler.opened(home, "pooled")
    claim = writer.claim(writer.shards[0])
    rows = claim.todo[:40]
    claim.put(rows, [store_filler.vector(store_filler.INPUTS[row]) for row in rows])
    claim.fail(int(claim.todo[40]), Failure("truncated", "half of it", transient=True))
    claim.checkpoint()
    claim.__exit__(None, None, None)
    again = store_filler.opened(home, "pooled")
    with again.claim(again.shards[0]) as resumed:
        assert not set(rows.tolist()) & set(resumed.todo.tolist())
        assert sorted(resumed.resumed.tolist()) == sorted([*rows.tolist(), int(claim.todo[40])])
        assert len(resumed.todo) == len(claim.todo) - 41


def test_a_torn_journal_is_no_journal(tmp_path):
    """A checkpoint that is not what was written is as if it had never been."""
    home = tmp_path / "home"
    writer = store_filler.opened(home, "pooled")
    with writer.claim(writer.shards[0]) as claim:
        claim.put(claim.todo[:4], [store_filler.vector(9)] * 4)
        claim.checkpoint()
        total = len(claim.todo)
    (path,) = writer.generation.paths.journal.glob("*")
    data = bytearray(path.read_bytes())
    for at in range(60, len(data), 97):
        damaged = data.copy()
        damaged[at] ^= 4
        path.write_bytes(damaged)
        again = store_filler.opened(home, "pooled")
        with again.claim(again.shards[0]) as resumed:
            assert len(resumed.todo) in {total, total - 4}
            if len(resumed.todo) == total - 4:  # the bit meant nothing: a date, a padding
                row = resumed.resumed[:1] - resumed.shard.start
                assert np.array_equal(resumed._buffer.take(row)[1][0], store_filler.vector(9))


def test_a_lease_is_held_by_one_until_it_is_released(tmp_path, monkeypatch):
    """A second process is refused; after release, or once the heartbeat is old, it may lease."""
    lease = acquire(tmp_path / "claims", "00000", tmp_path / "scratch")
    assert lease is not None
    assert is_alive(lease.path)
    assert acquire(tmp_path / "claims", "00000", tmp_path / "scratch") is None
    assert acquire(tmp_path / "claims", "00001", tmp_path / "scratch") is not None
    lease.release()
    second = acquire(tmp_path / "claims", "00000", tmp_path / "scratch")
    assert second is not None
    assert second.epoch == 1
    monkeypatch.setattr("cache.storage.leases.EXPIRY", 0.0)
    third = acquire(tmp_path / "claims", "00000", tmp_path / "scratch")
    assert third is not None
    assert not second.held()
    assert third.held()


def test_a_lease_of_a_dead_process_is_free_at_once(tmp_path, monkeypatch):
    """On this machine a lease whose process is gone, or is another one now, is free."""
    lease = acquire(tmp_path / "claims", "00000", tmp_path / "scratch")
    lease._stop.set()
    record = {**lease.record(), "pid": os.getpid(), "started": "1"}
    put_record(lease.path, record, tmp_path / "scratch")
    assert not is_alive(lease.path)
    elsewhere = {**record, "machine": "another"}
    put_record(lease.path, elsewhere, tmp_path / "scratch")
    assert is_alive(lease.path)
    with monkeypatch.context() as patch:
        patch.setattr("cache.storage.leases.EXPIRY", 0.0)
        assert not is_alive(lease.path)
    put_record(lease.path, {**elsewhere, "beat": 0.0}, tmp_path / "scratch")
    assert not is_alive(lease.path)


def test_a_heartbeat_keeps_a_lease_alive(tmp_path, monkeypatch):
    """The holder's thread renews its lease."""
    monkeypatch.setattr("cache.storage.leases.HEARTBEAT", 0.02)
    lease = acquire(tmp_path / "claims", "00000", tmp_path / "scratch")
    before = lease.path.read_text()
    wait_until(lambda: lease.path.read_text() != before)
    lease.release()


def test_a_process_that_lost_its_lease_does_not_commit(tmp_path, monkeypatch):
    """A process that slept past its expiry finds its shard taken, and publishes nothing."""
    writer = store_filler.opened(tmp_path / "home", "pooled")
    claim = writer.claim(writer.shards[0])
    claim.put(claim.todo, [store_filler.vector(store_filler.INPUTS[row]) for row in claim.todo])
    paths = writer.generation.paths
    scratch = paths.stream.dataset.scratch
    monkeypatch.setattr("cache.storage.leases.EXPIRY", 0.0)
    assert acquire(paths.claims, "00000", scratch) is not None
    with pytest.raises(Exception, match="took over rows 0"):
        claim.commit()
    assert writer.generation.commit(writer.shards[0]) is None
