"""Stored baselines: read back as they were, never damaged, gone with their streams."""

import numpy as np
import pytest
from store_rows import fill, key_of, open_writer

from cache.baselines import Baselines
from cache.feature_store import FeatureStore
from cache.layout import DatasetPaths, Home
from cache.maintenance.gc import collect_garbage, plan_gc
from cache.maintenance.verify import verify


@pytest.fixture
def home(tmp_path):
    """A home with one stream of the dataset `toy`."""
    found = Home(tmp_path / "home")
    inputs = list(range(20))
    fill(open_writer(FeatureStore(found, "toy"), inputs), inputs)
    return found


ARRAYS = {"weight": np.array([[1.5, -0.0], [np.pi, 1e-30]], np.float32), "none": np.zeros((0, 3))}
KEY = "ab" * 16


def test_a_model_is_read_back_bit_for_bit(home):
    """Arrays with their shapes, numbers as they are; another key or dataset has none."""
    stored = Baselines(home, "toy", [key_of().fingerprint])
    assert stored.get(KEY) is None
    stored.put(KEY, ARRAYS, {"penalty": 1e-3, "rows": 7})
    arrays, numbers = stored.get(KEY)
    assert numbers == {"penalty": 1e-3, "rows": 7}
    for name, values in ARRAYS.items():
        assert np.array_equal(arrays[name], values)
        assert arrays[name].dtype == np.float32
    assert Baselines(home, "other", []).get(KEY) is None


def test_a_damaged_one_is_none_and_written_anew(home):
    """One changed byte, or a cut file: as if it had never been there."""
    stored = Baselines(home, "toy", [key_of().fingerprint])
    stored.put(KEY, ARRAYS, {})
    path = DatasetPaths.of(home, "toy").baselines / f"{KEY}.json"
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole.replace(b"weight", b"weighs")):
        path.write_bytes(damaged)
        assert stored.get(KEY) is None
        assert [(d.what, d.path) for d in verify(home).damages] == [("baseline", path)]
        assert [(g.name, g.why) for g in plan_gc(home)] == [(KEY, "old baseline")]
    stored.put(KEY, ARRAYS, {})
    assert stored.get(KEY) is not None
    assert verify(home).damages == ()


def test_garbage_collection_keeps_those_whose_streams_are_there(home):
    """One of a stream that is gone is deleted, the other stays."""
    Baselines(home, "toy", [key_of().fingerprint]).put(KEY, ARRAYS, {})
    Baselines(home, "toy", [key_of().fingerprint, "0" * 64]).put("cd" * 16, ARRAYS, {})
    garbage = plan_gc(home)
    assert [g.name for g in garbage] == ["cd" * 16]
    collect_garbage(garbage)
    assert plan_gc(home) == []
    assert Baselines(home, "toy", []).get(KEY) is not None
