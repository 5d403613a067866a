"""What several tests of stage 1 begin with."""

from pathlib import Path

import pytest

from cache.format import grid
from cache.layout import Home
from pipelines.extract.engine import batches


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path / "artifacts")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 128 rows of eight float32, windows of 50: a few thousand rows fill many."""
    monkeypatch.setattr(grid, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(grid, "CHUNKS_PER_SHARD", 4)
    monkeypatch.setitem(batches.WINDOWS, "text", 50)
