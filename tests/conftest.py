"""What every test shares: one thread, no network, and where the data packs are."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from project import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are first imported
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option of this suite."""
    parser.addoption(
        "--rewrite-walks", action="store_true", help="write the transcripts in tests/cli/walks anew"
    )


@pytest.fixture
def pack() -> Callable[[str], Path]:
    """A function from a data pack's name to its folder; skips the test where it is absent."""

    def find(name: str) -> Path:
        top = Path(os.environ.get("MMFUSE_TEST_PACKS") or ROOT.parent / "shared" / "data")
        if not (top / name).is_dir():
            pytest.skip(f"the data pack {name} is not in {top} (set MMFUSE_TEST_PACKS)")
        return top / name

    return find
