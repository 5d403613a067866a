"""Kinds of media files, by the ending of their name or by their first bytes."""

from cache.samples import Kind

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": (
        ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif",
        ".hif", ".avif", ".jfif", ".ppm", ".tga",
    ),
    "audio": (
        ".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".oga", ".m4a", ".aac", ".wma",
        ".amr", ".au",
    ),
    "video": (
        ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
    ),
}  # fmt: skip
HEAD = 16
"""Bytes at the start of a file that `sniffed` looks at."""
_STARTS: dict[Kind, tuple[bytes, ...]] = {
    "image": (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP"),
    "audio": (b"fLaC", b"OggS", b"ID3", b".snd", b"#!AMR", b"caff"),
    "video": (b"\x1a\x45\xdf\xa3", b"FLV\1", b"\0\0\1\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
}
_RIFF: dict[bytes, Kind] = {b"WAVE": "audio", b"WEBP": "image", b"AVI ": "video"}
_IMAGE_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1", b"avif", b"avis")
_AUDIO_BRANDS = (b"M4A ", b"M4B ")


def sniffed(head: bytes) -> Kind | None:
    """The kind of a file by its first `HEAD` bytes; None where they are of no known format."""
    for kind, starts in _STARTS.items():
        if head.startswith(starts):
            return kind
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM":
        return "audio" if head[8:12] in (b"AIFF", b"AIFC") else None
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "image" if brand in _IMAGE_BRANDS else "audio" if brand in _AUDIO_BRANDS else "video"
    frame = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # of MPEG audio or ADTS
    return "audio" if frame and head[2] & 0xF0 != 0xF0 else None
