"""The memory of file digests: what is taken from it, and what is read again."""

import os
import time

import numpy as np
import polars as pl
import pytest

from cache.storage.file_digests import RACY_NS, DigestMemory, stamps

OLD_NS = 1_600_000_000_000_000_000


@pytest.fixture
def file(tmp_path):
    """One file with an old modification time."""
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


def places(*paths):
    """The names that files are remembered under."""
    return pl.Series([f"image:{path}" for path in paths], dtype=pl.String)


def remember(memory, *paths, at=None):
    """Let the memory learn a digest a file: sixteen times its position."""
    digests = np.repeat(np.arange(len(paths), dtype=np.uint8)[:, None], 16, axis=1)
    seen = stamps([str(path) for path in paths])
    memory.learn(places(*paths), seen, digests, time.time_ns() if at is None else at)
    memory.save()


def recall(memory, *paths):
    """What the memory says of the files now."""
    return memory.recall(places(*paths), stamps([str(path) for path in paths])).to_list()


def test_an_untouched_file_is_remembered_by_a_later_process(tmp_path, file):
    """A digest comes back while path, size, mtime and inode match, also from disk."""
    remember(DigestMemory(tmp_path / "meta" / "digests.parquet"), file)
    again = DigestMemory(tmp_path / "meta" / "digests.parquet")
    assert recall(again, file) == [bytes(16)]


@pytest.mark.parametrize("change", ["size", "mtime", "inode", "gone"])
def test_a_file_that_changed_in_any_way_is_read_again(tmp_path, file, change):
    """Size, modification time and inode each suffice to forget; so does a file that is gone."""
    memory = DigestMemory(tmp_path / "digests.parquet")
    remember(memory, file)
    if change == "size":
        file.write_bytes(b"picture!")
        os.utime(file, ns=(OLD_NS, OLD_NS))
    elif change == "mtime":
        os.utime(file, ns=(OLD_NS, OLD_NS + 1))
    elif change == "inode":
        other = tmp_path / "other"
        other.write_bytes(b"PICTURE")
        os.utime(other, ns=(OLD_NS, OLD_NS))
        other.replace(file)
    else:
        file.unlink()
    assert recall(memory, file) == [None]


def test_a_file_as_young_as_its_record_is_not_trusted(tmp_path, file):
    """A file changed within one tick of being read could change unseen, so it is read again."""
    memory = DigestMemory(tmp_path / "digests.parquet")
    remember(memory, file, at=OLD_NS + RACY_NS)
    assert recall(memory, file) == [None]
    remember(memory, file, at=OLD_NS + RACY_NS + 1)
    assert recall(memory, file) == [bytes(16)]


def test_an_unknown_place_is_not_guessed_and_order_is_kept(tmp_path, file):
    """Answers come in the order of the question, with repeats, and null where nothing is known."""
    second = tmp_path / "b.png"
    second.write_bytes(b"other")
    os.utime(second, ns=(OLD_NS, OLD_NS))
    memory = DigestMemory(tmp_path / "digests.parquet")
    remember(memory, file, second)
    missing = tmp_path / "c.png"
    assert recall(memory, second, missing, file, second) == [
        b"\1" * 16,
        None,
        bytes(16),
        b"\1" * 16,
    ]


def test_the_same_bytes_under_another_kind_are_another_input(tmp_path, file):
    """A place names its kind, so a file remembered as an image is unknown as audio."""
    memory = DigestMemory(tmp_path / "digests.parquet")
    remember(memory, file)
    asked = pl.Series([f"audio:{file}"])
    assert memory.recall(asked, stamps([str(file)])).to_list() == [None]


def test_a_damaged_memory_is_forgotten_and_written_anew(tmp_path, file):
    """A memory is a convenience: damage costs reading files again, never an error."""
    path = tmp_path / "digests.parquet"
    path.write_bytes(b"not parquet")
    memory = DigestMemory(path)
    assert recall(memory, file) == [None]
    remember(memory, file)
    assert recall(DigestMemory(path), file) == [bytes(16)]


def test_learning_again_replaces_what_was_known(tmp_path, file):
    """The last record of a place wins, and a place is kept once."""
    path = tmp_path / "digests.parquet"
    memory = DigestMemory(path)
    remember(memory, file)
    memory.learn(places(file), stamps([str(file)]), np.full((1, 16), 9, np.uint8), time.time_ns())
    memory.save()
    assert recall(DigestMemory(path), file) == [b"\t" * 16]
    assert len(pl.read_parquet(path)) == 1
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_memory_told_to_forget_knows_nothing_and_is_replaced(tmp_path, file):
    """`--rehash` reads every file again, whatever was remembered."""
    path = tmp_path / "digests.parquet"
    remember(DigestMemory(path), file)
    forgetful = DigestMemory(path, forget=True)
    assert recall(forgetful, file) == [None]
    remember(forgetful, file)
    assert recall(DigestMemory(path), file) == [bytes(16)]


def test_nothing_learnt_writes_nothing(tmp_path):
    """A no-op extract leaves the disk alone."""
    DigestMemory(tmp_path / "digests.parquet").save()
    assert list(tmp_path.iterdir()) == []
