"""Damage is found, named and repaired by encoding only the lost rows."""

import shutil

import numpy as np
import pytest
from store_rows import (
    expected,
    fill,
    key_of,
    open_writer,
    shrink,
    spec_of,
)

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.repair import extract_commands, repair
from cache.maintenance.verify import verify

INPUTS = [i if i % 9 else None for i in range(130)]
FAILS = (20, 21)


@pytest.fixture(params=["pooled", "sequence"])
def sequence(request):
    """Both layouts."""
    return request.param == "sequence"


@pytest.fixture
def home(tmp_path, monkeypatch, sequence):
    """A home with one finished stream of many small shards."""
    shrink(monkeypatch.setattr)
    home = Home(tmp_path / "artifacts")
    run(home, sequence)
    return home


def run(home, sequence):
    """What `extract` does; returns the inputs that had to be encoded."""
    store = FeatureStore(home, "toy")
    writer = open_writer(store, INPUTS, spec=spec_of(sequence=sequence))
    return fill(writer, INPUTS, fails=FAILS)


def values_are_right(home, sequence):
    """Every row is what the encoder makes of it."""
    store = FeatureStore(home, "toy")
    found = store.whole(key_of())
    there = [i for i in INPUTS if i is not None and i not in FAILS]
    good = found.values if sequence else found.values[found.present]
    assert np.array_equal(good, expected(there, sequence=sequence))
    assert store.failures(key_of())["detail"].to_list() == ["input 20", "input 21"]


def files(home):
    """Every file that has to be as it was written, in a fixed order."""
    return sorted(p for p in home.root.rglob("*") if p.is_file() and p.name != "failures.parquet")


def data_of(home):
    """All objects of the arrays, which rows are encoded again for."""
    return [p for p in files(home) if "zarr" in str(p) and p.name != "zarr.json"]


def test_a_sound_store_has_nothing_to_tell(home):
    """No damage is found where there is none, and every byte of the values was looked at."""
    found = verify(home)
    assert found.damages == ()
    assert found.streams == 1
    assert found.bytes >= sum(p.stat().st_size for p in data_of(home) if "values" in str(p))


def flip(home, rng):
    """One bit of one file, at random: (file, place of the byte)."""
    path = files(home)[rng.integers(len(files(home)))]
    data = bytearray(path.read_bytes())
    at = int(rng.integers(len(data)))
    data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path, at


@pytest.mark.parametrize("flips", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found_named_and_mended(home, sequence, flips):
    """Random single bits of random files; what is encoded again is the damaged shard at most."""
    rng = np.random.default_rng(1)
    shard_rows = max(len(s) for s in open_shards(home, sequence))
    for _ in range(flips):
        path, at = flip(home, rng)
        damages = verify(home).damages
        assert damages, f"byte {at} of {path}"
        assert any(d.path == path or d.path.stem == path.stem for d in damages)
        repair(home, damages)
        again = run(home, sequence)
        assert len(again) <= (3 if sequence else 1) * shard_rows
        assert verify(home).damages == ()
        values_are_right(home, sequence)


def open_shards(home, sequence):
    """The units of work."""
    return open_writer(FeatureStore(home, "toy"), INPUTS, spec=spec_of(sequence=sequence)).shards


@pytest.mark.parametrize("damage", ["deleted", "emptied", "truncated", "foreign"])
def test_every_shard_survives_every_damage(home, sequence, damage):
    """Four damages × every object: found, the rows named, only damaged shards encoded again."""
    shards = open_shards(home, sequence)
    largest = max(len(s) for s in shards)
    for path in data_of(home):
        harm(path, damage, data_of(home))
        found = verify(home).damages
        assert any(d.path == path and d.rows is not None for d in found)
        assert extract_commands(found) == ["mmfuse extract --dataset toy --encoder toy"]
        repair(home, found)
        again = run(home, sequence)
        assert len(again) <= (3 if sequence else 1) * largest
        assert verify(home).damages == ()
        values_are_right(home, sequence)


def harm(path, damage, others):
    """Do a damage to a file; `foreign` puts a sound object of the same kind in its place."""
    match damage:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[:-7])
        case "foreign":
            kind = [p for p in others if p != path and p.parts[-4:-2] == path.parts[-4:-2]]
            alike = [p for p in kind if p.read_bytes() != path.read_bytes()]
            if alike:
                shutil.copy(alike[0], path)
            else:
                path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", ["deleted", "emptied", "truncated"])
