"""Arrays of other people: aligned by id, in every format; a pickle may hold nothing but arrays."""

import os
import pickle
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from store_rows import fill, open_writer, samples_of
from typer.testing import CliRunner

from cache.errors import MmfuseError
from cache.exchange.array_files import load_arrays, unpickle
from cache.exchange.import_arrays import ImportSource, import_arrays
from cache.feature_store import FeatureStore
from cache.format.streams import FAILED
from cache.layout import Home
from cache.storage.objects import put_record
from mmfuse_cli.main import app


def vectors(rows=6, width=3):
    """Some vectors and ids, not in the samples' order; one sample lacks, one id is strange."""
    rng = np.random.default_rng(0)
    ids = [f"s{i}" for i in (4, 2, 0, 1, 5)] + ["strange"]
    return rng.standard_normal((rows, width)).astype(np.float32), ids


def write_npz(folder, values, ids):
    """A .npz with ids and other arrays beside the vectors."""
    np.savez(folder / "x.npz", audio=values, id=np.array(ids), label=np.zeros(6, np.int64))
    return folder / "x.npz", None


def write_parquet_list(folder, values, ids):
    """A column of lists."""
    pl.DataFrame({"id": ids, "vector": values.tolist()}).write_parquet(folder / "x.parquet")
    return folder / "x.parquet", None


def write_parquet_columns(folder, values, ids):
    """Number columns, found by a pattern."""
    columns = {f"v_{i}": values[:, i] for i in range(values.shape[1])}
    pl.DataFrame({"id": ids, **columns, "age": [1] * 6}).write_parquet(folder / "x.parquet")
    return folder / "x.parquet", "v_*"


def write_pickle_by_id(folder, values, ids):
    """A dict from id to vector, inside another."""
    data = {"audio": dict(zip(ids, values, strict=True)), "fps": 3}
    (folder / "x.pkl").write_bytes(pickle.dumps(data, protocol=2))
    return folder / "x.pkl", "audio"


def write_pickle_by_split(folder, values, ids):
    """Splits, each with vectors and ids."""
    data = {
        "train": {"audio": values[:4], "id": np.array(ids[:4])},
        "test": {"audio": values[4:], "id": ids[4:]},
    }
    (folder / "x.pkl").write_bytes(pickle.dumps(data, protocol=5))
    return folder / "x.pkl", "audio"


def write_hdf5(folder, values, ids):
    """The same as HDF5 groups."""
    with h5py.File(folder / "x.h5", "w") as file:
        for name, part in {"train": slice(0, 4), "test": slice(4, 6)}.items():
            file[f"{name}/audio"] = values[part]
            file.create_dataset(f"{name}/id", data=ids[part], dtype=h5py.string_dtype())
    return folder / "x.h5", "audio"


@pytest.mark.parametrize(
    "write",
    [
        write_npz,
        write_parquet_list,
        write_parquet_columns,
        write_pickle_by_id,
        write_pickle_by_split,
        write_hdf5,
    ],
)
def test_arrays_are_aligned_by_id(tmp_path, write):
    """Whatever the format: each sample gets the vector with its id, others are absent."""
    values, ids = vectors()
    path, array = write(tmp_path, values, ids)
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    source = ImportSource(path, "covarep", "audio", "audio", array)
    done = import_arrays(store, samples_of(range(6)), source)
    assert (done.aligned, done.lacking, done.unused) == ("id", 1, 1)
    (info,) = store.resolve(["covarep/audio"])
    assert info.provenance["origin"] == "imported"
    assert info.provenance["weights"] == "pretrained"
    found = store.whole(info.key)
    assert found.present.tolist() == [True, True, True, False, True, True]
    for row in (0, 1, 2, 4, 5):
        assert np.array_equal(found.values[row], values[ids.index(f"s{row}")])
    again = import_arrays(store, samples_of(range(6)), source)
    assert again.info == done.info


def shuffled(rows=8):
    """Vectors that state the number of their sample, and its id, in another order."""
    order = np.random.default_rng(1).permutation(rows)
    values = np.repeat(order[:, None], 2, 1).astype(np.float32)
    return values, [f"s{number}" for number in order]


