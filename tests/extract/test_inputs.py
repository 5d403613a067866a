"""Row identities: equal where, and only where, what would be decoded is equal."""

import datetime
import os
import time
import zipfile
from hashlib import blake2b

import numpy as np
import polars as pl
import pytest

from cache.fingerprints import digest
from cache.samples import Modality, Task
from cache.storage.file_digests import DigestMemory
from pipelines.data.dataset import Dataset
from pipelines.extract.input_digests import _cells, input_digests
from pipelines.media import cells as reading

OLD_NS = 1_600_000_000_000_000_000


def dataset(kind, cells, root=None, dtype=None):
    """A dataset of one modality `m`; few cells are filled up with the last one to four rows."""
    cells = pl.Series([*cells, *[cells[-1]] * (4 - len(cells))], dtype=dtype)
    count = len(cells)
    table = pl.DataFrame(
        {
            "id": [f"s{row}" for row in range(count)],
            "split": [*["train"] * (count - 2), "val", "test"],
            "target": [row % 2 for row in range(count)],
            "m": cells,
        }
    )
    return Dataset("d", table, (Modality("m", kind),), Task("classes", ("a", "b")), root)


@pytest.fixture
def memory(tmp_path):
    """An empty memory of digests."""
    return DigestMemory(tmp_path / "meta" / "digests.parquet")


def rows(found):
    """Each row's digest as bytes."""
    return [row.tobytes() for row in found.digests]


RECORDS = [
    {"age": 1.5, "name": "a", "day": datetime.date(2020, 1, 2), "ok": True, "n": 3},
    {"age": 1.5, "name": "a", "day": datetime.date(2020, 1, 2), "ok": True, "n": 3},
    {"age": None, "name": "a", "day": datetime.date(2020, 1, 2), "ok": True, "n": 3},
    {"age": float("nan"), "name": "a", "day": datetime.date(2020, 1, 2), "ok": True, "n": 3},
    {"age": 0.0, "name": "a", "day": datetime.date(2020, 1, 2), "ok": True, "n": 3},
    {"age": 1.5, "name": None, "day": datetime.date(2020, 1, 2), "ok": True, "n": 3},
    {"age": 1.5, "name": "-", "day": datetime.date(2020, 1, 3), "ok": True, "n": 3},
    {"age": 1.5, "name": "a", "day": datetime.date(2020, 1, 2), "ok": False, "n": 3},
    {"age": 1.5, "name": "a", "day": datetime.date(2020, 1, 2), "ok": True, "n": 4},
]
SERIES = [[1.0, 2.0], [1.0], [2.0, 1.0], [1.0, 2.0], [0.0, 1.0, 2.0], [1.0]]


def test_digests_of_records_stay_what_they_are():
    """Another digest for the same cells would encode every stored table again."""
    utc = datetime.UTC
    frame = pl.DataFrame(
        {
            "b": [1, None, 3],
            "a": [0.5, float("nan"), None],
            "w": ["x", None, "zz"],
            "d": [datetime.date(2020, 1, 2), None, datetime.date(1960, 5, 6)],
            "t": [True, None, False],
            "u": pl.Series([1, 2, None], dtype=pl.UInt8),
            "f": pl.Series([1.5, None, 2.5], dtype=pl.Float32),
            "m": [datetime.datetime(2020, 1, 2, 3, tzinfo=utc), None, None],
        }
    )
    found = blake2b(digest_size=8)
    for columns in (frame, frame.select("w"), frame.select("b")):
        found.update(b"".join(_cells(columns.to_struct("record"), "tabular")))
    assert found.hexdigest() == "ee50a816078e8f50"


