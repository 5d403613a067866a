"""What several tests of encoders begin with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from encoder_cases import checkpoint


@pytest.fixture(scope="session")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny checkpoints of this session lie; tests that change one copy it."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def place(top: Path) -> Callable[[str], Path]:
    """A function from a checkpoint's name to its folder, made when it is first wanted."""
    return lambda name: checkpoint(name, top)
