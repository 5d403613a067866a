"""`import mmfuse` has every verb of the command line, and loads nothing until one is used."""

import subprocess
import sys

import pages
import pytest
from project import ROOT

import mmfuse

VERBS = (
    "extract", "train", "sweep", "evaluate", "predict", "compare", "report", "check", "audit",
    "list_runs", "open_dataset", "build_encoder",
)  # fmt: skip


@pytest.mark.parametrize("name", mmfuse.__all__)
def test_every_name_of_the_door_leads_somewhere(name):
    """Each public name is there when it is asked for."""
    assert getattr(mmfuse, name) is not None


def test_the_verbs_of_the_command_line_are_there():
    """What can be typed can be called."""
    assert set(VERBS) <= set(mmfuse.__all__) == set(dir(mmfuse))


def test_an_unknown_name_says_what_there_is():
    """A typing error is answered with the names that exist."""
    with pytest.raises(AttributeError, match=r"mmfuse has no 'tain'.*train"):
        _ = mmfuse.tain


def test_importing_the_door_loads_nothing_heavy():
    """Only the standard library is imported before the first verb is used."""
    heavy = {"torch", "numpy", "polars", "zarr", "sklearn", "rich", "typer"}
    script = f"import sys, mmfuse; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_the_verbs_run_from_python(tmp_path, monkeypatch):
    """The walk of the command line as calls, as docs/library.md has it, block by block."""
    monkeypatch.chdir(tmp_path)
    said: dict[str, object] = {}
    for block in pages.code(ROOT / "docs" / "library.md", "python"):
        exec(block, said)
    assert [row.scores.pattern for row in said["found"].rows] == ["complete", "without text"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!")
    home, runs = said["home"], said["runs"]
    assert [run.id for run in mmfuse.latest_group(home)] == [runs[1].id]
    assert [row[1] for row in mmfuse.compare(home, runs).rows] == ["concat", "mean"]
    assert mmfuse.audit(mmfuse.FeatureStore(home, "digits"))


def test_contracts_are_tried_from_python():
    """A head and an encoder, each by its own verb."""
    assert all(check.passed for check in mmfuse.check("mean", training=False))
    assert all(check.passed for check in mmfuse.check_encoder("hashing"))
