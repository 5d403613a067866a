"""Features in one call: values, ids and presence as they are stored."""

import numpy as np
import polars as pl
import pytest
import torch
from made import LABELS, VALUE, fill_store, made_table

import mmfuse
from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.layout import Home

COUNT = 30


@pytest.fixture
def home(tmp_path):
    """Three streams of the dataset `made`, the last one of sequences; some cells are absent."""
    home = Home(tmp_path)
    fill_store(home, made_table(COUNT, frames=4))
    return home


def key_of(home, name):
    """Key of a stream of `made`."""
    return next(i.key for i in FeatureStore(home, "made").streams() if i.key.name == name)


@pytest.mark.parametrize("split", [None, "train", "val", "test"])
def test_values_are_those_of_the_store(home, split):
    """Row for row, NaN where a row is not present, with ids, splits and targets of the rows."""
    found = mmfuse.features("made", "lens/image", home=str(home.root), split=split)
    store, key = FeatureStore(home, "made"), key_of(home, "lens/image")
    (info,) = store.resolve(["lens/image"])
    samples = store.samples(info)
    rows = [n for n in range(COUNT) if split in (None, samples.splits[n])]
    assert 0 < len(rows) < COUNT + (split is None)
    stored = np.array([store.rows(key, np.array([row]))[0] for row in rows], np.float32)
    assert found.values.dtype == np.float32
    assert np.array_equal(found.values, stored, equal_nan=True)
    assert np.array_equal(found.present, ~np.isnan(stored).any(1))
    assert found.present.all() == (split == "test")
    assert found.lengths is None
    assert (found.ids == samples.ids[rows]).all()
    assert (found.splits == samples.splits[rows]).all()
    assert (found.targets == samples.targets[rows]).all()
    assert repr(found) == f"Features({key.label}: {len(rows)} × 6, {found.present.sum()} present)"
    assert len(found) == len(rows)


def test_sequences_are_padded_and_have_lengths(home):
    """(N, T, D), zeros behind the end of a row and where it is absent."""
    found = mmfuse.features("made", "eye/text", home=home)
    store, key = FeatureStore(home, "made"), key_of(home, "eye/text")
    frames, offsets = store.sequences(key, np.arange(COUNT))
    assert found.values.shape == (COUNT, found.lengths.max(), 5)
    assert (found.lengths == np.diff(offsets)).all()
    assert len(set(found.lengths)) > 1
    assert (found.lengths > 0).tolist() == found.present.tolist()
    for row, length in enumerate(found.lengths):
        assert (found.values[row, :length] == frames[offsets[row] : offsets[row + 1]]).all()
        assert not found.values[row, length:].any()


@pytest.mark.parametrize("stream", ["lens/image", "eye/text"])
def test_tensors_and_frames_hold_the_same(home, stream):
    """Tensors for torch; a data frame whose absent rows are null."""
    plain = mmfuse.features("made", stream, home=home)
    tensors = mmfuse.features("made", stream, home=home, as_="torch")
    assert isinstance(tensors.values, torch.Tensor)
    assert np.array_equal(tensors.values.numpy(), plain.values, equal_nan=True)
    assert tensors.present.tolist() == plain.present.tolist()
    assert tensors.targets.tolist() == plain.targets.tolist()
    frame = mmfuse.features("made", stream, home=home, as_="polars")
    assert frame.columns == ["id", "split", "target", "features"]
    assert frame["id"].to_list() == plain.ids.tolist()
    assert frame["features"].is_not_null().to_list() == plain.present.tolist()
    assert frame["target"].to_list() == ["abc"[n] for n in plain.targets]
    for row, cell in enumerate(frame["features"].to_list()):
        if cell is not None:
            end = None if plain.lengths is None else plain.lengths[row]
            values = plain.values[row] if end is None else plain.values[row, :end]
            assert np.array_equal(np.array(cell, np.float32), values)
    held = mmfuse.features("made", stream, home=home, as_="polars", split="val")
    assert held.equals(frame.filter(pl.col("split") == "val"))


@pytest.mark.parametrize("task", [LABELS, VALUE])
def test_targets_of_other_tasks(tmp_path, task):
    """Lists of label names, or values."""
    home = Home(tmp_path)
    fill_store(home, made_table(COUNT, task))
    plain = mmfuse.features("made", "lens", home=home)
    cells = mmfuse.features("made", "lens", home=home, as_="polars")["target"].to_list()
    if task is VALUE:
        assert cells == plain.targets.tolist()
    else:
        assert cells == [["abc"[n] for n in np.flatnonzero(row)] for row in plain.targets]


def test_a_stream_is_named_as_on_the_command_line_or_begun(home):
    """Encoder, encoder/modality, the label with the fingerprint, or the beginning of one."""
    key = key_of(home, "lens/image")
    for word in ("lens", "lens/image", key.label, "len", "lens/i", key.label[:8]):
        assert mmfuse.features("made", word, home=home).stream == key.label
    for given, message in (
        (("mad", "lens"), r"no dataset with features named 'mad'; did you mean made\?"),
        (("made", "lns/image"), r"no stream of made named 'lns/image'; did you mean lens/image\?"),
        (("made", "e"), "made has several streams e: ear-.*/audio, eye-.*/text; name one"),
        (("made", ""), "no stream of made named ''"),
    ):
        with pytest.raises(MmfuseError, match=message):
            mmfuse.features(*given, home=home)
    with pytest.raises(MmfuseError, match=r"no split named 'valid'; did you mean val\?"):
        mmfuse.features("made", "lens", home=home, split="valid")
    with pytest.raises(MmfuseError, match="no form of features named 'pandas'"):
        mmfuse.features("made", "lens", home=home, as_="pandas")
