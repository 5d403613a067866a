"""Small grey-scale image, contrast-normalised, or its HOG features (`pixels:hog`); no weights.

Transparent images are blended with white.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import unknown
from cache.samples import Kind
from pipelines.encoding.encoder import Storage
from pipelines.media.images import on_white

KINDS: dict[Kind, int | None] = {"image": 256}
VERSION = 1
CELL = 8  # pixels a side of one cell of gradient directions
FLAT = 1.0  # standard deviation in grey levels below which an image counts as flat


@dataclass(frozen=True)
class Pixels:
    """Grey values at one size, standardised per image; or HOG features."""

    size: int
    look: Literal["grey", "hog"]
    name: str = "pixels"
    storage: Storage = "float32"
    sequence: bool = False
    weights: Literal["weight-free"] = "weight-free"

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """`image` → size², or 9 directions × 4 cells × the blocks of 2 × 2 cells."""
        blocks = (self.size // CELL - 1) ** 2
        return {"image": self.size**2 if self.look == "grey" else 36 * blocks}

    def fields(self, kind: Kind) -> dict[str, object]:
        """Feature type, size and this encoder's version."""
        return {"encoder": self.name, "version": VERSION, "look": self.look, "size": self.size}

    def provenance(self) -> dict[str, object]:
        """Versions of the libraries that resize and compute gradients."""
        libraries = ["pillow"] if self.look == "grey" else ["pillow", "scikit-image"]
        return {"versions": {library: version(library) for library in libraries}}

    def prepare(self, kind: Kind, payload: Any) -> tuple[NDArray[Any], int]:  # noqa: ANN401
        """RGB image → (size, size) uint8 grey, or its (D,) float32 HOG; the cost is 1.

        Transparent pixels are blended with white.
        """
        from PIL import Image

        grey = (
            on_white(payload).convert("L").resize((self.size, self.size), Image.Resampling.BICUBIC)
        )
        image = np.asarray(grey)
        if self.look == "grey":
            return image, 1
        from skimage.feature import hog

        cell, block = (CELL, CELL), (2, 2)
        found = hog(image, 9, pixels_per_cell=cell, cells_per_block=block, block_norm="L2-Hys")
        return found.astype(np.float32), 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared images → (D,) float32 each; a flat image is all zeros."""
        if self.look == "hog":
            return list(batch)
        values = np.stack(batch).reshape(len(batch), -1).astype(np.float32)  # (B, D)
        values -= values.mean(axis=1, keepdims=True)
        values /= np.maximum(values.std(axis=1, keepdims=True), FLAT)
        return list(values)


def build(*, model: str | None = None, size: int | None = None) -> Pixels:
    """Pixels as an encoder.

    Args:
        model: `grey` (default) or `hog`, histograms of oriented gradients (Dalal and Triggs 2005).
        size: pixels a side the image is squashed to; 16 for `grey`, 32 for `hog`.
    """
    look = model or "grey"
    if look not in ("grey", "hog"):
        raise unknown("kind of pixels", look, ("grey", "hog"))
    if look == "hog":
        return Pixels(size or 32, "hog")
    return Pixels(size or 16, "grey")
