"""The catalogue: names, summaries and errors of plug-ins, without importing them."""

import pytest

from cache.errors import MmfuseError
from pipelines import catalog

HEAD = '"""One line about it."""\n\n\ndef build(inputs):\n    return 7\n'


def test_a_plug_in_is_found_by_its_path(tmp_path):
    """A file of one's own is a plug-in as soon as it has `build`."""
    (tmp_path / "mine.py").write_text(HEAD)
    assert catalog.find("methods", str(tmp_path / "mine.py")).build(None) == 7


def test_a_file_without_build_says_what_is_missing(tmp_path):
    """The error names the file and the function."""
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(MmfuseError, match=r"mine\.py.*function `build`"):
        catalog.find("methods", str(tmp_path / "mine.py"))


def test_a_missing_file_is_named():
    """The path that was typed comes back in the error."""
    with pytest.raises(MmfuseError, match=r"no such file: nowhere\.py"):
        catalog.find("methods", "nowhere.py")


def test_a_file_that_is_not_python_names_the_line(tmp_path):
    """A syntax error is the user's to mend: file and line, no traceback."""
    (tmp_path / "mine.py").write_text("def build(:\n")
    with pytest.raises(MmfuseError, match=r"mine\.py, line 1"):
        catalog.find("methods", str(tmp_path / "mine.py"))


def test_a_missing_library_is_named_with_the_command_that_installs_it(tmp_path):
    """A plug-in that imports what is not installed says what to install."""
    (tmp_path / "mine.py").write_text("import no_such_library_here\n")
    with pytest.raises(MmfuseError, match="pip install no_such_library_here"):
        catalog.find("methods", str(tmp_path / "mine.py"))


def test_dataclasses_work_in_a_file_of_ones_own(tmp_path):
    """A module found by path is registered, so that dataclasses can look up its names."""
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    source += "@dataclass\nclass Box:\n    side: int\n\ndef build():\n    return Box(2)\n"
    (tmp_path / "boxed.py").write_text(source)
    assert catalog.find("methods", str(tmp_path / "boxed.py")).build().side == 2


@pytest.mark.parametrize("group", ["datasets", "encoders", "methods"])
def test_every_plug_in_of_ours_has_a_summary(group):
    """Each file on a group has a first docstring line for `mmfuse list`."""
    known = catalog.entries(group)
    assert known
    assert [name for name, entry in known.items() if not entry.summary.strip()] == []


@pytest.mark.parametrize("group", ["datasets", "encoders", "methods"])
def test_an_unknown_name_is_answered_with_the_nearest(group):
    """One letter too many still leads to the right word."""
    name = next(iter(catalog.entries(group)))
    with pytest.raises(MmfuseError, match=rf"did you mean {name}\?"):
        catalog.find(group, f"{name}x")
