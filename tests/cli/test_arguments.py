"""Words that are typed, words that are left out, and where they come from."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache.errors import MmfuseError
from mmfuse_cli import arguments
from mmfuse_cli.main import app


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
    assert arguments.to_the_front(typed.split()) == read.split()


def test_a_chance_that_is_no_number_is_told_as_it_was_typed():
    """The message has the form of the option, NAME=PROBABILITY."""
    assert arguments.numbered_pairs("--missing-frames", ["audio=0.5"]) == {"audio": 0.5}
    with pytest.raises(MmfuseError, match=r"--missing-frames audio=abc must be NAME=PROBABILITY"):
        arguments.numbered_pairs("--missing-frames", ["audio=abc"])


def test_data_is_looked_for_in_three_places_each_once(monkeypatch):
    """--data, then $MMFUSE_DATA, then ./data."""
    monkeypatch.setenv("MMFUSE_DATA", "data")
    assert arguments.data_roots(Path("mine")) == (Path("mine"), Path("data"))


def test_what_a_command_named_is_remembered_and_replaced(tmp_path):
    """Each command has one memory; another command's is left alone."""
    arguments.remember(tmp_path / "new", "extract", {"dataset": "digits"})
    arguments.remember(tmp_path / "new", "train", {"group": "g"})
    arguments.remember(tmp_path / "new", "extract", {"dataset": "mug"})
    assert arguments.remembered(tmp_path / "new", "extract") == {"dataset": "mug"}
    assert arguments.remembered(tmp_path / "new", "train") == {"group": "g"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"extract": 3}'])
def test_a_spoilt_memory_is_no_memory(tmp_path, content):
    """A file that is not what was written is read as nothing remembered."""
    (tmp_path / "last.json").write_text(content)
    assert arguments.remembered(tmp_path, "extract") == {}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nowhere/x.html", "--output .*nowhere/x.html: no such folder: .*nowhere$"),
        (".", "this is a folder"),
        ("foo.txt", "must end in .html or .htm"),
    ],
)
def test_a_file_that_cannot_be_made_is_refused_before_the_work(tmp_path, file, said):
    """A folder, a folder that is not there, and another ending are each told."""
    with pytest.raises(MmfuseError, match=said):
        arguments.check_output("--output", tmp_path / file, (".html", ".htm"))
    arguments.check_output("--output", tmp_path / "x.html", (".html", ".htm"))
    arguments.check_output("pack to", tmp_path / "x")


@pytest.mark.parametrize(
    "typed",
    [
        "report --output nowhere/x.html", "report --output .", "report --output foo.txt",
        "predict --input x.csv --output nowhere/o.csv", "cache pack nowhere/x",
        "cache export nowhere/x.h5",
    ],
)  # fmt: skip
def test_commands_refuse_such_files_first(tmp_path, monkeypatch, typed):
    """Even where nothing was extracted or trained, the file is what is told."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, typed.split())
    assert done.exit_code == 2
    assert re.search("no such folder|this is a folder|must end in", done.output)
    assert list(tmp_path.iterdir()) == []
