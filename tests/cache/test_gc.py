"""Garbage is shown before it goes, and nothing that a reader sees is ever garbage."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from store_rows import expected, fill, key_of, open_writer, shrink, spec_of

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.gc import collect_garbage, plan_gc
from cache.maintenance.verify import verify
from cache.status import explain
from cache.storage.objects import delete


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, small shards."""
    shrink(monkeypatch.setattr)
    return Home(tmp_path / "artifacts")


def aged(home):
    """As if everything had been written two hours ago."""
    then = time.time() - 7200
    for path in home.root.rglob("*"):
        os.utime(path, (then, then))


def test_a_collection_that_is_killed_anywhere_leaves_nothing_false(home, monkeypatch):
    """After any number of deletions the store is sound, and the next collection ends it."""

    class Killed(BaseException):
        """Where a kill would be."""

    for steps in (0, 1, 3, 6, 10, 20):
        for rows in (range(60), range(steps, 70 + steps)):
            fill(open_writer(FeatureStore(home, "toy"), list(rows)), list(rows))
        left = [steps]

        def step(path, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            delete(path)

        with monkeypatch.context() as patch:
            patch.setattr("cache.maintenance.gc.delete", step)
            with pytest.raises(Killed):
                collect_garbage(plan_gc(home))
        damaged = verify(home).damages
        assert current_of(home) not in {d.generation for d in damaged}
        values = FeatureStore(home, "toy").whole(key_of()).values
        assert np.array_equal(values, expected(list(range(steps, 70 + steps))))
        collect_garbage(plan_gc(home))
        assert verify(home).damages == ()


def current_of(home):
    """Number of the generation that readers see."""
    (info,) = FeatureStore(home, "toy").streams()
    return info.generation


@pytest.mark.parametrize("sequence", [False, True])
def test_old_generations_go_and_the_current_one_stays(home, sequence):
    """A plan deletes nothing; collecting it frees what it says and leaves what readers see."""
    for rows in (range(60), range(70), range(10, 90)):
        store = FeatureStore(home, "toy")
        fill(open_writer(store, list(rows), spec=spec_of(sequence=sequence)), list(rows))
    before = {p: p.stat().st_size for p in home.root.rglob("*") if p.is_file()}
    garbage = plan_gc(home)
    old = [item for item in garbage if item.why == "old generation"]
    assert [item.name.rpartition(" ")[2] for item in old] == ["1", "2"]
    assert set(before) == {p for p in home.root.rglob("*") if p.is_file()}
    freed = collect_garbage(garbage)
    after = {p: p.stat().st_size for p in home.root.rglob("*") if p.is_file()}
    assert freed == sum(before.values()) - sum(after.values())
    assert verify(home).damages == ()
    values = FeatureStore(home, "toy").whole(key_of()).values
    assert np.array_equal(values, expected(list(range(10, 90)), sequence=sequence))
    aged(home)
    collect_garbage(plan_gc(home))  # the samples of old generations
    assert len(list((store.paths.snapshots).glob("*.json"))) == 1
    assert plan_gc(home) == []


def test_a_stream_goes_only_when_asked_and_a_newer_one_exists(home):
    """Streams of older fingerprints are garbage with `streams`; the newest never is."""
    rows = list(range(20))
    for tag in ("a", "b"):
        fill(open_writer(FeatureStore(home, "toy"), rows, key=key_of(tag)), rows)
    os.utime(FeatureStore(home, "toy").paths.stream(key_of("a").label).current, (1e9, 1e9))
    assert plan_gc(home) == []
    garbage = plan_gc(home, streams=True)
    assert [item.name for item in garbage] == [key_of("a").label]
    collect_garbage(garbage)
    (info,) = FeatureStore(home, "toy").resolve(["toy/image"])
    assert info.key == key_of("b")
    assert plan_gc(home, streams=True) == []


def test_what_is_being_written_is_not_garbage(home):
    """A generation with a live lease stays, and so does one that is only begun."""
    rows = list(range(60))
    store = FeatureStore(home, "toy")
    fill(open_writer(store, rows), rows)
    more = list(range(80))
    writer = open_writer(store, more)
    with writer.claim(writer.shards[0]):
        assert plan_gc(home) == []
    assert plan_gc(home) == []
    assert fill(writer, more) == list(range(60, 80))


def test_an_interrupted_collection_is_finished_by_the_next(home):
    """What lost its record but not its files is an orphan."""
    for rows in (range(60), range(70)):
        fill(open_writer(FeatureStore(home, "toy"), list(rows)), list(rows))
    store = FeatureStore(home, "toy")
    paths = store.paths.stream(key_of().label).generation(1)
    paths.record.unlink()
    aged(home)
    assert "orphan" in {item.why for item in plan_gc(home)}
    collect_garbage(plan_gc(home))
    assert not paths.group.exists()
    assert not paths.meta.exists()
    assert plan_gc(home) == []
    assert len(store.whole(key_of()).values) == 70


def test_a_miss_is_explained_by_the_fields_that_differ(home):
    """The nearest stream and exactly the differing fields, inner ones by a dotted name."""
    rows = list(range(3))
    store = FeatureStore(home, "toy")
    base = {"model": "m", "size": 224, "options": {"crop": "center", "mean": [1, 2]}}
    for tag, fields in (("a", base), ("b", {**base, "model": "n", "size": 1})):
        spec = spec_of()
        spec = replace(spec, fields=fields)
        fill(open_writer(store, rows, key=key_of(tag), spec=spec), rows)
    asked = {**base, "options": {"crop": "none", "mean": (1, 2)}, "dtype": "float16"}
    found = explain(store, key_of("c"), asked)
    assert found.nearest.key == key_of("a")
    assert [(d.field, d.stored, d.asked) for d in found.differences] == [
        ("dtype", None, "float16"),
        ("options.crop", "center", "none"),
    ]
    assert "options.crop: 'center' → 'none'" in str(found)
    assert explain(store, key_of("a"), base).differences == ()
    nothing = explain(FeatureStore(home, "other"), key_of("a"), base)
    assert nothing.nearest is None
