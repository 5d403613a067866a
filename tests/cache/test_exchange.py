"""In and out: HDF5, arrays of other people, and packs; exact, aligned by id, and safe."""

import io
import json
import os
import pickle
import stat
import tarfile
import zipfile

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from store_rows import fill, key_of, open_writer, samples_of, shrink, spec_of
from typer.testing import CliRunner

from cache.errors import MmfuseError
from cache.exchange.array_files import load_arrays, unpickle
from cache.exchange.hdf5 import export_hdf5, import_hdf5
from cache.exchange.import_arrays import ImportSource, import_arrays
from cache.exchange.pack import pack
from cache.exchange.unpack import unpack
from cache.feature_store import FeatureStore
from cache.format.streams import FAILED
from cache.layout import Home
from cache.maintenance.verify import verify
from cache.storage.objects import pack_record
from mmfuse_cli.main import app

INPUTS = [i % 40 if i % 7 else None for i in range(120)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a pooled and a sequence stream; rows absent, failed and equal."""
    shrink(monkeypatch.setattr)
    home = Home(tmp_path / "artifacts")
    store = FeatureStore(home, "group/toy")
    fill(open_writer(store, INPUTS), INPUTS, fails=[5])
    sequence = {"key": key_of("s", "audio"), "spec": spec_of(sequence=True, dtype="float16")}
    fill(open_writer(store, INPUTS, **sequence), INPUTS)
    return home


def assert_equal_stores(one, two):
    """Streams, values, states, failures and samples are the same to the bit."""
    assert [i.key for i in one.streams()] == [i.key for i in two.streams()]
    for a, b in zip(one.streams(), two.streams(), strict=True):
        assert (a.counts, a.fields, a.provenance, a.kind) == (
            b.counts,
            b.fields,
            b.provenance,
            b.kind,
        )
        assert a.snapshot == b.snapshot
        left, right = one.whole(a.key), two.whole(b.key)
        assert left.values.tobytes() == right.values.tobytes()
        assert left.state.tolist() == right.state.tolist()
        if a.sequence:
            assert left.offsets.tolist() == right.offsets.tolist()
        assert one.failures(a.key).equals(two.failures(b.key))
        assert np.array_equal(one.reader(a.key).small().inputs, two.reader(b.key).small().inputs)


def test_hdf5_out_and_in_is_the_same(home, tmp_path):
    """Exported and imported into another home, nothing differs; a second import does nothing."""
    store = FeatureStore(home, "group/toy")
    assert len(export_hdf5(store, tmp_path / "toy.h5")) == 2
    other = Home(tmp_path / "other")
    name, streams = import_hdf5(other, tmp_path / "toy.h5")
    assert (name, len(streams)) == (store.dataset, 2)
    assert_equal_stores(store, FeatureStore(other, "group/toy"))
    import_hdf5(other, tmp_path / "toy.h5")
    assert verify(other).damages == ()
    assert len(list((other.root / "features").rglob("stream.json"))) == 2


def test_the_layout_of_hdf5_is_as_documented(home, tmp_path):
    """Any HDF5 reader finds ids and values where the documentation says."""
    store = FeatureStore(home, "group/toy")
    export_hdf5(store, tmp_path / "toy.h5", ["toy/image"])
    with h5py.File(tmp_path / "toy.h5") as file:
        assert file.attrs["format"] == "mmfuse-features"
        assert file["samples/id"].asstr()[3] == "s3"
        group = file[f"streams/{key_of().label}"]
        assert json.loads(group.attrs["fields"]) == {"toy": 1}
        assert np.array_equal(group["values"][:], store.whole(key_of()).values, equal_nan=True)
        assert group["present"].dtype == bool


def test_other_hdf5_files_are_refused_with_a_way_on(tmp_path):
    """No HDF5, foreign HDF5 and no file at all give different errors."""
    (tmp_path / "no.h5").write_bytes(b"no")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((3, 2))
    home = Home(tmp_path / "home")
    for name, words in {
        "no.h5": "not an HDF5",
        "other.h5": "--array",
        "gone.h5": "no such",
    }.items():
        with pytest.raises(MmfuseError, match=words):
            import_hdf5(home, tmp_path / name)


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


def test_a_pack_brings_everything_and_no_raw_data(home, tmp_path):
    """Unpacked in an empty home, nothing differs; packing again gives the same bytes."""
    done = pack(home, tmp_path / "toy.mmfuse", licences={"group/toy": "CC0, for tests"})
    assert done.bytes == (tmp_path / "toy.mmfuse").stat().st_size
    other = Home(tmp_path / "other")
    out = unpack(other, tmp_path / "toy.mmfuse")
    assert out.licences == {"group/toy": "CC0, for tests"}
    assert_equal_stores(FeatureStore(home, "group/toy"), FeatureStore(other, "group/toy"))
    assert verify(other).damages == ()
    pack(other, tmp_path / "again.mmfuse", licences={"group/toy": "CC0, for tests"})
    assert (tmp_path / "again.mmfuse").read_bytes() == (tmp_path / "toy.mmfuse").read_bytes()
    unpack(other, tmp_path / "toy.mmfuse")  # what is there stays
    with pytest.raises(MmfuseError, match="mmfuse extract"):
        pack(Home(tmp_path / "empty"), tmp_path / "x")


def members(path):
    """Names, infos and bytes of a pack."""
    with zipfile.ZipFile(path) as file:
        return [(info, file.read(info)) for info in file.infolist()]


def rewritten(path, change):
    """The pack with some of its members changed, digests and all where the change does that."""
    data = change(members(path))
    hostile = path.with_name("hostile.mmfuse")
    with zipfile.ZipFile(hostile, "w") as file:
        for info, content in data:
            file.writestr(info, content)
    return hostile


def announced(data, name, content):
    """Members with one more, which the manifest announces as if it belonged there."""
    import hashlib

    about = json.loads(data[-1][1])
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    about["members"][name] = [len(content), digest]
    del about["check"]
    return [*data[:-1], (data[-1][0], pack_record(about))]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/evil",
        "../evil",
        "d0/../../evil",
        "d0/s0/evil.sh",
        "d0\\s0\\values.npy",
        "C:/evil",
        "d0/s0/",
    ],
)
def test_names_that_lead_elsewhere_are_refused(home, tmp_path, name):
    """Absolute paths, `..`, drives, folders and unknown names: nothing at all is written."""
    pack(home, tmp_path / "toy.mmfuse")

    def change(data):
        return [*announced(data, name, b"evil"), (zipfile.ZipInfo(name), b"evil")]

    assert_refused(rewritten(tmp_path / "toy.mmfuse", change), tmp_path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(home, tmp_path, kind):
    """A member that says it is no plain file is none of ours."""
    pack(home, tmp_path / "toy.mmfuse")

    def change(data):
        data[1][0].external_attr = (kind | 0o777) << 16
        return data

    assert_refused(rewritten(tmp_path / "toy.mmfuse", change), tmp_path)


def assert_refused(path, tmp_path):
    """An error, and no file anywhere."""
    with pytest.raises(MmfuseError):
        unpack(Home(tmp_path / "victim"), path)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("method", ["stated", "header", "bzip2"])
def test_an_npz_that_states_more_than_it_holds_is_refused(tmp_path, method):
    """Arrays longer than their bytes, members longer than deflating allows, and other packing."""
    head = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 4)}
    np.lib.format.write_array_header_1_0(head, header)
    if method != "header":
        head = io.BytesIO()
        np.save(head, np.zeros((2000, 50)))
    how = zipfile.ZIP_BZIP2 if method == "bzip2" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "x.npz", "w", how) as archive:
        archive.writestr("v.npy", head.getvalue())
    if method == "stated":
        data = bytearray((tmp_path / "x.npz").read_bytes())
        at = data.rindex(b"PK\x01\x02") + 24  # the stated size in the directory
        data[at : at + 4] = (1 << 31).to_bytes(4, "little")
        (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(MmfuseError, match=r"x\.npz cannot be read: v\.npy"):
        load_arrays(tmp_path / "x.npz")


def test_bombs_are_refused(home, tmp_path):
    """Compressed members, members that overlap, and arrays longer than their bytes."""
    pack(home, tmp_path / "toy.mmfuse")

    def compress(data):
        data[1][0].compress_type = zipfile.ZIP_DEFLATED
        return data

    assert_refused(rewritten(tmp_path / "toy.mmfuse", compress), tmp_path)

    def enlarge(data):
        about = json.loads(data[-1][1])
        at = next(i for i, (info, _) in enumerate(data) if info.filename == "d0/s0/state.npy")
        head = io.BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(head, header)
        data[at] = (data[at][0], head.getvalue())
        del about["members"]["d0/s0/state.npy"]
        data[-1] = (data[-1][0], json.dumps(about).encode())
        return announced(data, "d0/s0/state.npy", head.getvalue())

    assert_refused(rewritten(tmp_path / "toy.mmfuse", enlarge), tmp_path)
    data = bytearray((tmp_path / "toy.mmfuse").read_bytes())
    first, second = (
        data.find(b"PK\x01\x02"),
        data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 1),
    )
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # both at one offset
    (tmp_path / "overlap.mmfuse").write_bytes(data)
    assert_refused(tmp_path / "overlap.mmfuse", tmp_path)


def test_other_archives_are_refused(tmp_path):
    """A tar file, a strange ZIP file, an empty file and nothing: one line each."""
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.addfile(tarfile.TarInfo("../evil"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("manifest.json", "{}")
    (tmp_path / "empty").touch()
    for name in ("x.tar", "x.zip", "empty", "gone"):
        assert_refused(tmp_path / name, tmp_path)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_no_changed_bit_of_a_pack_goes_unseen(packed, tmp_path_factory, at, bit):
    """A flipped bit is refused, or it was in a date or a comment and changes nothing."""
    path, whole = packed
    data = bytearray(whole)
    data[at % len(data)] ^= 1 << bit
    folder = tmp_path_factory.mktemp("flipped")
    (folder / "x.mmfuse").write_bytes(data)
    try:
        unpack(Home(folder / "home"), folder / "x.mmfuse")
    except MmfuseError:
        assert not (folder / "home").exists()
    else:
        assert_equal_stores(FeatureStore(path, "toy"), FeatureStore(Home(folder / "home"), "toy"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A small home and the bytes of its pack."""
    folder = tmp_path_factory.mktemp("packed")
    home = Home(folder / "home")
    rows = list(range(5))
    fill(open_writer(FeatureStore(home, "toy"), rows), rows)
    pack(home, folder / "x.mmfuse")
    return home, (folder / "x.mmfuse").read_bytes()


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
