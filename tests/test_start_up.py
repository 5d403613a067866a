"""The front door opens fast: help loads nothing heavy, no user error loads torch."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "polars", "zarr", "sklearn", "rich")
ERRORS = (
    "extract --dataset mug --encoder pixels",
    "extract --dataset digit --encoder pixels",
    "extract --dataset digits --encoder pixel",
    "extract --dataset digits",
    "extract --encoder pixels",
    "extract --dataset digits --encoder pixels --dtype flaot16",
    "extract --dataset digits --encoder pixels --device gpu",
    "extract --dataset digits --encoder pixels --limit -1",
    "extract --dataset digits --encoder pixels --home /dev/null/home",
    "train --method clarga",
    "train --method clargo --dataset digits",
    "train",
    "eval --missing audio",
    "list encodrs",
    "nonsense",
)
PROBE = """
import sys
from mmfuse_cli.main import main
sys.argv = ["mmfuse", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    print("exit", stop.code)
print("loaded", *(name for name in {heavy} if name in sys.modules))
"""


def probe(folder: Path, words: str) -> tuple[str, str, str]:
    """(exit line, heavy modules loaded, everything said) of one call in an empty folder."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *words.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) > 1, done.stderr
    return lines[-2], lines[-1].removeprefix("loaded").strip(), done.stdout + done.stderr


@pytest.mark.parametrize("words", ["--help", "extract --help", "train --help", "demo --help"])
def test_help_loads_nothing_heavy(tmp_path, words):
    """Help is words only: neither torch, numpy, polars, zarr, scikit-learn nor rich is imported."""
    assert probe(tmp_path, words)[:2] == ("exit 0", "")


@pytest.mark.parametrize("words", ERRORS)
def test_a_user_error_is_exit_code_2_without_torch_or_traceback(tmp_path, words):
    """What the user can mend comes at once: one message, exit code 2, torch not imported."""
    code, loaded, said = probe(tmp_path, words)
    assert code == "exit 2", said
    assert "torch" not in loaded.split()
    assert "Traceback" not in said
