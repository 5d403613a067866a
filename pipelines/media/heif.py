"""HEIC and AVIF, images in boxes as MP4 has them: which of the two, how large, and who decodes it.

Pillow reads AVIF; the package `pillow-heif` teaches it HEIC, and is imported for the first of them.
Both turn an image as its boxes say (`irot`, `imir`), and ignore an orientation in EXIF beside them,
as the standard has it; AVIF then shows what its boxes say as that of EXIF.
"""

from collections.abc import Iterator
from functools import cache
from typing import Literal

from pipelines.media.containers import truncation
from pipelines.media.payloads import Unreadable

INSTALL = 'pip install "mmfuse[heic]"'
_LONGEST = 512  # bytes of the box that states what a file is
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
})  # fmt: skip


def heif_format(data: bytes) -> Literal["HEIC", "AVIF"] | None:
    """Which of the two a file says it is; None for all others."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), _LONGEST)
    brands = {data[place : place + 4] for place in (8, *range(16, end, 4))}
    if brands & _AVIF:
        return "AVIF"
    return "HEIC" if brands & _HEIC else None


def check_heif(data: bytes, kind: Literal["HEIC", "AVIF"], most: int) -> None:
    """Check before decoding that a file is whole, not huge, and that something decodes it.

    Args:
        data: the file.
        kind: of `heif_format`.
        most: maximal number of pixels.

    Raises:
        Unreadable: truncated, bomb, or no-decoder.
    """
    if missing := truncation(data, "image"):
        raise Unreadable("truncated", missing)
    for width, height in _sizes(data):
        if width * height > most:
            raise Unreadable("bomb", f"{width} × {height} pixels")
    if kind == "HEIC" and not _reads_heic():
        detail = f"HEIC needs the package pillow-heif; run: {INSTALL}, then: --retry-failed"
        raise Unreadable("no-decoder", detail)
    if kind == "AVIF" and not _reads_avif():
        detail = 'this Pillow is built without AVIF; run: pip install "pillow>=11.3"'
        raise Unreadable("no-decoder", detail)


def _sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of each image in the file: of its tiles and of the whole."""
    place = 0
    while place + 8 <= len(data):
        size, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + size if size >= 8 else len(data)
        if name == b"meta":
            found = data.find(b"ispe", place, end)
            while found >= 0:
                yield (
                    int.from_bytes(data[found + 8 : found + 12], "big"),
                    int.from_bytes(data[found + 12 : found + 16], "big"),
                )
                found = data.find(b"ispe", found + 4, end)
        place = end


@cache
def _reads_heic() -> bool:
    """Teach Pillow to read HEIC, once a process; whether it does."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def _reads_avif() -> bool:
    from PIL import features

    return features.check("avif") is True