def test_what_is_gone_is_encoded_again_without_being_asked(home, sequence, damage):
    """`extract` itself sees objects of a wrong length, and encodes only their rows."""
    largest = max(len(s) for s in open_shards(home, sequence))
    for path in data_of(home):
        harm(path, damage, [])
        again = run(home, sequence)
        assert len(again) <= (3 if sequence else 1) * largest
        assert verify(home).damages == ()
        values_are_right(home, sequence)


def test_a_deleted_group_is_named_and_encoded_again(home, sequence):
    """The records know what there was: all of it is missed, and the next run makes it anew."""
    shutil.rmtree(home.features("toy"))
    found = verify(home)
    assert found.streams == 1
    assert {d.what for d in found.damages} >= {"rows", "node"}
    info = next(iter(FeatureStore(home, "toy").streams()))
    assert not info.complete
    assert info.counts == {"ok": 0, "absent": 0, "failed": 0, "pending": len(INPUTS)}
    run(home, sequence)
    assert verify(home).damages == ()
    values_are_right(home, sequence)


def test_lost_zarr_metadata_is_written_again_and_nothing_encoded(home, sequence):
    """Each `zarr.json` in turn: `extract` writes it again, whatever is already encoded."""
    nodes = [p for p in files(home) if p.name == "zarr.json"]
    assert len(nodes) >= 6
    for path in nodes:
        before = path.read_bytes()
        path.unlink()
        assert [d.path for d in verify(home).damages] == [path]
        assert run(home, sequence) == []
        assert path.read_bytes() == before
        assert verify(home).damages == ()


def test_reading_damage_is_an_error_that_names_the_commands(home, sequence):
    """No wrong number is ever returned: whole streams and single rows say what to do."""
    path = next(p for p in data_of(home) if "values" in str(p))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    store = FeatureStore(home, "toy")
    read = store.sequences if sequence else store.rows
    for call in (lambda: store.whole(key_of()), lambda: read(key_of(), np.array([1]))):
        with pytest.raises(MmfuseError, match="mmfuse cache verify --repair, then mmfuse"):
            call()


def test_damaged_rows_are_not_handed_on(home, sequence):
    """A new generation takes only sound rows of the old one, and encodes the rest."""
    path = next(p for p in data_of(home) if "values" in str(p))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    more = [*INPUTS, 1000]
    writer = open_writer(FeatureStore(home, "toy"), more, spec=spec_of(sequence=sequence))
    again = fill(writer, more)
    assert 1000 in again
    assert 1 < len(again) < len(INPUTS) / 2
    found = FeatureStore(home, "toy").whole(key_of())
    there = [i for i in more if i is not None and i not in FAILS]
    good = found.values if sequence else found.values[found.present]
    assert np.array_equal(good, expected(there, sequence=sequence))


@pytest.mark.parametrize("name", ["snapshots/*.json", "snapshots/*.parquet", "store.json"])
@pytest.mark.parametrize("how", ["delete", "flip"])
def test_records_of_a_dataset_are_made_again(home, sequence, name, how):
    """Samples and the store's own record are found missing or damaged, and cost no encoding."""
    (path,) = FeatureStore(home, "toy").paths.meta.glob(name)
    if how == "delete":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    found = verify(home).damages
    assert found or (how, name) == ("delete", "store.json")  # its absence is that of an empty store
    repair(home, found)
    assert run(home, sequence) == []
    assert verify(home).damages == ()
    values_are_right(home, sequence)


def test_orphans_of_killed_processes_are_swept(home, sequence):
    """Unfinished files whose process is gone disappear with the next run; living ones stay."""
    from cache.storage.objects import _host

    store = FeatureStore(home, "toy")
    store.paths.scratch.mkdir(exist_ok=True)
    dead = store.paths.scratch / f"{_host()}~999999999~abc.partial"
    alive = store.paths.scratch / f"{_host()}~1~abc.partial"
    elsewhere = store.paths.scratch / "elsewhere~999999999~abc.partial"
    for path in (dead, alive, elsewhere):
        path.touch()
    run(home, sequence)
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()
