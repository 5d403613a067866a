"""Reading: every kind of cell becomes its payload, every fault becomes its reason."""

import contextlib
import os
import pickle
import unicodedata
import zipfile
from concurrent.futures import ProcessPoolExecutor
from datetime import date, datetime
from multiprocessing import get_context

import numpy as np
import polars as pl
import pytest
from encoded import film_bytes, image_bytes, sound_bytes, why
from hypothesis import given
from hypothesis import strategies as st

from pipelines.media import cells
from pipelines.media.payloads import Unreadable
from pipelines.media.video import decode_frames


def test_a_picture_is_read_the_same_from_a_file_a_zip_and_bytes(tmp_path, noise):
    """Files, members of a sibling archive (with or without the folder's name) and bytes agree."""
    data = image_bytes(noise)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("b/x.png", data)
        archive.writestr("y.png", data)
    for cell in ("a/x.png", str(tmp_path / "a/x.png"), "b/x.png", "b/y.png", data):
        assert cells.raw("image", cell, tmp_path) == data
        assert np.array_equal(cells.read("image", cell, tmp_path), noise)


@pytest.mark.parametrize("cell", ["../x.png", "a/../../x.png", "/etc/passwd", "../root2/x"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path, cell):
    """`..` and absolute paths elsewhere give outside-root, whether or not a file is there."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "x.png").write_bytes(b"secret")
    assert why("image", cell, root) == "outside-root"


def test_what_is_no_file_has_its_reason(tmp_path):
    """Folders, absent files, absent members, roots that are not there: one word each."""
    (tmp_path / "folder.png").mkdir()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.mkdir("z/folder")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    assert why("image", "folder.png", tmp_path) == "directory"
    assert why("image", ".", tmp_path) == "directory"
    assert why("image", "z/folder/", tmp_path) == "missing-file"
    assert why("image", "none.png", tmp_path) == "missing-file"
    assert why("image", "z/none.png", tmp_path) == "missing-file"
    assert why("image", "bad/x.png", tmp_path) == "bad-archive"
    assert why("image", "x\0.png", tmp_path) == "missing-file"
    assert why("image", "", tmp_path) == "missing-file"
    assert why("image", "x.png", None) == "missing-file"
    assert why("image", 3.5, tmp_path) == "wrong-type"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_has_its_reason(tmp_path):
    """A file without read permission fails its own cell, with that reason."""
    path = tmp_path / "x.png"
    path.write_bytes(b"x")
    path.chmod(0)
    assert why("image", "x.png", tmp_path) == "permission"


def test_a_damaged_member_of_an_archive_has_its_reason(tmp_path):
    """The archive's own checksum finds a flipped bit before any decoder sees it."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("z/x.txt", b"a" * 1000)
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[200] ^= 1
    (tmp_path / "z.zip").write_bytes(data)
    assert why("image", "z/x.txt", tmp_path) == "bad-archive"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_may_grow_without_limit_are_not_unpacked(tmp_path, method):
    """A kilobyte of bzip2 may hold gigabytes; deflated members are read, a thousandfold at most."""
    for name, how in (("z", method), ("y", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", how) as archive:
            archive.writestr("x.png", bytes(1_000_000))
    assert why("image", "z/x.png", tmp_path) == "bad-archive"
    assert cells.raw("image", "y/x.png", tmp_path) == bytes(1_000_000)


def test_an_archive_that_changed_is_opened_anew(tmp_path):
    """A cached handle never serves the members of a file that has been replaced."""
    for text in (b"one", b"another"):
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            archive.writestr("z/x", text)
        assert cells.raw("image", "z/x", tmp_path) == text


def test_archives_are_read_by_spawned_workers(tmp_path, noise):
    """Nothing that reading keeps open has to travel to another process."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("z/x.png", image_bytes(noise))
    expected = cells.raw("image", "z/x.png", tmp_path)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(cells.raw, "image", "z/x.png", tmp_path).result(60) == expected


def test_a_fault_survives_the_way_from_a_worker():
    """Unreadable pickles with its reason, detail and whether to try again."""
    fault = pickle.loads(pickle.dumps(Unreadable("io", "disk", transient=True)))
    assert (fault.reason, fault.detail, fault.transient) == ("io", "disk", True)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_sound_is_mono_at_its_own_rate(kind):
    """Two channels are averaged; the rate is the file's; the tone is still there."""
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    wave = cells.decode("audio", sound_bytes(np.stack([tone, 0 * tone], 1), 8000, kind))
    assert (wave.rate, wave.samples.dtype, wave.samples.ndim) == (8000, np.float32, 1)
    spectrum = np.abs(np.fft.rfft(wave.samples))
    assert abs(np.argmax(spectrum) * 8000 / len(wave.samples) - 440) < 2
    assert np.abs(wave.samples).max() == pytest.approx(0.25, abs=0.03)


def test_bad_sound_has_its_reason(tmp_path):
    """Empty, NaN and truncated audio, and what is no audio at all."""
    assert why("audio", sound_bytes(np.zeros(0))) == "empty"
    bad = np.zeros(100, np.float32)
    bad[50] = np.nan
    assert why("audio", sound_bytes(bad, subtype="FLOAT")) == "non-finite"
    flac = sound_bytes(np.random.default_rng(0).uniform(-1, 1, 60_000), 8000, "FLAC")
    assert why("audio", flac[: len(flac) // 2]) in {"truncated", "damaged"}
    wav = sound_bytes(np.zeros(1000))
    assert why("audio", wav[: len(wav) // 2]) == "truncated"
    assert why("audio", b"no sound in here") == "wrong-type"
    assert why("audio", b"") == "empty"


def test_a_wav_written_to_a_pipe_may_not_know_its_length():
    """A WAV whose header states the largest length is read as far as it goes."""
    wav = bytearray(sound_bytes(np.zeros(1000)))
    place = wav.index(b"data") + 4
    wav[place : place + 4] = b"\xff" * 4
    assert len(cells.read("audio", bytes(wav), None).samples) == 1000


def test_a_pipe_or_a_device_in_place_of_a_file_is_a_reason_and_not_a_wait(tmp_path):
    """Neither a pipe that nobody writes to nor an endless device holds the reader up."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    assert why("image", "pipe.png", tmp_path) == "wrong-type"
    assert why("image", "zeros.png", tmp_path) == "wrong-type"


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "WAV", "FLAC", "OGG"]
)
def test_damaged_bytes_are_a_reason_and_never_a_crash(noise, kind):
    """Two hundred damages of each format decode or are Unreadable; nothing else is raised."""
    numbers = np.random.default_rng(0)
    sound = kind in {"WAV", "FLAC", "OGG"}
    whole = sound_bytes(numbers.uniform(-1, 1, 3000), 8000, kind) if sound else None
    whole = whole or image_bytes(noise, kind)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(numbers.integers(1, 12)):
            end = len(data) if numbers.random() < 0.5 else 80  # headers matter most
            data[numbers.integers(end)] = numbers.integers(256)
        with contextlib.suppress(Unreadable):
            cells.decode("audio" if sound else "image", bytes(data))


def test_a_video_decodes_frames_when_asked_for():
    """Frames are counted, and as many as are wanted are decoded, or all that there are."""
    frames = cells.decode("video", film_bytes(7))
    assert (frames.count, frames.rate) == (7, 10)
    greys = [np.asarray(p).mean() for p in decode_frames(frames, 3)]
    assert greys == pytest.approx([0, 60, 120], abs=6)
    assert len(list(decode_frames(frames, 15))) == 7


def test_what_is_not_a_video_has_its_reason():
    """Text and audio are no video."""
    pytest.importorskip("av")
    assert why("video", b"no film in here") == "wrong-type"
    assert why("video", sound_bytes(np.zeros(100))) == "wrong-type"


@given(st.text().filter(str.strip))
def test_text_is_itself(text):
    """Any Unicode text survives its bytes, the word None included."""
    assert cells.read("text", text, None) == text
    assert cells.read("code", text, None) == text


def test_text_that_is_none_has_its_reason():
    """Blank text is empty, a number is no text, stray bytes are no UTF-8."""
    assert why("text", "  \n") == "empty"
    assert why("text", 7) == "wrong-type"
    assert why("text", b"\xff\xfe") == "wrong-type"


def test_a_record_keeps_its_types():
    """Numbers, words, truths, dates and what is missing come back as they were."""
    record = {
        "b": 1.5, "a": 2, "word": "None", "yes": True, "gap": None, "nan": float("nan"),
        "day": date(2020, 2, 29), "moment": datetime(2020, 2, 29, 12, 30),
    }  # fmt: skip
    back = cells.read("tabular", record, None)
    assert back == record | {"nan": None}
    assert type(back["moment"]) is datetime
    assert type(back["day"]) is date


def test_a_record_is_identified_by_its_fields_not_their_order():
    """The same fields in another order have the same bytes; another value has others."""
    one = cells.raw("tabular", {"a": 1, "b": 2}, None)
    assert one == cells.raw("tabular", {"b": 2, "a": 1}, None)
    assert one != cells.raw("tabular", {"a": 1, "b": 3}, None)


def test_a_record_without_values_is_absent():
    """Null cells and records of nulls are absent; one value makes a record present."""
    column = pl.Series(
        [{"a": 1.0, "b": "x"}, {"a": None, "b": None}, None, {"a": float("nan"), "b": None},
         {"a": None, "b": "y"}],
    )  # fmt: skip
    assert cells.absent(column, "tabular").tolist() == [False, True, True, True, False]
    assert cells.absent(pl.Series(["x", None]), "text").tolist() == [False, True]
    assert why("tabular", {"a": None}) == "empty"
    assert why("tabular", {"a": float("inf")}) == "non-finite"
    assert why("tabular", {"a": [1]}) == "wrong-type"


def test_a_series_keeps_its_shape_and_its_gaps():
    """(T,) becomes (T, 1), (T, V) stays, null is a gap and NaN is a fault."""
    assert cells.read("series", [1.0, None, 3.0], None).tolist()[::2] == [[1], [3]]
    assert np.isnan(cells.read("series", [1.0, None, 3.0], None)[1, 0])
    square = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(cells.read("series", square.tolist(), None), square)
    assert np.array_equal(cells.read("series", pl.Series([1.0, 2.0]), None), [[1], [2]])
    assert why("series", [1.0, float("nan")]) == "non-finite"
    assert why("series", []) == "empty"
    assert why("series", [None, None]) == "empty"
    assert why("series", [[1, 2], [3]]) == "wrong-type"
    assert why("series", ["a"]) == "wrong-type"
    assert why("series", "1 2 3") == "wrong-type"


def test_a_series_of_monstrous_length_is_refused(monkeypatch):
    """Times and variables count together, before anything is made of them."""
    monkeypatch.setattr(cells, "MAX_SERIES", 100)
    assert why("series", [0.5] * 101) == "too-large"
    assert why("series", [[1, 2, 3]] * 34) == "too-large"
    assert cells.read("series", [[1, 2, 3, 4]] * 25, None).shape == (25, 4)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_name_is_found_in_either_unicode_form_and_with_blanks_around(tmp_path, stored, asked):
    """They look the same, and copies between systems change the form."""
    name = "caf\u00e9/\u00fcber.png"
    path = tmp_path / unicodedata.normalize(stored, name)
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert cells.raw("image", unicodedata.normalize(asked, name), tmp_path) == b"x"
    assert cells.raw("image", f" {unicodedata.normalize(asked, name)}\t", tmp_path) == b"x"
