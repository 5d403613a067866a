"""What tests of media share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def noise():
    """An image of noise, which compresses badly."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
