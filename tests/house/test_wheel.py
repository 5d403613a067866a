"""The wheel, as a user installs it: its types reach mypy through `import mmfuse`."""

import subprocess
import sys
import sysconfig
import zipfile

import pytest
from project import ROOT

SCRIPT = """
from pathlib import Path

import mmfuse

home = mmfuse.Home(Path("artifacts"))
run = mmfuse.train("concat", "digits", home=home, options={"epochs": 2})
reveal_type(run)
reveal_type(mmfuse.evaluate(home, run, [mmfuse.MissingPattern.named("text")]).rows[0].scores)
mmfuse.train("concat", "digits", home="artifacts")
mmfuse.tain
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The python of a new environment with the wheel in it, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True
    )
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv" / "bin" / "python"


def test_the_wheel_says_that_it_is_typed(installed):
    """Each package that a user's types come from has its marker, and the stub is there."""
    (site,) = installed.parent.parent.glob("lib/python*/site-packages")
    there = {path.relative_to(site).as_posix() for path in site.rglob("py*")}
    assert {"mmfuse/py.typed", "pipelines/py.typed", "cache/py.typed"} <= there
    assert (site / "mmfuse" / "__init__.pyi").is_file()


@pytest.mark.slow
def test_mypy_sees_through_the_door_of_the_installed_wheel(installed, tmp_path):
    """Strict mypy knows what calls give, and refuses a wrong argument and an unknown name."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(installed),
         "--cache-dir", str(tmp_path / "cache"), "script.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    said = [line.partition(": ")[2] for line in lines if line.startswith("script.py")]
    assert 'note: Revealed type is "cache.runs.RunRecord"' in said, done.stdout
    assert 'note: Revealed type is "cache.runs.Scores"' in said
    assert any('"home"' in line and "[arg-type]" in line for line in said)
    assert any('no attribute "tain"' in line for line in said)
    assert sum("error: " in line for line in said) == 2, done.stdout
