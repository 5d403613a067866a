"""Words that are typed, words that are left out, and where they come from."""

import re
import tomllib
from pathlib import Path

import pytest
from project import ROOT
from typer.testing import CliRunner

import mmfuse
from cache.errors import MmfuseError
from mmfuse_cli import arguments, memory
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
    memory.remember(tmp_path / "new", "extract", {"dataset": "digits"})
    memory.remember(tmp_path / "new", "train", {"group": "g"})
    memory.remember(tmp_path / "new", "extract", {"dataset": "mug"})
    assert memory.remembered(tmp_path / "new", "extract") == {"dataset": "mug"}
    assert memory.remembered(tmp_path / "new", "train") == {"group": "g"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"extract": 3}'])
def test_a_spoilt_memory_is_no_memory(tmp_path, content):
    """A file that is not what was written is read as nothing remembered."""
    (tmp_path / "last.json").write_text(content)
    assert memory.remembered(tmp_path, "extract") == {}


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


def test_lists_may_be_repeated_or_joined_by_commas(tmp_path, monkeypatch):
    """Blanks are dropped, and a file whose name has a comma stays whole."""
    monkeypatch.chdir(tmp_path)
    Path("a,b.py").write_text("")
    assert arguments.words(["concat, late", "mean,", "a,b.py"]) == [
        "concat", "late", "mean", "a,b.py",
    ]  # fmt: skip
    assert arguments.encoders(["pixels,timm:vit_tiny"]) == ["pixels", "timm:vit_tiny"]
    with pytest.raises(MmfuseError, match="no method named 'lat'; did you mean late"):
        arguments.methods(["concat,lat"])
    with pytest.raises(MmfuseError, match="--method concat,late: one method a sweep"):
        arguments.one_method("concat,late")


def test_a_dataset_may_be_named_without_its_option():
    """As an argument, as --dataset, or as both where they agree."""
    assert arguments.either("digits", None) == "digits"
    assert arguments.either(None, "digits") == "digits"
    assert arguments.either("digits", "digits") == "digits"
    assert arguments.either(None, None) is None
    with pytest.raises(MmfuseError, match="two datasets: digits and --dataset mug"):
        arguments.either("digits", "mug")


@pytest.mark.parametrize("command", ["extract", "train", "sweep", "eval", "data audit"])
def test_commands_take_the_dataset_as_an_argument(tmp_path, monkeypatch, command):
    """What they answer is about the dataset that stands there, not about a missing option."""
    monkeypatch.chdir(tmp_path)
    more = {"extract": "--encoder pixels", "train": "--method late", "sweep": "--method late"}
    done = CliRunner().invoke(app, [*command.split(), "digts", *more.get(command, "").split()])
    assert done.exit_code == 2
    assert "'digts'" in done.output


@pytest.mark.parametrize("command", ["", "extract", "cache", "cache gc", "data audit", "list"])
def test_help_has_a_short_form(command):
    """-h is --help, of groups and of commands in them."""
    short = CliRunner().invoke(app, [*command.split(), "-h"])
    assert short.exit_code == 0
    assert short.output == CliRunner().invoke(app, [*command.split(), "--help"]).output


def test_the_version_is_one_line():
    """It is that of the distribution, from the command line and from Python."""
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"mmfuse {mmfuse.__version__}\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mmfuse.__version__ == project["version"]


def test_a_mistyped_stream_is_answered_with_a_name_that_exists(tmp_path, monkeypatch):
    """No command is suggested that cannot run: pixel is no encoder, pixels is one."""
    monkeypatch.chdir(tmp_path)
    asked = arguments.Settings(Path("artifacts"), (), json=False)
    with pytest.raises(MmfuseError, match="no encoder named 'pixel'; did you mean pixels"):
        arguments.features(asked, [], ["hashing,pixel/image"])
    assert arguments.features(asked, [], ["hashing,pixels/image"]) == ["hashing", "pixels/image"]
    assert arguments.features(asked, [], None) is None
