"""`import mmfuse` has every verb of the command line, and loads nothing until one is used."""

import inspect
import subprocess
import sys
from pathlib import Path

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
    home, runs = mmfuse.Home("artifacts"), said["runs"]
    assert [run.id for run in mmfuse.latest_group(home, ["digits"])] == [runs[1].id]
    assert [run.id for run in mmfuse.latest_group(home)] == [said["model"].run.id]
    assert "without" in said["model"].report("again.html").read_text(encoding="utf-8")
    assert [row[1] for row in mmfuse.compare(home, runs).rows] == ["concat", "mean"]
    assert mmfuse.audit(mmfuse.FeatureStore(home, "digits"))


def test_words_stand_for_what_they_name(tmp_path, monkeypatch):
    """Data sets, encoders, runs and patterns by the words of the command line."""
    monkeypatch.chdir(tmp_path)
    (one,) = mmfuse.extract("digits", "pixels")
    assert one.key.encoder == "pixels"
    mmfuse.extract("digits", ["hashing"])
    runs = [mmfuse.train(method, "digits", options={"epochs": 1}) for method in ("mean", "concat")]
    found = mmfuse.evaluate(runs[0].id, "text")
    assert found == mmfuse.evaluate(runs[0], [mmfuse.MissingPattern.named("text")])
    assert [row.scores.pattern for row in found.rows] == ["complete", "without text"]
    with pytest.raises(mmfuse.MmfuseError, match=r"no modality .*'smell'"):
        mmfuse.evaluate(runs[0], ["smell"])
    assert runs[1].id in mmfuse.report(runs[1].id)
    assert mmfuse.compare([run.id for run in runs]).rows == mmfuse.compare(runs).rows
    for wrong in (lambda: mmfuse.report("nope"), lambda: mmfuse.compare(["nope", runs[0].id])):
        with pytest.raises(mmfuse.MmfuseError, match="no run named 'nope'"):
            wrong()
    with pytest.raises(mmfuse.MmfuseError, match=r"extract --dataset digit|digits"):
        mmfuse.extract("digit", ["pixels"])


def test_a_home_is_a_home_a_path_a_string_or_left_out(tmp_path, monkeypatch):
    """In verbs that take it first and in those that take it by name, by every way of calling."""
    monkeypatch.chdir(tmp_path)
    home, here = mmfuse.Home("artifacts"), Path("artifacts")
    assert home == mmfuse.Home() == mmfuse.Home(here)
    assert mmfuse.FeatureStore("artifacts", "digits").home == home
    for given in ((home,), (here,), ("artifacts",), ()):
        assert mmfuse.list_runs(*given) == []
        with pytest.raises(mmfuse.MmfuseError, match="no runs in artifacts"):
            mmfuse.latest_group(*given)
        for words, named in ((["none"], {}), ([], {"run": "none"})):
            with pytest.raises(mmfuse.MmfuseError, match="no run named 'none'"):
                mmfuse.load_run(*given, *words, **named)
    for given in ({"home": home}, {"home": here}, {"home": "artifacts"}, {"home": None}, {}):
        assert mmfuse.list_runs(**given) == []
        with pytest.raises(mmfuse.MmfuseError, match="no run named 'none'"):
            mmfuse.evaluate(run="none", patterns=[], **given)
        with pytest.raises(mmfuse.MmfuseError, match="run: mmfuse extract"):
            mmfuse.train("mean", "digits", **given)
    with pytest.raises(mmfuse.MmfuseError, match="no runs in other/runs"):
        mmfuse.latest_group("other", {"digits"})


def test_every_verb_with_a_home_takes_a_string():
    """None of them is left out: the door changes each in one place."""
    for name in mmfuse.__all__:
        verb = getattr(mmfuse, name)
        if inspect.isfunction(verb) and "home" in inspect.signature(verb).parameters:
            assert inspect.unwrap(verb) is not verb, name


def test_contracts_are_tried_from_python():
    """A head and an encoder, each by its own verb."""
    assert all(check.passed for check in mmfuse.check("mean", training=False))
    assert all(check.passed for check in mmfuse.check_encoder("hashing"))
