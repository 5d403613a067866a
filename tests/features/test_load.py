"""Features of a store as a table: by split, as stored, and every row with its own values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from store_rows import fill, open_writer, samples_of, shrink, spec_of

from cache.feature_store import FeatureStore
from cache.layout import Home
from pipelines.features.load import load_table, row_order


def mixed(count):
    """Samples of all splits and of none, in no order."""
    splits = np.random.default_rng(0).choice(["train", "val", "test", ""], count).astype(object)
    return replace(samples_of(range(count)), splits=splits)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("sequence", [False, True])
def test_rows_come_by_split_with_their_own_values(tmp_path, monkeypatch, dtype, sequence):
    """Several shards, absent rows, splits mixed; a split is a view, and nothing is cast."""
    shrink(monkeypatch.setattr)
    inputs = [i * 7 % 50 for i in range(200)]
    inputs[3] = inputs[150] = None
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    spec, samples = spec_of(dtype=dtype, sequence=sequence), mixed(len(inputs))
    fill(open_writer(store, inputs, spec=spec, samples=samples), inputs)
    (info,) = store.resolve(None)
    table = load_table(store, [info], torch.device("cpu"))
    plain, samples = store.whole(info.key), store.samples(info)
    assert row_order(samples) is not None
    (values,) = table.features.values()
    rows = table.rows.numpy()
    assert np.array_equal(table.samples.ids, samples.ids[rows])
    assert np.array_equal(table.samples.targets, samples.targets[rows])
    assert np.array_equal(table.present[:, 0].numpy(), plain.present[rows])
    for place, row in enumerate(rows.tolist()):
        if not plain.present[row]:
            continue
        if sequence:
            start, stop = plain.offsets[row : row + 2]
            there = table.frame_present["toy/image"][place]
            assert int(there.sum()) == stop - start
            assert np.array_equal(values[place][there].numpy(), plain.values[start:stop])
        else:
            assert np.array_equal(values[place].numpy(), plain.values[row])
    for split in ("train", "val", "test"):
        part = table.take(table.split(split))
        assert part.rows.tolist() == np.flatnonzero(samples.splits == split).tolist()
        assert part.features["toy/image"].data_ptr() in range(
            values.data_ptr(), values.data_ptr() + values.nbytes
        )
    if not sequence:
        assert values.dtype == getattr(torch, dtype)


def test_rows_that_are_in_order_are_left_as_they_are():
    """No permutation where train, val, test and none follow each other."""
    samples = mixed(60)
    sorted_ = samples.take(row_order(samples))
    assert row_order(sorted_) is None
    assert list(dict.fromkeys(sorted_.splits)) == ["train", "val", "test", ""]
