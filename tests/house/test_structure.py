"""The house keeps its shape: packages, layers, sizes, and who may draw or print."""

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest
from project import ROOT

PACKAGES = ("mmfuse", "mmfuse_cli", "pipelines", "cache")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OPEN_ENDED = {"datasets", "encoders", "methods", "mmfuse_cli"}  # one file for each name
ROOMS = sorted({path.parent for path in SOURCES if path.parent.name not in OPEN_ENDED})
LIBRARY = [path for path in SOURCES if "mmfuse_cli" not in path.parts]


def imported(path: Path, *, anywhere: bool) -> set[str]:
    """Top-level names that a file imports, at module level or anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if anywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_the_wheel_holds_exactly_the_four_packages():
    """The build names mmfuse, mmfuse_cli, pipelines and cache, and nothing else."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == sorted(PACKAGES)
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(PACKAGES)


def test_every_folder_of_source_is_a_package():
    """A folder without __init__.py would be left out of nothing, but found by accident."""
    assert [path.parent for path in SOURCES if not (path.parent / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    "path", ["cache/feature_store.py", "cache/new_file.py", "cache/format/shards.py"]
)
def test_no_ignore_line_hides_the_source_folder_cache(path):
    """`cache/` is source code: git must see every file of it."""
    done = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
    assert done.returncode == 1


def test_only_the_console_imports_rich():
    """One file draws."""
    drawers = [path.name for path in SOURCES if "rich" in imported(path, anywhere=True)]
    assert drawers == ["console.py"]


def test_the_front_door_imports_only_typer_at_module_level():
    """Beyond the standard library, typer and the lazy `mmfuse` are all that a command loads."""
    import sys

    for path in (ROOT / "mmfuse_cli").glob("*.py"):
        extra = imported(path, anywhere=False) - set(sys.stdlib_module_names)
        if path.name != "console.py":
            assert extra <= {"typer", "mmfuse", "mmfuse_cli"}, path


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_code_never_prints_exits_or_reads_the_environment(path):
    """The library takes a `track`, returns or raises; words and variables come from the door."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"print", "sys.exit", "exit", "quit", "os.getenv", "input"}
    read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if path.name != "worker_main.py":  # a process of its own, which sets its own threads
        assert "os.environ" not in read


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    """At most 500 lines, no utils, common or helpers, a docstring each."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert path.stem not in {"utils", "common", "helpers"}
    assert (ast.get_docstring(ast.parse(text)) or "").strip()


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_has_at_most_a_dozen_files(room):
    """More than twelve files in a folder are two rooms; plug-ins and commands are one file each."""
    assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 12


def test_commands_stay_short():
    """A command is words in, one call, a table out: at most 140 lines a file."""
    long = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "mmfuse_cli").glob("*.py")
        if path.name not in {"console.py", "arguments.py"}
    }
    assert {name: lines for name, lines in long.items() if lines > 140} == {}


def test_nothing_that_runs_code_is_loaded_from_files():
    """No pickled files and no remote code; pickles pass only between our own processes."""
    unsafe = ("trust_remote_code=True", "pickle.load(", "allow_pickle=True", "weights_only=False")
    for path in LIBRARY:
        text = path.read_text(encoding="utf-8")
        assert [word for word in unsafe if word in text] == [], path