@pytest.mark.parametrize("name", ["ID", "Ids", "sample_id", "SAMPLE_IDS", "Fall Nr.", "fall nr."])
@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_ids_go_by_several_names(tmp_path, name, suffix):
    """Small or capital letters; also the name of the dataset's own column of ids."""
    values, ids = shuffled()
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, v=values, **{name: np.array(ids)})
    else:
        pl.DataFrame({"v": values.tolist(), name: ids}).write_parquet(path)
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    done = import_arrays(
        store, samples_of(range(8)), ImportSource(path, "x", "image", id="Fall Nr.")
    )
    assert (done.aligned, done.lacking) == ("id", 0)
    assert store.whole(done.info.key).values[:, 0].tolist() == list(range(8))


def test_the_column_of_ids_comes_from_the_origin_of_the_dataset(tmp_path):
    """Recorded by an extract; ids under that name come before others."""
    values, ids = shuffled()
    path = tmp_path / "x.npz"
    np.savez(path, v=values, patient=np.array(ids), id=np.arange(8))
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    source = ImportSource(path, "x", "image")
    with pytest.raises(MmfuseError, match="none of its ids is a sample"):
        import_arrays(store, samples_of(range(8)), source)
    origin = {"word": "rows.csv", "options": {"id": "patient"}}
    put_record(store.paths.origin, origin, tmp_path / "scratch")
    assert import_arrays(store, samples_of(range(8)), source).aligned == "id"


def test_an_import_by_id_replaces_one_by_order(tmp_path):
    """The same file, once its ids, numbers here, are found by their name."""
    values, _ = shuffled()
    np.savez(tmp_path / "x.npz", v=values, nr=values[:, 0].astype(int))
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    samples = replace(samples_of(range(8)), ids=np.array([str(n) for n in range(8)], object))
    for name, expected in ((None, values[:, 0].tolist()), ("nr", list(range(8)))):
        source = ImportSource(tmp_path / "x.npz", "x", "image", id=name)
        done = import_arrays(store, samples, source)
        assert done.aligned == ("order" if name is None else "id")
        assert store.whole(done.info.key).values[:, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["npz", "parquet", "numbers", "pkl", "h5"])
def test_words_that_may_be_ids_are_never_passed_over(tmp_path, kind):
    """A different word a row beside vectors without ids: it is named, and nothing is written."""
    values, ids = shuffled()
    path = tmp_path / f"x.{'parquet' if kind == 'numbers' else kind}"
    array, named = None, "clip"
    match kind:
        case "npz":
            np.savez(path, v=values, clip=np.array(ids))
        case "parquet":
            pl.DataFrame({"v": values.tolist(), "clip": ids}).write_parquet(path)
        case "numbers":
            frame = {"v0": values[:, 0], "v1": values[:, 1], "clip": ids}
            pl.DataFrame(frame, {"clip": pl.Categorical} | dict.fromkeys(("v0", "v1"))).select(
                "v0", "v1", "clip"
            ).write_parquet(path)
            array = "v*"
        case "pkl":
            path.write_bytes(pickle.dumps({"v": values, "clip": ids}))
        case "h5":
            named = "about/id"
            with h5py.File(path, "w") as file:
                file["data/v"] = values
                file.create_dataset("about/id", data=ids, dtype=h5py.string_dtype())
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    with pytest.raises(MmfuseError, match=f"its ids may be in '{named}'; call it id"):
        import_arrays(store, samples_of(range(8)), ImportSource(path, "x", "image", array=array))
    assert not (tmp_path / "home").exists()


def test_classes_beside_vectors_are_no_ids(tmp_path):
    """Words that recur, and words of another number than the vectors: aligned by order."""
    values, _ = shuffled()
    words = {"label": np.array(["a", "b"] * 4), "names": np.array(["left", "right"])}
    np.savez(tmp_path / "x.npz", v=values, **words)
    pl.DataFrame({"v": values.tolist(), "label": ["a", "b"] * 4}).write_parquet(
        tmp_path / "x.parquet"
    )
    for name in ("x.npz", "x.parquet"):
        assert load_arrays(tmp_path / name).ids is None


def test_groups_without_ids_are_not_joined(tmp_path):
    """Their order is that of names, not of the samples; one group alone goes by order."""
    values, ids = shuffled()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, part in {"train": slice(0, 5), "dev": slice(5, 8)}.items():
            file[f"{name}/v"] = values[part]
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["train/v"] = values
    data = {"a": {"v": values[:5], "id": ids[:5]}, "b": {"v": values[5:]}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data))
    with pytest.raises(MmfuseError, match=r"'v' is in 2 groups, without ids in dev, train, .*`id`"):
        load_arrays(tmp_path / "x.h5")
    with pytest.raises(MmfuseError, match="'v' is in 2 groups, without ids in b,"):
        load_arrays(tmp_path / "x.pkl")
    assert load_arrays(tmp_path / "y.h5").ids is None


