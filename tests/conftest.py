"""What every test shares: one thread, no network, no deadlines, and where the data packs are."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from project import ROOT
from threadpoolctl import threadpool_limits

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for torch and for processes that tests start
threadpool_limits(1)  # for numpy, which a plug-in of pytest has imported already
os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")  # how long an example takes is no error


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option of this suite."""
    parser.addoption(
        "--rewrite-walks",
        action="store_true",
        help="write the transcripts in tests/cli/walks and what is generated in docs anew",
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


@pytest.fixture
def sleeping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that go on by what is slept, and a microsecond a look: the same on any machine."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def look() -> float:
        sleep(1e-6)
        return now[0]

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "perf_counter", look)
    monkeypatch.setattr(time, "monotonic", look)
