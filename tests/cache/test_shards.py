"""Shards: what zarr makes is what we map, and no change of a byte goes unseen."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.format import zarr_arrays
from cache.format.digest_index import DigestIndex, first_of_each
from cache.format.grid import Grid
from cache.format.shards import MappedShard, encode_flat, encode_shard, read_flat, read_shard
from cache.storage.objects import DamagedError

GRIDS = st.builds(
    lambda rows, width, dtype, chunk_rows, per_shard: Grid(
        rows, width, dtype, min(rows, chunk_rows), per_shard
    ),
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from(["float16", "float32"]),
    st.integers(1, 20),
    st.integers(1, 4),
)


def written(folder, grid):
    """Random values, and the files of an array of them."""
    values = np.random.default_rng(grid.rows).standard_normal((grid.rows, grid.width))
    values = values.astype(grid.dtype)
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_bytes(zarr_arrays.sharded(grid))
    for shard in range(grid.shards):
        start, stop = grid.bounds(shard)
        path = folder / "c" / str(shard) / "0"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_shard(values[start:stop], grid))
    return values


@settings(max_examples=40, deadline=None)
@given(grid=GRIDS)
def test_zarr_and_we_read_the_same(tmp_path_factory, grid):
    """Whatever the grid: zarr, whole reads and mapped gathers give what was written."""
    folder = tmp_path_factory.mktemp("array")
    values = written(folder, grid)
    assert np.array_equal(zarr.open_array(str(folder), mode="r")[:], values)
    rng = np.random.default_rng(0)
    for shard in range(grid.shards):
        start, stop = grid.bounds(shard)
        path = folder / "c" / str(shard) / "0"
        assert path.stat().st_size == grid.file_bytes(shard)
        out = np.empty((stop - start, grid.width), grid.dtype)
        read_shard(path, grid, shard, out)
        assert np.array_equal(out, values[start:stop])
        rows = rng.integers(0, stop - start, 9)
        assert np.array_equal(MappedShard(path, grid, shard).gather(rows), out[rows])


def test_a_whole_plan_is_at_most_48_chunks_of_about_a_megabyte():
    """The planned grids stay within what the design says."""
    for rows in (1, 65, 1797, 33_000, 200_000, 10**7):
        grid = Grid.plan(rows, 512, "float16")
        assert grid.chunk_bytes <= (1 << 20) + 1024
        assert grid.per_shard <= 48
        assert (grid.chunk_rows == rows) == (rows * 1024 <= 1 << 20)


@pytest.mark.parametrize("at", [0, 3, 200, 255, 256, 259, 260, 700, -1, -4, -5, -30, -60])
def test_every_flipped_bit_is_found(tmp_path, at):
    """In the values, between the chunks, in the index and behind it."""
    grid = Grid(40, 4, "float32", 16, 3)
    values = written(tmp_path / "array", grid)
    path = tmp_path / "array" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        read_shard(path, grid, 0, np.empty_like(values))
    with pytest.raises(DamagedError):
        MappedShard(path, grid, 0).gather(np.arange(40))


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "longer"])
def test_a_file_of_a_wrong_length_is_found(tmp_path, damage):
    """Deleted, emptied, truncated and lengthened shards are damaged, not short."""
    grid = Grid(40, 4, "float32", 16, 3)
    values = written(tmp_path / "array", grid)
    path = tmp_path / "array" / "c" / "0" / "0"
    data = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"\0")
    for read in (
        lambda: read_shard(path, grid, 0, np.empty_like(values)),
        lambda: MappedShard(path, grid, 0),
    ):
        with pytest.raises(DamagedError):
            read()


def test_damage_costs_only_its_own_chunk(tmp_path):
    """Rows of other chunks can still be gathered, and the damaged rows are named."""
    grid = Grid(40, 4, "float32", 16, 3)
    values = written(tmp_path / "array", grid)
    path = tmp_path / "array" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[16 * 16 + 4 + 8] ^= 128  # in the second chunk
    path.write_bytes(data)
    mapped = MappedShard(path, grid, 0)
    assert np.array_equal(mapped.gather(np.array([0, 15, 39])), values[[0, 15, 39]])
    with pytest.raises(DamagedError, match="rows 16–31"):
        mapped.gather(np.array([0, 20]))
    assert mapped.sound(np.array([0, 16, 31, 32])).tolist() == [True, False, False, True]


def test_small_arrays_are_checked_too(tmp_path):
    """A flat chunk comes back, shorter than its chunk too; flipped bits are found."""
    array = np.arange(10, dtype=np.int64)
    path = tmp_path / "chunk"
    path.write_bytes(encode_flat(array, 16))
    assert np.array_equal(read_flat(path, (10,), "int64"), array)
    data = bytearray(path.read_bytes())
    for at in range(len(data)):
        data[at] ^= 16
        path.write_bytes(data)
        with pytest.raises(DamagedError):
            read_flat(path, (10,), "int64")
        data[at] ^= 16


DIGESTS = st.lists(
    st.binary(min_size=16, max_size=16)
    | st.sampled_from([bytes(16), b"a" * 16, b"a" * 8 + b"b" * 8]),
    min_size=1,
    max_size=30,
)


@given(rows=DIGESTS)
def test_the_first_of_each_is_that_of_a_loop(rows):
    """Grouping without a loop is grouping with one; zeros equal nothing."""
    inputs = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)
    wanted = [i if row == bytes(16) else rows.index(row) for i, row in enumerate(rows)]
    assert first_of_each(inputs).tolist() == wanted


@given(known=DIGESTS, asked=DIGESTS)
def test_looking_up_is_that_of_a_dict(known, asked):
    """Positions of known digests, -1 for unknown ones and for zeros."""
    lookup = DigestIndex.of(np.frombuffer(b"".join(known), np.uint8).reshape(-1, 16))
    found = lookup.find(np.frombuffer(b"".join(asked), np.uint8).reshape(-1, 16))
    wanted = [known.index(a) if a in known and a != bytes(16) else -1 for a in asked]
    assert found.tolist() == wanted