@pytest.mark.parametrize(
    ("kind", "cells", "dtype"),
    [
        ("text", ["a", "b", "a", " ", "ä", "a ", "b"], None),
        ("code", ["x = 1", "x = 2", "x = 1"], None),
        ("image", [b"1", b"2", b"1", b""], None),
        ("tabular", RECORDS, None),
        ("series", SERIES, pl.List(pl.Float32)),
        ("series", [*SERIES, [1.0, None], [None, 1.0]], pl.List(pl.Float32)),
        ("series", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0]]], pl.List(pl.List(pl.Float32))),
    ],
)
def test_two_cells_of_the_table_are_one_input_where_their_bytes_are_one(memory, kind, cells, dtype):
    """Rows agree in their digest exactly where `reading.raw` gives the same bytes."""

    def naive(cell):
        try:
            return reading.raw(kind, cell, None)
        except reading.Unreadable as fault:
            return str(fault), repr(cell)

    source = dataset(kind, cells, dtype=dtype)
    found = rows(input_digests(source, source.modalities[0], memory))
    expected = [naive(cell) for cell in source.table["m"]]
    for one in range(len(cells)):
        for two in range(len(cells)):
            assert (found[one] == found[two]) == (expected[one] == expected[two])


def test_the_digest_of_text_is_that_of_its_bytes(memory):
    """Text keeps one identity over datasets and versions: blake2b of its UTF-8, by kind."""
    source = dataset("text", ["één", "b", "c"])
    assert rows(input_digests(source, source.modalities[0], memory))[0] == digest(
        "text", "één".encode()
    )


def test_a_series_keeps_its_digest_whatever_its_neighbours_are(memory):
    """A null, a NaN or an empty list elsewhere in the column changes no other row's identity."""
    plain, odd = [[1.0, 2.0], [3.0], [], [4.0]], [[None, 1.0], [float("nan")], [1.0, None], None]
    kind, dtype = "series", pl.List(pl.Float32)
    alone = dataset(kind, plain, dtype=dtype)
    mixed = dataset(kind, [*plain, *odd], dtype=dtype)
    first = rows(input_digests(alone, alone.modalities[0], memory))
    assert rows(input_digests(mixed, mixed.modalities[0], memory))[:4] == first
    assert first[0] == digest(kind, reading.raw(kind, [1.0, 2.0], None))


def test_absent_cells_are_zeros_and_said_to_be_absent(memory):
    """Null is absent, an empty text is there (and unreadable); neither moves a row."""
    source = dataset("text", [None, "", "c"])
    found = input_digests(source, source.modalities[0], memory)
    assert found.absent.tolist() == [True, False, False, False]
    assert rows(found)[0] == bytes(16)
    assert rows(found)[2] == digest("text", b"c")


