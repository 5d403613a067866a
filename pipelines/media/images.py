"""Resize and crop an image for a model, bit-equal to its library, as uint8 pixels."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image: resize, crop and normalisation constants.

    Attributes:
        size: height and width of the model's input, cropped from the centre.
        mode: how it is resized to `scale` first: `shortest` until the shorter side fits, `longest`
            until both sides fit and the rest is filled, `squash` to exactly that size.
        scale: height and width.
        interpolation: `bicubic`, `bilinear`, `nearest` or `lanczos`.
        mean: of each channel, on the scale of 0 to 1; subtracted on the device.
        std: of each channel; divided by on the device.
        fill: of each channel, around an image that is too small; 0 to 255.
    """

    size: tuple[int, int]
    mode: Literal["shortest", "longest", "squash"]
    scale: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill: tuple[int, ...] = (0, 0, 0)

    def fields(self) -> dict[str, object]:
        """As JSON, for the fingerprint; the decoder is Pillow, without JPEG's draft mode."""
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {**own, "decoder": "pillow"}


def resize_and_crop(image: "Image", preprocess: Preprocess) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, bit-equal to what torchvision's resize and crop give for PIL images."""
    from PIL import Image

    scaled = _scaled(image.size, preprocess)
    if image.size != scaled:
        how = Image.Resampling[preprocess.interpolation.upper()]
        image = image.resize(scaled, how)
    values = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # (h, w, 3)
    return np.ascontiguousarray(_centre(values, preprocess))


def on_white(image: "Image") -> "Image":
    """An image of `decode_image` with its transparent pixels blended with white, as pages show it.

    Without it, the colours that a file holds under transparent pixels, which nobody sees, count.
    """
    from PIL import Image

    alpha = image.info.get("alpha")
    if not isinstance(alpha, Image.Image) or alpha.size != image.size:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _scaled(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Width and height to resize to, rounded as torchvision, open_clip and timm do."""
    width, height = size
    target_height, target_width = preprocess.scale
    if preprocess.mode == "squash":
        return target_width, target_height
    if preprocess.mode == "shortest" and target_height == target_width:
        short, long = sorted(size)
        longer = int(target_width * long / short)
        return (target_width, longer) if width <= height else (longer, target_width)
    ratios = (height / target_height, width / target_width)
    ratio = max(ratios) if preprocess.mode == "longest" else min(ratios)
    return round(width / ratio), round(height / ratio)


def _centre(values: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    """Crop the centre (H, W) of an image, padded where it is smaller."""
    height, width = preprocess.size
    lack_h, lack_w = max(height - values.shape[0], 0), max(width - values.shape[1], 0)
    if lack_h or lack_w:
        whole = np.empty((values.shape[0] + lack_h, values.shape[1] + lack_w, 3), values.dtype)
        whole[:] = preprocess.fill
        top, left = lack_h // 2, lack_w // 2
        whole[top : top + values.shape[0], left : left + values.shape[1]] = values
        values = whole
    top = round((values.shape[0] - height) / 2.0)
    left = round((values.shape[1] - width) / 2.0)
    return values[top : top + height, left : left + width]
