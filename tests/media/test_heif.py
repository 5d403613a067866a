"""HEIC and AVIF: turned once, the primary image, cut and huge files, and no decoder."""

import io
import struct
import subprocess
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps
from project import with_project

from pipelines.media.cells import decode
from pipelines.media.decode import decode_image
from pipelines.media.heif import heif_format
from pipelines.media.payloads import Unreadable

COLOURS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}
FORMATS = ("HEIF", "AVIF")


def _quarters(width=96, height=64):
    """An image whose quarters are red, green, blue and white, in order of reading."""
    values = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(COLOURS.values()):
        rows = slice(0, height // 2) if place < 2 else slice(height // 2, height)
        columns = slice(width // 2, width) if place % 2 else slice(0, width // 2)
        values[rows, columns] = colour
    return Image.fromarray(values)


def _seen(image):
    """Size, and the colours of the quarters in order of reading."""
    values = np.asarray(image).astype(int)
    height, width, _ = values.shape
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    nearest = lambda pixel: min(COLOURS, key=lambda n: np.abs(pixel - COLOURS[n]).sum())  # noqa: E731
    return image.size, "".join(nearest(values[place]) for place in places)


def _bytes(image, kind, **options):
    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_each_of_the_eight_orientations_is_applied_once(kind, orientation):
    """Upright as EXIF means it, where the file has boxes that turn it and EXIF says so as well."""
    data = _bytes(_quarters(), kind, exif=_exif(orientation).tobytes())
    boxes = {name for name in (b"irot", b"imir") if name in data}
    assert bool(boxes) == (orientation > 1)
    tagged = io.BytesIO()
    _quarters().save(tagged, "PNG", exif=_exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(tagged))
    assert _seen(decode_image(data)) == _seen(expected)


def test_exif_without_boxes_turns_no_heic():
    """The boxes decide, as the standard has it: a converter that turned the pixels kept the tag."""
    data = _bytes(_quarters(), "HEIF", exif=_exif(6))
    assert b"irot" not in data
    assert _seen(decode_image(data)) == ((96, 64), "RGBW")


def test_both_formats_are_known_by_their_content():
    """What a file is called does not matter, and other files with boxes are neither."""
    assert [heif_format(_bytes(_quarters(), kind)) for kind in FORMATS] == ["HEIC", "AVIF"]
    assert heif_format(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2") is None
    assert heif_format(b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif") == "AVIF"
    assert heif_format(b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic") == "HEIC"
    assert heif_format(_bytes(_quarters(), "PNG")) is None


def test_a_file_of_several_images_gives_the_primary_one():
    """The second of three, which the file says is the one to show."""
    several = pillow_heif.HeifFile()
    for colour in ("red", "green", "blue"):
        several.add_from_pillow(Image.new("RGB", (64, 64), colour))
    file = io.BytesIO()
    several.save(file, primary_index=1)
    assert np.allclose(np.asarray(decode_image(file.getvalue()))[32, 32], (0, 128, 0), atol=8)


@pytest.mark.parametrize("kind", FORMATS)
def test_transparency_grey_and_a_brand_of_any_image_are_read(kind):
    """Alpha is kept beside RGB; grey becomes RGB; the brand mif1 is read by whoever can."""
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    found = decode_image(_bytes(clear, kind))
    assert found.mode == "RGB"
    assert np.asarray(found.info["alpha"]).max() == 0
    grey = decode_image(_bytes(Image.new("L", (64, 64), 100), kind))
    assert np.allclose(np.asarray(grey), 100, atol=3)
    data = _bytes(_quarters(), kind)
    assert _seen(decode_image(data[:8] + b"mif1" + data[12:])) == ((96, 64), "RGBW")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_truncated_wherever_it_is_cut(kind):
    """In its pixels, its index or its first box: never a wrong type, never half an image."""
    data = _bytes(_quarters(), kind)
    for length in (len(data) - 1, len(data) - 60, len(data) // 2, 60, 40, 20):
        with pytest.raises(Unreadable, match="truncated"):
            decode_image(data[:length])


def _saying(data, width, height):
    """The file with another size in every box of a size."""
    parts = data.split(b"ispe")
    size = struct.pack(">II", width, height)
    return b"ispe".join([parts[0], *(part[:4] + size + part[12:] for part in parts[1:])])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_size_that_would_take_gigabytes_is_a_bomb_before_it_is_decoded(kind):
    """A few hundred bytes that state 400 million pixels, or 2³¹ a side; other wrong sizes fail."""
    data = _bytes(_quarters(), kind)
    for side in (20_000, 2**31 - 1):
        with pytest.raises(Unreadable, match="bomb"):
            decode_image(_saying(data, side, side))
    large = _bytes(Image.new("RGB", (2000, 1000)), "HEIF")
    with pytest.raises(Unreadable, match="bomb"):
        decode_image(_saying(large, 16, 16))


def test_pixels_that_the_installed_decoder_cannot_read_are_no_damage():
    """AV1 in a file that says it is HEIC: pillow-heif has no decoder for it, and says so."""
    data = _bytes(_quarters(), "AVIF")
    end = data.index(b"meta")
    with pytest.raises(Unreadable, match="no-decoder"):
        decode_image(data[:end].replace(b"avif", b"heic") + data[end:])


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_fail_with_a_reason(kind):
    """Boxes of nonsense are damaged; the reason is one of an image's, as for other formats."""
    data = bytearray(_bytes(_quarters(), kind))
    place = data.index(b"meta") + 4
    with pytest.raises(Unreadable, match="damaged"):
        decode_image(bytes(data[:place]) + b"\xff" * 60 + bytes(data[place + 60 :]))


_FRESH = """
import io, sys
from PIL import Image
from pipelines.media.decode import decode_image
from pipelines.media.payloads import Unreadable
file = io.BytesIO()
Image.new("RGB", (8, 8)).save(file, "PNG")
decode_image(file.getvalue())
heic, avif = (bytes.fromhex(word) for word in sys.stdin.read().split())
decode_image(avif)
print("pillow_heif" in sys.modules)
if sys.argv[1:]:
    sys.modules["pillow_heif"] = None  # as where it is not installed
try:
    print(decode_image(heic).size)
except Unreadable as error:
    print(error.reason, error.transient, error.detail)
"""


@pytest.mark.parametrize("absent", [False, True])
def test_the_decoder_is_loaded_for_the_first_heic_alone(absent):
    """A fresh process, as a worker is: other images load nothing; without it the cell fails."""
    files = " ".join(_bytes(_quarters(), kind).hex() for kind in FORMATS)
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, *["absent"] * absent],
        input=files,
        capture_output=True,
        text=True,
        check=True,
        env=with_project(),
    )
    before, said = done.stdout.splitlines()
    assert before == "False"
    if absent:
        assert said.startswith("no-decoder False HEIC needs the package pillow-heif; run: ")
        assert 'pip install "mmfuse[heic]"' in said
    else:
        assert said == "(96, 64)"


def test_a_cell_of_heic_bytes_is_an_image():
    """Through the door that cells come in by, as bytes of a Parquet column or of a file."""
    assert decode("image", _bytes(_quarters(), "HEIF")).size == (96, 64)