@pytest.fixture
def folder(tmp_path):
    """Files below a root, two of them inside an archive, all with old modification times."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.png").write_bytes(b"one")
    (root / "b.png").write_bytes(b"one")
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.writestr("images/c.png", b"three")
        archive.writestr("images/d.png", b"four")
    for path in root.iterdir():
        os.utime(path, ns=(OLD_NS, OLD_NS))
    return root


CELLS = ["a.png", "images/c.png", None, "b.png", "images/d.png", "a.png", "no.png", "../a.png"]


def test_files_and_members_have_the_digest_of_their_bytes(memory, folder):
    """Equal bytes are one input whatever the file is called and wherever it lies."""
    source = dataset("image", CELLS, folder)
    found = rows(input_digests(source, source.modalities[0], memory))
    one, three, four = (digest("image", data) for data in (b"one", b"three", b"four"))
    assert found[:6] == [one, three, bytes(16), one, four, one]
    assert len(set(found)) == 6


def test_files_that_did_not_change_are_not_opened_again(memory, folder, monkeypatch):
    """A second run takes digests from the memory; only what could not be read is tried again."""
    source = dataset("image", CELLS, folder)
    first = rows(input_digests(source, source.modalities[0], memory))
    opened = []
    monkeypatch.setattr(
        "pipelines.extract.input_digests.raw",
        lambda kind, cell, root: opened.append(cell) or reading.raw(kind, cell, root),
    )
    again = rows(input_digests(source, source.modalities[0], DigestMemory(memory.path)))
    assert again == first
    assert sorted(opened) == ["../a.png", "no.png"]


def test_paths_in_other_forms_are_remembered_too(memory, folder, monkeypatch):
    """Absolute paths, those of Windows and file URLs are read once, members of archives too."""
    cells = [".\\a.png", str(folder / "b.png"), (folder / "a.png").as_uri(), "images\\c.png"]
    source = dataset("image", cells, folder)
    first = rows(input_digests(source, source.modalities[0], memory))
    assert first[0] == first[2] == digest("image", (folder / "a.png").read_bytes())
    opened = []
    monkeypatch.setattr(
        "pipelines.extract.input_digests.raw",
        lambda kind, cell, root: opened.append(cell) or reading.raw(kind, cell, root),
    )
    again = rows(input_digests(source, source.modalities[0], DigestMemory(memory.path)))
    assert again == first
    assert opened == []


@pytest.mark.parametrize("name", ["a.png", "images.zip"])
def test_a_file_that_changed_is_read_again_and_no_other(memory, folder, monkeypatch, name):
    """A new modification time re-reads that file, or the members of that archive, alone."""
    source = dataset("image", CELLS[:5], folder)
    input_digests(source, source.modalities[0], memory)
    os.utime(folder / name, ns=(OLD_NS + 1, OLD_NS + 1))
    opened = []
    monkeypatch.setattr(
        "pipelines.extract.input_digests.raw",
        lambda kind, cell, root: opened.append(cell) or reading.raw(kind, cell, root),
    )
    input_digests(source, source.modalities[0], DigestMemory(memory.path))
    expected = ["a.png"] if name == "a.png" else ["images/c.png", "images/d.png"]
    assert sorted(opened) == expected


def test_a_file_takes_precedence_over_a_member_that_it_hides(memory, folder):
    """Unpacking an archive beside it changes which bytes are read, and the identity follows."""
    source = dataset("image", ["images/c.png", "a.png", "b.png"], folder)
    input_digests(source, source.modalities[0], memory)
    (folder / "images").mkdir()
    (folder / "images" / "c.png").write_bytes(b"other")
    found = rows(input_digests(source, source.modalities[0], DigestMemory(memory.path)))
    assert found[0] == digest("image", b"other")


def test_interrupted_reading_keeps_what_was_read(memory, folder):
    """Ctrl-C while files are being read costs none of the digests taken before it."""

    def stop_after_two(items, label, total):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    source = dataset("image", CELLS[:5], folder)
    with pytest.raises(KeyboardInterrupt):
        input_digests(source, source.modalities[0], memory, stop_after_two)
    assert len(pl.read_parquet(memory.path)) == 2


def test_a_file_written_this_moment_is_not_trusted_later(memory, tmp_path, monkeypatch):
    """A file changed within the clock tick of its reading, keeping size and time, is noticed."""
    path = tmp_path / "new.png"
    path.write_bytes(b"one")
    state = path.stat()
    monkeypatch.setattr(time, "time_ns", lambda: state.st_mtime_ns + 1)
    source = dataset("image", ["new.png", "x", "y"], tmp_path)
    first = rows(input_digests(source, source.modalities[0], memory))
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = rows(input_digests(source, source.modalities[0], DigestMemory(memory.path)))
    assert again[0] != first[0]


def test_records_are_known_by_columns_and_not_one_by_one(memory):
    """Identities of 10,000 records of 33 fields take less than half of what their JSON takes."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"f{k}": rng.normal(size=10_000) for k in range(33)})
    source = dataset("tabular", frame.to_struct("m"))
    start = time.process_time()
    found = input_digests(source, source.modalities[0], memory)
    columns = time.process_time() - start
    start = time.process_time()
    for cell in source.table["m"]:
        reading.raw("tabular", cell, None)
    assert columns < (time.process_time() - start) / 2
    assert len(np.unique(found.digests, axis=0)) == 10_000
