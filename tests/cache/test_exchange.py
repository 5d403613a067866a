"""In and out: HDF5 and packs; exact, and safe."""

import io
import json
import stat
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import fill, key_of, open_writer, shrink, spec_of

from cache.errors import MmfuseError
from cache.exchange.array_files import load_arrays
from cache.exchange.hdf5 import export_hdf5, import_hdf5
from cache.exchange.pack import pack
from cache.exchange.unpack import unpack
from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.verify import verify
from cache.storage.objects import pack_record
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import build_encoder
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions

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


def test_progress_counts_every_part_once(home, tmp_path):
    """Out and in again: as many blocks, members and shards as are announced, stream by stream."""
    seen = {}

    def track(items, label, total):
        items = list(items)
        assert label not in seen
        seen[label] = (len(items), total)
        yield from items

    store, other, third = (
        FeatureStore(home, "group/toy"),
        Home(tmp_path / "2"),
        Home(tmp_path / "3"),
    )
    export_hdf5(store, tmp_path / "toy.h5", track=track)
    pack(home, tmp_path / "toy.pack", track=track)
    assert list(seen) == [
        f"{verb} {info.key.name} of group/toy: blocks"
        for verb in ("export", "pack")
        for info in store.streams()
    ]
    import_hdf5(other, tmp_path / "toy.h5", track=track)
    written = [f"write {info.key.name} of group/toy: shards" for info in store.streams()]
    assert list(seen)[4:] == written
    for label in written:
        assert seen.pop(label)[0] > 1
    unpack(third, tmp_path / "toy.pack", track=track)
    assert list(seen)[4:] == ["check toy.pack: members", *written]
    assert all(count == total for count, total in seen.values())


def test_rows_without_a_group_keep_none_in_hdf5(tmp_path):
    """A row alone is in no group; HDF5 has an empty word for it."""
    rows = [
        f"s{n},{'ab'[n % 2]} word {n},{'' if n % 3 else 'g' + str(n)},{n % 2}" for n in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id,words,family,label", *rows]) + "\n")
    options = TableOptions(name="t", group="family")
    (dataset,) = open_dataset(str(tmp_path / "t.csv"), table=options)
    homes = [Home(tmp_path / name) for name in ("one", "two")]
    extract(dataset, [build_encoder("hashing")], home=homes[0], options=ExtractOptions(workers=0))
    export_hdf5(FeatureStore(homes[0], "t"), tmp_path / "t.h5")
    import_hdf5(homes[1], tmp_path / "t.h5")
    groups = []
    for home in homes:
        store = FeatureStore(home, "t")
        groups.append(store.samples(store.streams()[0]).groups.tolist())
    assert groups[0] == groups[1]
    assert groups[0][:4] == ["g0", None, None, "g3"]


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
