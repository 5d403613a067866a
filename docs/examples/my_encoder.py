"""Colour histograms of an image: hue, saturation and brightness in three horizontal bands.

An encoder of one's own is one file with a literal `KINDS` and a function `build`:

    mmfuse check docs/examples/my_encoder.py
    mmfuse extract --dataset digits --encoder docs/examples/my_encoder.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL.Image import Image

from mmfuse import Unreadable

KINDS = {"image": 144}  # kind → width D without options; read without importing this file
BANDS = 3  # top, middle, bottom
SIDE = 96  # pixels; every image is squashed to this square first


@dataclass(frozen=True)
class ColourHistogram:
    """Shares of the pixels by hue, saturation and brightness; `fields` identifies the vectors."""

    bins: int
    name: str = "my_encoder"  # first part of the stream's name: my_encoder/image
    storage: str = "float32"  # dtype of the stored vectors; float16 for pretrained encoders
    sequence: bool = False  # one vector a sample, not a sequence of them
    weights: str = "weight-free"  # or "pretrained", or "random"

    @property
    def kinds(self) -> Mapping[str, int]:
        """Kinds that it serves, with the width D of each."""
        return {"image": BANDS * 3 * self.bins}

    def fields(self, kind: str) -> dict[str, object]:
        """All that changes the vectors, as JSON; raise the version when you change the code."""
        return {"encoder": self.name, "version": 1, "bins": self.bins, "bands": BANDS, "side": SIDE}

    def provenance(self) -> dict[str, object]:
        """Facts to record that do not identify the vectors, such as library versions."""
        return {"versions": {"pillow": version("pillow"), "numpy": version("numpy")}}

    def prepare(self, kind: str, payload: Image) -> tuple[np.ndarray, int]:
        """RGB image → (SIDE, SIDE, 3) uint8 HSV; runs in worker processes. The cost is 1."""
        width, height = payload.size
        if max(width, height) > 100 * min(width, height):  # recorded as failed; the run continues
            raise Unreadable("wrong-type", f"{width} × {height} pixels are a line, not an image")
        return np.asarray(payload.resize((SIDE, SIDE)).convert("HSV")), 1

    def encode(self, kind: str, batch: Sequence[Any]) -> list[np.ndarray]:
        """Prepared images → (D,) float32 each, in order; a GPU model would run here."""
        return [self._histogram(image) for image in batch]

    def _histogram(self, image: np.ndarray) -> np.ndarray:
        bands = np.split(image, BANDS)  # each (SIDE / BANDS, SIDE, 3)
        counts = [
            np.histogram(band[..., channel], self.bins, (0, 256))[0]
            for band in bands
            for channel in range(3)
        ]
        return np.concatenate(counts).astype(np.float32) / bands[0][..., 0].size


def build(*, bins: int = 16) -> ColourHistogram:
    """The encoder; `bins` is the number of histogram bins a channel."""
    return ColourHistogram(bins)