def test_ids_of_another_number_than_the_vectors_are_an_error(tmp_path):
    """One id for several vectors, or one too many."""
    np.savez(tmp_path / "x.npz", v=shuffled()[0], id=np.array(["s0", "s1"]))
    with pytest.raises(MmfuseError, match="2 ids are beside 8 vectors 'v'"):
        load_arrays(tmp_path / "x.npz")


def test_the_command_finds_the_column_of_ids_that_is_typed(tmp_path, monkeypatch):
    """`--id` names the column in the table and the one in the file; else ids are asked for."""
    monkeypatch.chdir(tmp_path)
    values, ids = shuffled(30)
    rows = {"Nr.": sorted(ids, key=lambda word: int(word[1:])), "label": ["a", "b"] * 15}
    pl.DataFrame({**rows, "text": [f"some words {n}" for n in range(30)]}).write_csv("own.csv")
    pl.DataFrame({"nr.": ids, "v": values.tolist()}).write_parquet("x.parquet")
    common = ["cache", "import", "x.parquet", "--stream", "x/audio", "--kind", "audio"]
    dataset = ["--dataset", "own.csv", "--name", "own"]
    done = CliRunner().invoke(app, [*common, *dataset])
    assert done.exit_code == 2
    assert "its ids may be in 'nr.'" in " ".join(done.output.split())
    done = CliRunner().invoke(app, [*common, *dataset, "--id", "Nr."])
    assert done.exit_code == 0, done.output
    assert "aligned by id; 0 samples have none" in " ".join(done.output.split())


def test_vectors_without_ids_go_by_order_if_their_number_fits(tmp_path):
    """.npy and .safetensors have no ids; a number that does not fit is an error."""
    values, _ = vectors()
    np.save(tmp_path / "x.npy", values.astype(np.float16))
    save_file({"image": values}, tmp_path / "x.safetensors")
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    for name in ("x.npy", "x.safetensors"):
        source = ImportSource(tmp_path / name, name[2:], "image", weights="random")
        done = import_arrays(store, samples_of(range(6)), source)
        assert done.aligned == "order"
        assert done.info.provenance["weights"] == "random"
        found = store.whole(done.info.key).values
        assert found.dtype == (np.float16 if name == "x.npy" else np.float32)
        assert np.array_equal(found, values.astype(found.dtype))
        with pytest.raises(MmfuseError, match="6 vectors, but there are 7"):
            import_arrays(store, samples_of(range(7)), source)


@pytest.mark.parametrize("how", ["padded", "offsets", "lengths", "objects"])
def test_sequences_come_padded_or_ragged(tmp_path, how):
    """(N, T, D), a flat array with offsets or lengths, and lists of arrays become sequences."""
    pieces = [np.full((n, 2), n, np.float32) for n in (1, 3, 2)]
    flat, store = np.concatenate(pieces), FeatureStore(Home(tmp_path / "home"), "toy")
    padded = np.stack([np.pad(p, ((0, 3 - len(p)), (0, 0))) for p in pieces])
    path = tmp_path / "x.npz"
    match how:
        case "padded":
            np.savez(path, v=padded, lengths=[1, 3, 2])
        case "offsets":
            np.savez(path, v=flat, offsets=[0, 1, 4, 6])
        case "lengths":
            np.savez(path, v=flat, lengths=[1, 3, 2])
        case "objects":
            path = tmp_path / "x.pkl"
            path.write_bytes(pickle.dumps({"v": pieces}))
    done = import_arrays(store, samples_of(range(3)), ImportSource(path, "x", "image", array="v"))
    found = store.whole(done.info.key)
    assert np.array_equal(found.values, flat)
    assert found.offsets.tolist() == [0, 1, 4, 6]


def test_imported_modalities_join_streams_that_are_there(tmp_path):
    """A modality that the table lacks is added for all, and extracting again keeps it."""
    rows = list(range(6))
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    fill(open_writer(store, rows), rows)
    values, ids = vectors()
    for modality in ("audio", "video"):
        np.savez(tmp_path / f"{modality}.npz", v=values, id=np.array(ids))
        source = ImportSource(tmp_path / f"{modality}.npz", "covarep", modality, modality)
        import_arrays(store, samples_of(rows), source)
    for _ in range(2):
        found = store.resolve(None)
        assert [i.key.name for i in found] == ["covarep/audio", "covarep/video", "toy/image"]
        names = [m.name for m in store.samples(found[0]).modalities]
        assert names == ["image", "audio", "video"]
        assert open_writer(store, rows).complete  # `extract` once more, with its own table
    with pytest.raises(MmfuseError, match="--kind"):
        import_arrays(store, samples_of(rows), ImportSource(tmp_path / "audio.npz", "x", "smell"))


