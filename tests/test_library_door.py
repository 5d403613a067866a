"""`import mmfuse` has every verb of the command line, and loads nothing until one is used."""

import subprocess
import sys

import pytest

import mmfuse

VERBS = ("extract", "train", "evaluate", "predict", "list_runs", "open_dataset", "build_encoder")


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


def test_the_three_steps_run_from_python(tmp_path):
    """extract, train, evaluate: the walk of the command line as three calls."""
    home = mmfuse.Home(tmp_path)
    (digits,) = mmfuse.open_dataset("digits")
    encoders = [mmfuse.build_encoder("pixels"), mmfuse.build_encoder("hashing")]
    reports = mmfuse.extract(digits, encoders, home=home)
    run = mmfuse.train("mean", "digits", home=home, options={"epochs": 1, "seeds": (0,)})
    found = mmfuse.evaluate(home, run, [mmfuse.MissingPattern.named("text")])
    assert [report.key.name for report in reports] == ["pixels/image", "hashing/text"]
    assert [row.scores.pattern for row in found.rows] == ["complete", "without text"]
