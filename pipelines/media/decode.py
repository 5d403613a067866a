"""Decode encoded images; anything wrong with them raises `Unreadable`."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.media.heif import check_heif, heif_format
from pipelines.media.payloads import Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # of three bytes; above it Pillow suspects a decompression bomb
_BYTES = {"I": 4, "F": 4}  # of a pixel of deep modes; others have a byte for each channel
_DECODERS = {"HEIC": "HEIF", "AVIF": "AVIF"}  # as Pillow calls them
_ROWS = 256  # of an image, scaled at a time


def decode_image(data: bytes) -> "Image":
    """An upright RGB image with 8 bits a channel, decoded to the last byte.

    The first frame of an animation, the primary image of several; 16 bits scaled to 8; EXIF
    orientation applied, in HEIC and AVIF that of their own boxes instead. Transparency is dropped,
    not blended, as the reference pipelines of CLIP and torchvision do; where any pixel is
    transparent, the alpha channel is kept in `info["alpha"]`, for `images.on_white`.

    Raises:
        Unreadable: wrong-type, truncated, damaged, bomb, non-finite; no-decoder for HEIC without
            the package pillow-heif.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # True would turn damaged parts into grey
    heif = heif_format(data)
    if heif is not None:
        check_heif(data, heif, MAX_PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on size and odd metadata, which are checked here
        try:
            # Their decoders also accept files of each other, which they then cannot read.
            with Image.open(io.BytesIO(data), formats=heif and [_DECODERS[heif]]) as image:
                width, height = image.size
                size = _BYTES.get(image.mode, len(image.getbands()))  # of a pixel
                if width * height * max(size, 3) > 3 * MAX_PIXELS:
                    raise Unreadable("bomb", f"{width} × {height} pixels of mode {image.mode}")
                image.load()
                upright = _upright(image)
                return _with_alpha(_rgb(upright), upright)
        except Unreadable:
            raise
        except UnidentifiedImageError as error:
            if heif is not None:
                raise Unreadable("damaged", f"no image in this {heif} file can be read") from error
            raise Unreadable("wrong-type", "no known image format") from error
        except Image.DecompressionBombError as error:
            raise Unreadable("bomb", str(error)) from error
        except Exception as error:  # decoders raise anything on damaged bytes; it costs the cell
            raise Unreadable(_reason(str(error)), f"{type(error).__name__}: {error}") from error


def _reason(message: str) -> str:
    """The reason of a failure, by a decoder's own words."""
    words = message.lower()
    if "truncated" in words or "unexpected end of file" in words:
        return "truncated"
    if "security limit" in words:  # of HEIC: memory far beyond the stated size
        return "bomb"
    lacks = "unsupported codec" in words or "has not been built in" in words
    return "no-decoder" if lacks else "damaged"


def _upright(image: "Image") -> "Image":
    """Apply the EXIF orientation; the same object where there is nothing to rotate."""
    from PIL import ExifTags, ImageOps

    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # invalid metadata do not make the image unreadable
        return image


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        mode = "8" if _is_wide(image) and 0 < values.max() <= 255 else image.mode
        return Image.fromarray(_eight_bits(values, mode)).convert("RGB")
    if image.mode == "P":  # a palette with transparency must be converted to RGBA first
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_wide(image: "Image") -> bool:
    """Whether a file states 32 bits for each grey value, as arrays of int32 are saved."""
    return image.mode == "I" and 32 in (getattr(image, "tag_v2", None) or {}).get(258, ())


def _with_alpha(rgb: "Image", image: "Image") -> "Image":
    """Keep the alpha channel of an image with transparent pixels, a grey image, beside its RGB."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return rgb
    alpha = image.convert("RGBA").getchannel("A")
    if np.asarray(alpha).min() < 255:
        rgb.info["alpha"] = alpha
    return rgb


def _eight_bits(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """(H, W) grey values of deep modes → 0 … 255.

    Integers are taken as 16 bits wide, or 32 where they do not fit, and 32-bit files that hold no
    more than 8 bits as 8; floats as 0 … 1, or 0 … 255 where they do not fit.
    """
    if not np.isfinite(values).all():
        raise Unreadable("non-finite", "the image holds NaN or infinity")
    top = values.max()
    if mode in ("F", "8"):
        scale = 255.0 if top <= 1 and mode == "F" else 1.0
    else:
        scale = 255 / 65535 if top <= 65535 else 255 / (2**31 - 1)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):  # float64 of all at once would be gigabytes
        deep = values[start : start + _ROWS].astype(np.float64)
        grey[start : start + _ROWS] = np.clip(np.rint(deep * scale), 0, 255)
    return grey
