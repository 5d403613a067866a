"""Tables and batches of cached features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import CLASSES, VALUE, fill_store, made_table

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.layout import Home
from pipelines import counter_rng
from pipelines.device import pick_device
from pipelines.features.arrays import pad
from pipelines.features.load import load_table
from pipelines.features.table import batch_bounds, gather, shuffled_batches
from pipelines.training.run import inputs_of


@given(count=st.integers(1, 200), size=st.integers(1, 50))
def test_batches_cover_every_row_once_and_none_is_a_lone_trailer(count: int, size: int) -> None:
    """A trailing batch of one joins its predecessor; all others have the size asked for."""
    parts = batch_bounds(count, size)
    assert [r for start, stop in parts for r in range(start, stop)] == list(range(count))
    assert all(stop - start == size for start, stop in parts[:-1])
    if count > 1 and size > 1:
        assert all(stop - start > 1 for start, stop in parts)


@given(
    count=st.integers(1, 120),
    size=st.integers(1, 40),
    least=st.integers(0, 10),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_every_batch_has_its_complete_rows_and_every_row_its_batch(
    count: int, size: int, least: int, share: float, seed: int
) -> None:
    """At least `least` complete rows or all there are, none twice; equal numbers in replicas."""
    generator = torch.Generator().manual_seed(seed)
    where = torch.randperm(2 * count, generator=generator)[:count]  # rows of a larger table
    complete = torch.rand(2 * count, generator=generator) < share
    order = torch.stack([where[torch.randperm(count, generator=generator)] for _ in range(3)])
    batches, parts = shuffled_batches(order, complete, size, least), batch_bounds(count, size)
    whole = int(complete[where].sum())
    assert len(batches) == len(parts)
    for r in range(3):
        seen = [row for batch in batches for row in batch[r].tolist()]
        assert set(seen) == set(where.tolist())
        for batch, (start, stop) in zip(batches, parts, strict=True):
            rows, there = batch[r].tolist(), int(complete[batch[r]].sum())
            assert len(set(rows)) == len(rows) >= stop - start
            assert there >= min(least, whole)
            assert there == int(complete[batch[0]].sum()) or not least
        if least == 0:
            assert seen == order[r].tolist()
        if not whole:
            assert len(seen) == count


def test_complete_rows_are_spread_evenly_where_there_are_enough() -> None:
    """40 of 100 in batches of 20: eight each, and then no row comes twice."""
    complete = torch.arange(100) < 40
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))[None]
    batches = shuffled_batches(order, complete, 20, 8)
    assert [int(complete[batch[0]].sum()) for batch in batches] == [8] * 5
    assert sorted(row for batch in batches for row in batch[0].tolist()) == list(range(100))


def test_gathered_rows_are_the_rows() -> None:
    """Every field of R batches side by side is the table's at the same positions."""
    table = made_table(30, frames=3)
    index = torch.tensor([[3, 3, 9], [0, 29, 1]])
    batch = gather(table, index, counter_rng.key(torch.arange(2)))
    for r in range(2):
        for name, x in table.features.items():
            assert torch.equal(batch.features[name][r].nan_to_num(), x[index[r]].nan_to_num())
        assert torch.equal(batch.present[r], table.present[index[r]])
        assert torch.equal(batch.targets[r], table.targets[index[r]])
        frames = table.frame_present["eye/text"][index[r]]
        assert torch.equal(batch.frame_present["eye/text"][r], frames)


def test_padding_by_a_loop() -> None:
    """Row i of the padded array is sequence i, then zeros; the boolean array marks its end."""
    rng = np.random.default_rng(0)
    lengths = [3, 0, 1, 5]
    parts = [rng.normal(size=(n, 2)).astype(np.float16) for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    padded, there = pad(np.concatenate(parts), offsets)
    assert padded.shape == (4, 5, 2)
    assert padded.dtype == np.float32
    for i, part in enumerate(parts):
        assert np.array_equal(padded[i, : lengths[i]], part.astype(np.float32))
        assert not padded[i, lengths[i] :].any()
        assert there[i].tolist() == [True] * lengths[i] + [False] * (5 - lengths[i])


def test_taken_rows_know_nothing_of_the_others() -> None:
    """Features, targets, ids and splits are those of the rows alone."""
    table = made_table(30)
    part = table.take(np.array([4, 20]))
    assert len(part) == 2
    assert part.samples.ids.tolist() == ["row0004", "row0020"]
    assert part.rows.tolist() == [4, 20]
    assert part.split("train").tolist() == [0]
    assert torch.equal(table.window(4, 6).features["lens/image"].nan_to_num(),
                       table.features["lens/image"][4:6].nan_to_num())  # fmt: skip


@pytest.mark.parametrize("frames", [0, 4])
def test_the_store_becomes_a_table(tmp_path: Path, frames: int) -> None:
    """Streams, presence, frames and targets come back from the store, sorted by name."""
    made = made_table(40, CLASSES, frames=frames)
    store = fill_store(Home(tmp_path), made)
    table = load_table(store, store.resolve(None), torch.device("cpu"))
    assert list(table.features) == sorted(made.features)
    for name in made.features:
        number, where = list(table.features).index(name), list(made.features).index(name)
        there = made.present[:, where]
        assert torch.equal(table.present[:, number], there)
        if name in made.frame_present:
            shown = made.frame_present[name] & there[:, None]
            count = shown.sum(1)
            assert torch.equal(table.frame_present[name].sum(1), count)
            for row in torch.nonzero(there).flatten().tolist():
                found = table.features[name][row][: count[row]]
                assert torch.equal(found, made.features[name][row][shown[row]])
        else:
            assert torch.equal(table.features[name][there], made.features[name][there])
    assert inputs_of(table).streams["eye/text"].sequence == bool(frames)


def test_values_are_in_units_of_the_train_rows() -> None:
    """Targets of a value task have mean 0 and standard deviation 1 over train rows."""
    table = made_table(100, VALUE)
    train = table.targets[table.split("train")]
    assert abs(float(train.mean())) < 1e-6
    assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-6)
    back = table.targets.double() * table.scale.deviation + table.scale.mean
    assert np.allclose(back.numpy(), table.samples.targets, atol=1e-6)


def test_a_device_that_is_not_there_is_refused() -> None:
    """No silent fallback: an unknown or absent device is an error."""
    with pytest.raises(MmfuseError, match="no device named"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(MmfuseError, match="no device cuda here"):
            pick_device("cuda")
    assert pick_device("cpu").type == "cpu"


def test_an_empty_home_names_the_extract_command(tmp_path: Path) -> None:
    """Without features there is nothing to load, and the error names the command to run."""
    with pytest.raises(MmfuseError, match="mmfuse extract --dataset made"):
        FeatureStore(Home(tmp_path), "made").resolve(None)
