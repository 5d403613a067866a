"""Words that are typed, words that are left out, and where they come from."""

from pathlib import Path

import pytest

from mmfuse_cli import words


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("extract --home a", "--home a extract"),
        ("extract --home=a --json", "--home=a --json extract"),
        ("--data d eval --missing x", "--data d eval --missing x"),
        ("list -- --json", "list -- --json"),
        ("extract --home", "--home extract"),
    ],
)
def test_global_options_may_stand_anywhere(typed, read):
    """--home, --data and --json move to where the app reads them; nothing after -- moves."""
    assert words.to_the_front(typed.split()) == read.split()


def test_data_is_looked_for_in_three_places_each_once(monkeypatch):
    """--data, then $MMFUSE_DATA, then ./data."""
    monkeypatch.setenv("MMFUSE_DATA", "data")
    assert words.data_roots(Path("mine")) == (Path("mine"), Path("data"))


def test_what_a_command_named_is_remembered_and_replaced(tmp_path):
    """Each command has one memory; another command's is left alone."""
    words.remember(tmp_path / "new", "extract", {"dataset": "digits"})
    words.remember(tmp_path / "new", "train", {"group": "g"})
    words.remember(tmp_path / "new", "extract", {"dataset": "mug"})
    assert words.remembered(tmp_path / "new", "extract") == {"dataset": "mug"}
    assert words.remembered(tmp_path / "new", "train") == {"group": "g"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"extract": 3}'])
def test_a_spoilt_memory_is_no_memory(tmp_path, content):
    """A file that is not what was written is read as nothing remembered."""
    (tmp_path / "last.json").write_text(content)
    assert words.remembered(tmp_path, "extract") == {}
