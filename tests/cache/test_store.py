"""The feature store: what is written is read back, and nothing is encoded twice."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import zarr
from store_rows import (
    WIDTH,
    expected,
    fill,
    key_of,
    open_writer,
    samples_of,
    shrink,
    spec_of,
    vector,
)

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.grid import Grid
from cache.format.streams import ABSENT, FAILED, OK, display_names
from cache.layout import Home
from cache.maintenance.repair import repair
from cache.maintenance.verify import verify


@pytest.fixture
def home(tmp_path):
    """An empty home."""
    return Home(tmp_path / "artifacts")


@pytest.fixture
def store(home):
    """An empty store of a dataset."""
    return FeatureStore(home, "toy")


@pytest.fixture
def small_shards(monkeypatch):
    """Chunks of 16 rows and shards of 3 chunks, so that a test has many of them."""
    shrink(monkeypatch.setattr)


@pytest.mark.parametrize("sequence", [False, True])
def test_what_is_written_is_read_back(store, small_shards, sequence):
    """Whole streams, single rows and states are those that were put, pooled or in sequences."""
    inputs = [i * 7 % 50 for i in range(200)]
    inputs[3] = inputs[150] = None
    writer = open_writer(store, inputs, spec=spec_of(sequence=sequence))
    assert len(writer.shards) > 2
    fill(writer, inputs, fails=[14])
    (info,) = store.resolve(["toy/image"])
    found = store.whole(info.key)
    failed = [row for row, i in enumerate(inputs) if i == 14]
    assert info.counts == {
        "ok": 198 - len(failed),
        "absent": 2,
        "failed": len(failed),
        "pending": 0,
    }
    assert np.flatnonzero(found.state == ABSENT).tolist() == [3, 150]
    assert np.flatnonzero(found.state == FAILED).tolist() == failed
    assert np.array_equal(found.present, found.state == OK)
    there = np.flatnonzero(found.present)
    wanted = [vector(inputs[row], sequence=sequence) for row in there]
    if sequence:
        order = there[::-1]
        frames, offsets = store.sequences(info.key, order)
        for at, row in enumerate(order):
            piece = vector(inputs[row], sequence=True)
            assert np.array_equal(frames[offsets[at] : offsets[at + 1]], piece)
            assert np.array_equal(found.values[found.offsets[row] : found.offsets[row + 1]], piece)
    else:
        assert np.array_equal(found.values[there], np.stack(wanted))
        assert np.isnan(found.values[~found.present]).all()
        index = np.array([199, 0, 0, 77, 5])
        assert np.array_equal(store.rows(info.key, index), found.values[index])


def test_equal_inputs_are_encoded_once_and_no_row_is_lost(store, small_shards):
    """N rows with U distinct inputs cost U encodings, across shards too."""
    inputs = [i % 23 for i in range(300)]
    encoded = fill(open_writer(store, inputs), inputs)
    assert sorted(encoded) == list(range(23))
    assert np.array_equal(store.whole(key_of()).values, expected(inputs))


def test_a_second_run_has_nothing_to_do(store, small_shards):
    """The same rows are the same generation, complete, and nothing is claimed."""
    inputs = list(range(100))
    fill(open_writer(store, inputs), inputs)
    writer = open_writer(store, inputs)
    assert writer.complete
    assert writer.generation.number == 1
    assert fill(writer, inputs) == []


@pytest.mark.parametrize("sequence", [False, True])
def test_changed_rows_encode_exactly_the_new_inputs(store, small_shards, sequence):
    """Appending, editing, reordering and deleting rows encodes new inputs only."""
    options = {"spec": spec_of(sequence=sequence)}
    steps = [
        (list(range(100)), set(range(100))),
        (list(range(130)), set(range(100, 130))),
        ([500, *range(1, 130)], {500}),
        (list(reversed(range(130))), set()),
        (list(range(0, 130, 2)), set()),
    ]
    for number, (inputs, new) in enumerate(steps, 1):
        writer = open_writer(store, inputs, **options)
        assert writer.generation.number == number
        assert set(fill(writer, inputs)) == new
        values = store.whole(key_of()).values
        assert np.array_equal(values, expected(inputs, sequence=sequence))
    assert open_writer(store, steps[0][0], **options).complete  # rows as they were at first
    assert np.array_equal(store.whole(key_of()).values, expected(steps[0][0], sequence=sequence))


def test_rows_of_other_datasets_and_modalities_are_reused(home, store):
    """An input that any stream of the same fingerprint and kind holds is not encoded again."""
    first = list(range(40))
    fill(open_writer(store, first), first)
    other = FeatureStore(home, "group/other")
    inputs = list(range(20, 60))
    assert fill(open_writer(other, inputs), inputs) == list(range(40, 60))
    assert np.array_equal(other.whole(key_of()).values, expected(inputs))
    second = key_of(modality="photo")
    assert fill(open_writer(store, inputs, key=second), inputs) == []
    strange = key_of("b")
    assert fill(open_writer(store, inputs, key=strange), inputs) == inputs


def test_new_splits_move_the_pointer_and_encode_nothing(store):
    """Rows with other splits or ids are the same generation under another snapshot."""
    inputs = list(range(30))
    fill(open_writer(store, inputs), inputs)
    (before,) = store.streams()
    writer = open_writer(store, inputs, samples=samples_of(inputs, split="test"))
    assert writer.complete
    (after,) = store.streams()
    assert (before.generation, after.generation) == (1, 1)
    assert before.snapshot != after.snapshot
    assert set(store.samples(after).splits) == {"test"}


def test_failed_rows_are_tried_again_only_when_asked(store):
    """A failure is kept over appended rows, and `retry_failed` encodes exactly the failed ones."""
    inputs = list(range(30))
    fill(open_writer(store, inputs), inputs, fails=[3, 4])
    more = [*inputs, 30]
    assert fill(open_writer(store, more), more) == [30]
    (info,) = store.streams()
    assert store.failures(info.key)["id"].to_list() == ["s3", "s4"]
    assert store.failures(info.key)["detail"].to_list() == ["input 3", "input 4"]
    assert open_writer(store, more).complete
    assert fill(open_writer(store, more, retry_failed=True), more, fails=[4]) == [3, 4]
    assert store.failures(info.key)["row"].to_list() == [4]
    assert np.array_equal(store.rows(info.key, np.array([3])), expected([3]))
    assert fill(open_writer(store, more, retry_failed=True), more) == [4]
    assert open_writer(store, more, retry_failed=True).complete


def test_a_row_without_identity_equals_no_other(store):
    """Rows whose digest is all zeros are each encoded, and again for a new generation."""
    inputs = [-1, -2, 5]
    assert fill(open_writer(store, inputs), inputs) == [-1, -2, 5]
    more = [*inputs, 6]
    assert fill(open_writer(store, more), more) == [-1, -2, 6]


def test_what_cannot_be_stored_fails_its_row_alone(store):
    """NaN and infinity fail with `non-finite`, too large for float16 with `overflow`."""
    inputs = list(range(4))
    writer = open_writer(store, inputs, spec=spec_of(dtype="float16"))
    with writer.claim(writer.shards[0]) as claim:
        rows = [np.full(WIDTH, x, np.float32) for x in (1.0, np.nan, 7e4, -np.inf)]
        claim.put(claim.todo, rows)
        claim.commit()
    writer.finish()
    assert store.whole(key_of()).state.tolist() == [OK, FAILED, FAILED, FAILED]
    assert store.failures(key_of())["reason"].to_list() == ["non-finite", "overflow", "non-finite"]


def test_a_zero_vector_is_not_absent(store):
    """All zeros come back as zeros, present; what is absent comes back as NaN."""
    writer = open_writer(store, [0, None])
    with writer.claim(writer.shards[0]) as claim:
        claim.put([0], [np.zeros(WIDTH, np.float32)])
        claim.commit()
    writer.finish()
    found = store.whole(key_of())
    assert found.present.tolist() == [True, False]
    assert not found.values[0].any()
    assert np.isnan(found.values[1]).all()


@pytest.mark.parametrize("sequence", [False, True])
def test_plain_zarr_opens_everything_without_a_warning(store, small_shards, sequence):
    """`zarr.open_group` reads the same numbers, and finds nothing that is not a Zarr node."""
    inputs = [*range(150), None]
    fill(open_writer(store, inputs, spec=spec_of(sequence=sequence)), inputs)
    found = store.whole(key_of())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(str(store.paths.zarr), mode="r")
        stream = group[key_of().label]
        assert len(group.members(max_depth=None)) == (7 if sequence else 6)
        assert np.array_equal(stream["values"][:], found.values, equal_nan=True)
        assert np.array_equal(stream["present"][:], found.present)
        assert np.array_equal(stream["state"][:], found.state)
        assert stream["inputs"].shape == (151, 16)
        assert stream.attrs["mmfuse"]["fingerprint"] == key_of().fingerprint
        if sequence:
            assert np.array_equal(stream["offsets"][:], found.offsets)
    names = {p.name for p in store.paths.zarr.rglob("*") if p.is_file()}
    assert names <= {"zarr.json", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}


def test_an_unfinished_stream_is_named_with_the_command_that_goes_on(store, small_shards):
    """Streams that are not complete cannot be read; plain zarr shows them as not yet."""
    inputs = list(range(150))
    writer = open_writer(store, inputs)
    with writer.claim(writer.shards[1]) as claim:
        claim.put(claim.todo, [vector(inputs[row]) for row in claim.todo])
        claim.commit()
    (info,) = store.streams()
    assert not info.complete
    assert info.counts["pending"] == 150 - len(writer.shards[1])
    with pytest.raises(MmfuseError, match="mmfuse extract --dataset toy --encoder toy"):
        store.whole(key_of())
    with pytest.raises(MmfuseError, match="not complete"):
        store.resolve(["toy/image"])
    stream = zarr.open_group(str(info.path), mode="r")
    start, stop = writer.shards[1].start, writer.shards[1].stop
    assert np.flatnonzero(stream["state"][:]).tolist() == list(range(start, stop))


def test_resolving_names_what_there_is(store):
    """No stream, an unknown word, two fingerprints, two snapshots: each says what to type."""
    with pytest.raises(MmfuseError, match="mmfuse extract --dataset toy --encoder ENCODER"):
        store.resolve(None)
    inputs = list(range(10))
    fill(open_writer(store, inputs), inputs)
    with pytest.raises(MmfuseError, match=r"for toi; did you mean toy\? \(there are: toy/image\)$"):
        store.resolve(["toi"])
    with pytest.raises(
        MmfuseError, match=r"for clip/audio \(there are: toy/image\).*--encoder clip"
    ):
        store.resolve(["clip/audio"])
    fill(open_writer(store, inputs, key=key_of("b")), inputs)
    with pytest.raises(MmfuseError, match="2 streams toy/image") as caught:
        store.resolve(None)
    for tag in ("a", "b"):
        assert key_of(tag).label in str(caught.value)
        assert store.resolve([key_of(tag).label])[0].key == key_of(tag)
    labels = [key_of(tag).label for tag in ("b", "a")]
    both = store.resolve(labels)
    assert [info.key.label for info in both] == display_names(both) == labels
    assert display_names(both[:1]) == ["toy/image"]
    more = list(range(11))
    fill(open_writer(store, more, key=key_of("c", "audio")), more)
    with pytest.raises(MmfuseError, match="different samples"):
        store.resolve([key_of().label, "toy/audio"])


def test_vectors_of_another_kind_are_refused(home):
    """V18: vectors of texts are not written as a modality of images."""
    store = FeatureStore(home, "toy")
    with pytest.raises(MmfuseError, match="image of toy is image, and these vectors are of text"):
        open_writer(store, [1, 2], spec=replace(spec_of(), kind="text"))
    assert not store.streams()


def test_a_newer_store_is_refused(home, store):
    """A schema that this version does not know is an error that says so."""
    inputs = list(range(3))
    fill(open_writer(store, inputs), inputs)
    from cache.storage.objects import put_record

    put_record(store.paths.store, {"schema": 99, "dataset": "toy"}, store.paths.scratch)
    with pytest.raises(MmfuseError, match="newer mmfuse"):
        FeatureStore(home, "toy")


@pytest.mark.parametrize("rows", [1, 65, 1797, 33_000, 1_000_000])
@pytest.mark.parametrize(("width", "dtype"), [(64, "float32"), (512, "float16"), (1, "float32")])
def test_values_take_no_more_than_a_hundredth_and_some_bytes_a_row(rows, width, dtype):
    """By arithmetic: shards are at most 1.01 × the data + 16 bytes a row + 64."""
    grid = Grid.plan(rows, width, dtype)
    data = rows * width * np.dtype(dtype).itemsize
    disk = sum(grid.file_bytes(shard) for shard in range(grid.shards))
    assert disk <= 1.01 * data + 16 * rows + 64
    assert grid.per_shard <= 48
    assert grid.bounds(grid.shards - 1)[1] == rows


@pytest.mark.parametrize("rows", [65, 1797, 33_000])
@pytest.mark.parametrize(("width", "dtype"), [(64, "float32"), (512, "float16")])
def test_the_whole_store_is_small_and_honest(store, rows, width, dtype):
    """All files of a stream and its samples: at most 1.01 × the data + 64 bytes a row."""
    rng = np.random.default_rng(0)
    inputs = np.frombuffer(rng.bytes(16 * rows), np.uint8).reshape(rows, 16)
    writer = store.writer(
        key_of(),
        spec=spec_of(width=width, dtype=dtype),
        samples=samples_of(range(rows)),
        inputs=inputs,
        absent=np.zeros(rows, bool),
    )
    for shard in writer.shards:
        with writer.claim(shard) as claim:
            claim.put(claim.todo, rng.standard_normal((len(claim.todo), width)).astype(dtype))
            claim.commit()
    writer.finish()
    data = rows * width * np.dtype(dtype).itemsize
    sizes = {p: p.stat().st_size for p in store.paths.zarr.parent.rglob("*") if p.is_file()}
    zarr_bytes = sum(size for path, size in sizes.items() if store.paths.zarr in path.parents)
    assert zarr_bytes <= 1.01 * data + 64 * rows


@pytest.mark.parametrize("sequence", [False, True])
def test_a_stream_with_nothing_in_it_is_a_stream(store, sequence):
    """All rows absent or failed: read back as such, and changed rows start from it."""
    inputs = [None, 1, None]
    spec = spec_of(sequence=sequence)
    fill(open_writer(store, inputs, spec=spec), inputs, fails=[1])
    found = store.whole(key_of())
    assert found.state.tolist() == [ABSENT, FAILED, ABSENT]
    if sequence:
        frames, offsets = store.sequences(key_of(), np.array([0, 2, 1]))
        assert frames.shape == (0, WIDTH)
        assert offsets.tolist() == [0, 0, 0, 0]
    assert verify(store.home).damages == ()
    more = [*inputs, 7]
    assert fill(open_writer(store, more, spec=spec), more) == [7]
    values = store.whole(key_of()).values
    good = values if sequence else values[[3]]
    assert np.array_equal(good, expected([7], sequence=sequence))


@pytest.mark.parametrize("how", ["delete", "cut", "flip"])
def test_the_only_shard_of_a_sequence_stream_can_be_mended(store, how):
    """Where every frame lies in one damaged shard, all of its rows are encoded again, no more."""
    inputs = [1, None, 2]
    spec = spec_of(sequence=True)
    fill(open_writer(store, inputs, spec=spec), inputs)
    (info,) = store.streams()
    path = info.path / "values" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data[:-1] if how == "cut" else data)
    if how == "delete":
        path.unlink()
    repair(store.home, verify(store.home).damages)
    assert fill(open_writer(store, inputs, spec=spec), inputs) == [1, 2]
    values = FeatureStore(store.home, "toy").whole(key_of()).values
    assert np.array_equal(values, expected([1, 2], sequence=True))


def test_records_are_json_that_people_can_read(store):
    """A commit object says which rows, by whom, and the digest of every object."""
    inputs = list(range(3))
    fill(open_writer(store, inputs), inputs)
    (path,) = list(store.paths.streams.rglob("commits/*.json"))
    commit = json.loads(path.read_text())
    assert commit["rows"] == [0, 3]
    assert set(commit["objects"]) == {"values", "present", "state", "inputs"}
    assert commit["run"]


def test_streams_are_named_one_by_one_or_with_commas(store):
    """The order is that of the words, each stream once; an unknown one is refused by its name."""
    for modality in ("image", "audio", "text"):
        fill(open_writer(store, [1, 2, 3], key=key_of(modality=modality)), [1, 2, 3])
    for words in (
        ["toy/text,toy/audio"],
        ["toy/text", "toy/audio"],
        ["toy/text,", "toy/audio,toy/text"],
    ):
        assert [info.key.modality for info in store.resolve(words)] == ["text", "audio"]
    with pytest.raises(MmfuseError, match="for toy/smell"):
        store.resolve(["toy/text,toy/smell"])