def test_vectors_that_are_not_finite_fail_their_row(tmp_path):
    """NaN in a file is a failure with a reason, never a value."""
    values, _ = vectors()
    values[2, 1] = np.nan
    np.save(tmp_path / "x.npy", values)
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    done = import_arrays(
        store, samples_of(range(6)), ImportSource(tmp_path / "x.npy", "x", "image")
    )
    assert np.flatnonzero(store.whole(done.info.key).state == FAILED).tolist() == [2]
    assert store.failures(done.info.key)["reason"].to_list() == ["non-finite"]


@pytest.mark.parametrize(
    ("ids", "words"), [(["a"] * 6, "occur twice"), (list("abcdef"), "none of its ids")]
)
def test_ids_that_cannot_be_aligned_are_an_error(tmp_path, ids, words):
    """Doubled ids and ids of another dataset are refused before anything is written."""
    np.savez(tmp_path / "x.npz", v=vectors()[0], id=np.array(ids))
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    with pytest.raises(MmfuseError, match=words):
        import_arrays(store, samples_of(range(6)), ImportSource(tmp_path / "x.npz", "x", "image"))
    assert not (tmp_path / "home").exists()


def test_what_array_is_meant_is_asked_for(tmp_path):
    """Several arrays, an unknown name, an unknown suffix: the error lists what there is."""
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 3)), b=np.zeros((2, 3)))
    with pytest.raises(MmfuseError, match=r"2 arrays \(a, b\); name one with --array"):
        load_arrays(tmp_path / "x.npz")
    assert load_arrays(tmp_path / "x.npz", ".").ids == ["a", "b"]
    with pytest.raises(MmfuseError, match="no array 'c'; it has: a, b"):
        load_arrays(tmp_path / "x.npz", "c")
    (tmp_path / "x.mat").touch()
    with pytest.raises(MmfuseError, match=r"cannot import \.mat"):
        load_arrays(tmp_path / "x.mat")
    (tmp_path / "x.npy").write_bytes(b"nothing")
    with pytest.raises(MmfuseError, match="cannot be read"):
        load_arrays(tmp_path / "x.npy")


class Evil:
    """What a hostile pickle holds."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "touch /tmp/mmfuse-was-here"),
        Evil(eval, "1"),
        Evil(getattr, 1, "real"),
        Evil(np.load, "/etc/passwd"),
        Evil(np.fromfile, "/etc/passwd"),
        Evil(np.memmap, "/tmp/mmfuse-was-here"),
        Evil(pickle.loads, b"."),
        Evil(bytearray, 10),
    ],
)
def test_a_pickle_may_hold_numpy_and_nothing_else(tmp_path, evil):
    """Whatever it would call is named in the error, and not called."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"v": np.zeros((2, 2)), "evil": evil}))
    with pytest.raises(MmfuseError, match="only numpy arrays"):
        load_arrays(tmp_path / "x.pkl", "v")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_admitted(protocol):
    """Arrays, scalars, text, bytes and containers come back, whatever the protocol."""
    data = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "h": np.float16(2.5),
        "s": np.array(["a", "b"]),
        "o": np.array([np.zeros(2), None, "text"], dtype=object),
        "t": ("x", b"y", 1, 2.0, None, True, [1], {"k": 2}),
    }
    found = unpickle(pickle.dumps(data, protocol=protocol))
    assert np.array_equal(found["f"], data["f"])
    assert found["h"] == data["h"]
    assert found["s"].tolist() == ["a", "b"]
    assert found["o"][0].shape == (2,)
    assert found["o"].tolist()[1:] == [None, "text"]
    assert found["t"] == data["t"]


