"""What tests of training share."""

from pathlib import Path

import pytest
from made import fill_store, made_table

from cache.layout import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with features of three streams, the dataset `made`."""
    home = Home(tmp_path)
    fill_store(home, made_table(120))
    return home
