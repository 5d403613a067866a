"""A user's own cache.py or pipelines.py beside a script: an error that names the file."""

import subprocess
import sys

import pytest
from walking import Walk

OWN = ("cache.py", "pipelines.py", "cache/__init__.py", "pipelines/__init__.py")


@pytest.fixture(params=OWN)
def in_the_way(request, tmp_path):
    """A folder with a file of a name that mmfuse uses, and a script that imports mmfuse."""
    path = tmp_path / request.param
    path.parent.mkdir(exist_ok=True)
    path.write_text("answer = 42\n")
    (tmp_path / "script.py").write_text("import mmfuse\n")
    return path


def test_a_script_beside_it_is_told_which_file_is_in_the_way(in_the_way):
    """A script that imports mmfuse ends in one line that names the file, not in a traceback."""
    script = in_the_way.with_name("script.py")
    script = script if script.is_file() else in_the_way.parent.with_name("script.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"error: {in_the_way} is in the way")
    assert "rename it" in line


@pytest.mark.parametrize("way", ["python -m mmfuse_cli.main", "mmfuse"])
def test_the_command_line_says_it_in_one_line(in_the_way, tmp_path, way):
    """No traceback, exit code 2, whether Python finds the file by folder or by PYTHONPATH."""
    walk = Walk(tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    said = walk.run(f"{way} list methods")
    name = in_the_way.relative_to(tmp_path)
    assert said.splitlines()[1].startswith(f"! error: HERE/{name} is in the way: ")
    assert said.splitlines()[2:] == ["[exit 2]"]


def test_a_plain_folder_of_that_name_is_not_in_the_way(tmp_path):
    """A data folder called `cache` or `pipelines` hides nothing."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "pipelines").mkdir()
    said = Walk(tmp_path).run("python -m mmfuse_cli.main list methods")
    assert said.endswith("[exit 0]\n")