@pytest.mark.parametrize(
    ("name", "made", "words"),
    [
        ("x.npy", np.zeros((6, 2, 2, 2)), "an array of 4 axes holds no vectors"),
        ("x.npy", np.array(["a", "b"]), r"holds no vectors, .* it has an array of text \(2,\)"),
        ("x.npz", {"v": np.zeros((6, 2)), "id": np.array(list("abcdef"), object)}, "astype"),
        ("x.parquet", {"f0": [1.0], "f1": [2.0], "age": [3.0]}, r"--array, such as 'f\*'; it has"),
        ("x.parquet", {"id": ["a"], "word": ["b"]}, "it has: none of either"),
    ],
)
def test_files_without_plain_vectors_say_what_would_be_right(tmp_path, name, made, words):
    """Too many axes, text, objects and wide tables each have a message of one line."""
    path = tmp_path / name
    if name.endswith("parquet"):
        pl.DataFrame(made).write_parquet(path)
    elif name.endswith("npz"):
        np.savez(path, **made)
    else:
        np.save(path, made)
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    with pytest.raises(MmfuseError, match=words) as caught:
        import_arrays(store, samples_of(range(6)), ImportSource(path, "x", "image"))
    assert "\n" not in str(caught.value)


def test_an_import_with_failures_says_how_many_and_ends_with_1(tmp_path, monkeypatch):
    """NaN and infinity fail their rows: counted and named in the last line, exit code 1."""
    monkeypatch.chdir(tmp_path)
    ids = [f"s{row}" for row in range(30)]
    frame = {"id": ids, "text": [f"some words {row}" for row in ids], "label": ["a", "b"] * 15}
    pl.DataFrame(frame).write_csv("own.csv")
    values = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    np.savez("fine.npz", id=np.array(ids), v=values)
    values[3, 1], values[7, 2] = np.nan, np.inf
    np.savez("bad.npz", id=np.array(ids), v=values)
    common = ["--dataset", "own.csv", "--kind", "audio", "--name", "own"]
    ended = {}
    for file, stream in (("fine.npz", "x/audio"), ("bad.npz", "y/audio"), ("fine.npz", "z")):
        done = CliRunner().invoke(app, ["cache", "import", file, "--stream", stream, *common])
        ended[stream] = (done.exit_code, done.output)
    assert ended["x/audio"][0] == 0, ended["x/audio"][1]
    assert "failed" not in ended["x/audio"][1]
    assert ended["y/audio"][0] == 1
    assert "2 failed, of NaN or infinity (s3, s7)" in ended["y/audio"][1]
    assert ended["z"] == (2, ended["z"][1])
    assert "--stream z must be ENCODER/MODALITY" in ended["z"][1]


def save_npy(path, values):
    """One array."""
    np.save(path, values)


def save_npz(path, values):
    """Stored as it is, behind another member, columns first."""
    np.savez(path, note=np.arange(3), x=np.asfortranarray(values))


def save_hdf5(path, values):
    """In one piece."""
    with h5py.File(path, "w") as file:
        file.create_dataset("inner/x", data=values)


@pytest.mark.parametrize("save", [save_npy, save_npz, save_hdf5])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_an_import_never_holds_the_whole_file(tmp_path, dtype, save, monkeypatch):
    """Twenty to eighty megabytes are read block by block and written by shard."""
    monkeypatch.setattr("cache.format.grid.CHUNKS_PER_SHARD", 4)
    monkeypatch.setattr("cache.exchange.import_arrays._BLOCK", 1000)
    rows, width = 20_000, 512
    values = np.random.default_rng(0).standard_normal((rows, width), np.float32).astype(dtype)
    path = tmp_path / f"x.{save.__name__.removeprefix('save_')}"
    save(path, values)
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    samples = samples_of(range(rows))
    tracemalloc.start()
    try:
        array = None if save is save_npy else "x"
        source = ImportSource(path, "wavlm", "image", array=array, weights="random")
        found = import_arrays(store, samples, source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    stored = store.whole(found.info.key).values
    assert np.array_equal(stored, values.astype(stored.dtype))
    assert peak < 0.8 * stored.nbytes


def test_a_large_array_whose_bytes_changed_is_not_read(tmp_path, monkeypatch):
    """A mapped member of an .npz is compared with its checksum, as a small one is."""
    monkeypatch.setattr("cache.exchange.array_files._MAPPED", 1000)
    np.savez(tmp_path / "x.npz", x=np.arange(3000.0).reshape(-1, 3))
    assert np.array_equal(load_arrays(tmp_path / "x.npz").rows[:, 0], np.arange(0, 3000.0, 3))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[5000] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(MmfuseError, match=r"cannot be read.*CRC"):
        load_arrays(tmp_path / "x.npz")
