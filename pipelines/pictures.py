"""A picture → the pixels a model eats: resized and cropped as its library does, still uint8."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Preprocess:
    """What is done to a picture before a model sees it.

    Attributes:
        size: height and width of what the model eats.
        mode: `shortest`: the shorter side is brought to `resize`, then the centre is cut out;
            `squash`: both sides are brought to `size`; `longest`: the longer side is, and the rest
            is filled.
        resize: pixels of the shorter side before the cut; the smaller side of `size` as a rule.
        interpolation: `bicubic`, `bilinear`, `nearest` or `lanczos`.
        fill: grey value around a picture that is too small.
        mean: of each channel, on the scale of 0 to 1; subtracted on the device.
        std: of each channel; divided by on the device.
    """

    size: tuple[int, int]
    mode: Literal["shortest", "squash", "longest"]
    resize: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill: int = 0

    def fields(self) -> dict[str, object]:
        """As JSON, for the fingerprint; the decoder is Pillow, without JPEG's draft mode."""
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {**own, "decoder": "pillow"}


def pixels(picture: "Image", preprocess: Preprocess) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, bit-equal to what torchvision's resize and crop give for PIL pictures."""
    from PIL import Image

    height, width = preprocess.size
    scaled = _scaled(picture.size, preprocess)
    if picture.size != scaled:
        how = Image.Resampling[preprocess.interpolation.upper()]
        picture = picture.resize(scaled, how)
    values = np.asarray(picture.convert("RGB"))  # (h, w, 3)
    return np.ascontiguousarray(_centre(values, height, width, preprocess.fill))


def _scaled(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Width and height that a picture is brought to, rounded as torchvision and open_clip do."""
    width, height = size
    target_height, target_width = preprocess.size
    if preprocess.mode == "squash":
        return target_width, target_height
    if preprocess.mode == "shortest" and target_height == target_width:
        short, long = sorted(size)
        longer = int(preprocess.resize * long / short)
        return (preprocess.resize, longer) if width <= height else (longer, preprocess.resize)
    ratios = (height / target_height, width / target_width)
    ratio = max(ratios) if preprocess.mode == "longest" else min(ratios)
    return round(width / ratio), round(height / ratio)


def _centre(values: NDArray[Any], height: int, width: int, fill: int) -> NDArray[Any]:
    """The middle (height, width) of a picture, filled up where it is smaller."""
    lack_h, lack_w = max(height - values.shape[0], 0), max(width - values.shape[1], 0)
    if lack_h or lack_w:
        around = ((lack_h // 2, (lack_h + 1) // 2), (lack_w // 2, (lack_w + 1) // 2), (0, 0))
        values = np.pad(values, around, constant_values=fill)
    top = round((values.shape[0] - height) / 2.0)
    left = round((values.shape[1] - width) / 2.0)
    return values[top : top + height, left : left + width]


def frame_numbers(count: int, wanted: int) -> list[int]:
    """At most `wanted` frame numbers, evenly spaced from the first frame on, each once."""
    return sorted({i * count // wanted for i in range(wanted)})
