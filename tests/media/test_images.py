"""Images: every mode and depth as RGB, upright, whole; damaged and vast ones with their reason."""

import struct
import zlib

import numpy as np
import pytest
from encoded import image_bytes, why
from PIL import Image

from pipelines.encoding.encoder import build_encoder
from pipelines.media import cells, decode
from pipelines.media.images import on_white
from pipelines.media.payloads import Unreadable


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_picture_cut_anywhere_never_passes_for_whole(noise, kind):
    """A file cut to any length either fails with a reason or had every pixel already."""
    whole = image_bytes(noise, kind)
    full = np.asarray(cells.decode("image", whole))
    for keep in range(1, len(whole) - 1, max(1, len(whole) // 40)):
        try:
            cut = cells.decode("image", whole[:keep])
        except Unreadable:
            continue
        assert np.array_equal(cut, full)


def test_half_a_jpeg_is_truncated(noise, monkeypatch):
    """Even where another library set Pillow to pad truncated files with grey."""
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = image_bytes(noise, "JPEG")
    assert why("image", data[: len(data) // 2]) == "truncated"


def test_bytes_that_are_no_picture_have_their_reason():
    """Text under an image's name is of the wrong type, nothing is empty."""
    assert why("image", b"hello, I am text") == "wrong-type"
    assert why("image", b"") == "empty"


def test_orientation_is_applied(noise):
    """A camera's turned image is decoded upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = cells.decode("image", image_bytes(noise, "PNG", exif=exif))
    assert upright.size == (40, 30)
    assert np.array_equal(upright, noise.transpose(Image.Transpose.ROTATE_270))


def test_nonsense_for_metadata_does_not_cost_the_picture(noise):
    """A broken EXIF block is ignored: the pixels are whole."""
    data = image_bytes(noise, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    assert cells.decode("image", data).size == (30, 40)


def test_sixteen_bits_are_scaled_to_eight():
    """Deep grey keeps its brightness: 0, half and full stay 0, 128 and 255."""
    deep = np.array([[0, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        data = image_bytes(Image.fromarray(deep), kind)
        assert np.asarray(cells.decode("image", data))[0, :, 0].tolist() == [0, 128, 255]


def test_floating_pictures_are_scaled_and_nan_is_refused():
    """Floats in 0 … 1 become 0 … 255; NaN is a reason, not a black dot."""
    grey = np.array([[0, 0.5, 1]], np.float32)
    data = image_bytes(Image.fromarray(grey), "TIFF")
    assert np.asarray(cells.decode("image", data))[0, :, 0].tolist() == [0, 128, 255]
    grey[0, 1] = np.nan
    assert why("image", image_bytes(Image.fromarray(grey), "TIFF")) == "non-finite"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16"])
def test_every_mode_becomes_rgb(noise, mode):
    """Whatever the colours were stored as, an encoder is given RGB with eight bits."""
    grey = noise.convert("L")
    image = grey.convert("I").convert(mode) if mode.startswith("I") else noise.convert(mode)
    decoded = cells.decode("image", image_bytes(image, "PNG" if mode in {"LA"} else "TIFF"))
    assert (decoded.mode, decoded.size) == ("RGB", noise.size)


def test_cmyk_jpeg_keeps_its_colours():
    """A red CMYK image comes out red, not its negative."""
    data = image_bytes(Image.new("RGB", (16, 16), (220, 20, 20)).convert("CMYK"), "JPEG")
    red, green, blue = np.asarray(cells.decode("image", data)).mean(axis=(0, 1))
    assert red > 180
    assert max(green, blue) < 70


def test_a_palette_with_transparency_gives_its_colours(noise):
    """Transparency in a palette is dropped without a warning and the colours stay."""
    image = noise.convert("P", palette=Image.Palette.ADAPTIVE)
    data = image_bytes(image, "PNG", transparency=bytes(range(256)))
    assert np.array_equal(cells.decode("image", data), image.convert("RGB"))


def test_the_first_frame_of_an_animation_is_given(noise):
    """An animated GIF counts as its first image."""
    first, second = noise.convert("P"), Image.new("P", noise.size)
    data = image_bytes(first, "GIF", save_all=True, append_images=[second])
    assert np.array_equal(cells.decode("image", data), first.convert("RGB"))


def test_one_pixel_is_a_picture():
    """An image of one pixel is valid."""
    one = cells.decode("image", image_bytes(Image.new("RGB", (1, 1), (1, 2, 3))))
    assert one.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_picture_of_monstrous_size_is_a_bomb(side):
    """A few bytes that state 10^8 pixels and more are refused before they are unpacked."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    assert why("image", data + b"\x35\xaf\x06\x1e") == "bomb"


def test_channels_count_in_the_size_of_an_image(monkeypatch):
    """An alpha channel or floats make an image a bomb that grey or RGB of its sides is not."""
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    for mode, bomb in (("L", False), ("RGB", False), ("RGBA", True), ("F", True), ("I;16", False)):
        data = image_bytes(Image.new(mode, (10, 10)), "TIFF")
        if bomb:
            assert why("image", data) == "bomb"
        else:
            assert cells.decode("image", data).size == (10, 10)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_deep_images_are_scaled_in_parts_as_a_whole(mode, monkeypatch):
    """Parts of any number of rows give the same greys, scaled by the brightest of all of them."""
    values = np.random.default_rng(7).integers(0, 65000, (50, 9))
    deep = values.astype(np.int32) if mode == "I" else (values / 65000).astype(np.float32)
    expected = np.rint(deep * (255 / 65535 if mode == "I" else 255.0)).astype(np.uint8)
    data = image_bytes(Image.fromarray(deep), "TIFF")
    for rows in (1, 7, 256):
        monkeypatch.setattr(decode, "_ROWS", rows)
        assert (
            np.abs(np.asarray(cells.decode("image", data))[..., 0] - expected.astype(int)).max()
            == 0
        )


def logo(mode, hidden):
    """A red square on a transparent ground under which another colour is hidden."""
    values = np.full((12, 20, 4), 255, np.uint8)
    values[3:9, 6:14, :3] = (200, 30, 40)
    clear = np.ones((12, 20), bool)
    clear[3:9, 6:14] = False
    values[clear] = (*hidden, 0)
    image = Image.fromarray(values)
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = Image.new("P", (20, 12), 0)
        image.putpalette([*hidden, 200, 30, 40])
        image.paste(1, (6, 3, 14, 9))
        return image_bytes(image, "PNG", transparency=0)
    if mode == "RGB":
        return image_bytes(image.convert("RGB"), "PNG", transparency=hidden)
    if mode == "RGBA":
        return image_bytes(image, "WEBP", lossless=True, exact=True)
    return image_bytes(image)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_hidden_under_transparent_pixels_counts_only_without_blending(mode):
    """On white all look alike; as it is, the RGB is that of the file, as torchvision has it."""
    one, two = (cells.decode("image", logo(mode, hidden)) for hidden in ((0, 0, 0), (9, 250, 90)))
    assert not np.array_equal(one, two)
    assert np.array_equal(on_white(one), on_white(two))
    assert np.asarray(on_white(one))[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(np.asarray(on_white(one))[5, 10], np.asarray(one)[5, 10])
    encoder = build_encoder("pixels")
    vectors = [encoder.encode("image", [encoder.prepare("image", x)[0]])[0] for x in (one, two)]
    assert np.array_equal(*vectors)
    assert vectors[0].any()


def test_half_transparent_pixels_are_half_white():
    """Black of alpha 51, a fifth, on white is a grey of 204."""
    data = image_bytes(Image.new("RGBA", (2, 2), (0, 0, 0, 51)))
    assert np.asarray(on_white(cells.decode("image", data)))[0, 0].tolist() == [204, 204, 204]


def test_an_opaque_image_is_left_as_it_is(noise):
    """An alpha channel that is full everywhere changes nothing, and nothing is kept of it."""
    image = cells.decode("image", image_bytes(noise.convert("RGBA")))
    assert on_white(image) is image
    assert np.array_equal(image, noise)


def test_alpha_is_turned_with_its_image():
    """The orientation of a camera applies to the transparent pixels too."""
    image = Image.new("RGBA", (4, 2), (10, 20, 30, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = on_white(cells.decode("image", image_bytes(image, exif=exif)))
    assert shown.size == (2, 4)
    assert shown.getpixel((1, 0)) == (255, 255, 255)


def test_arrays_of_wide_integers_that_hold_bytes_are_bytes():
    """A TIFF of 32 bits with values up to 255 is not nearly black."""
    for top, seen in ((255, 255), (65535, 255), (2**31 - 1, 255)):
        data = image_bytes(Image.fromarray(np.array([[0, top]], np.int32)), "TIFF")
        assert np.asarray(cells.decode("image", data))[0, :, 0].tolist() == [0, seen]
