"""What the structure of a media file says of its end: bytes that are stated but missing.

Decoders read what is there and stop without an error, so a file cut in half would pass for whole.
A writer to a pipe states no length; such files, and formats without one, count as whole.
"""

_UNKNOWN_LENGTH = (1 << 31) - (1 << 16)  # bytes of a RIFF chunk; larger stated sizes mean unknown
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof", b"styp")
_MP4_NEEDED = (b"ftyp", b"meta", b"mdat", b"moov", b"moof")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF, _ASF_DATA = b"\x30\x26\xb2\x75", b"\x36\x26\xb2\x75"  # begin the header and the data object
_TS_PACKET = 188  # bytes of an MPEG-TS packet, the first of them a G
_OGG_HEADER = 27  # bytes before the segment table of an Ogg page


def truncation(data: bytes, noun: str) -> str | None:
    """What is missing at the end of a file; None if nothing, or if its format does not say.

    Formats: WAV, AVI, MP4 and QuickTime, Matroska and WebM, Ogg, ASF (WMV, WMA), MPEG-TS; HEIC and
    AVIF, which have the boxes of MP4.

    Args:
        data: the file.
        noun: `audio`, `video` or `image`, for the sentence.

    Returns:
        A sentence such as `the last 1,024 bytes of the audio are missing`.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        missing = _wav_missing(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        missing = _avi_missing(data)
    elif data[:4] == _EBML:
        missing = _matroska_missing(data)
    elif data[:4] == b"OggS":
        missing = _ogg_missing(data)
    elif data[:4] == _ASF:
        missing = _asf_missing(data)
    elif data[:1] == data[_TS_PACKET : _TS_PACKET + 1] == b"G":
        missing = -len(data) % _TS_PACKET
    elif data[4:8] in _MP4_STARTS:
        return _mp4_truncation(data, noun)
    else:
        return None
    return _bytes(missing, noun) if missing > 0 else None


def _bytes(missing: int, noun: str) -> str:
    return f"the last {missing:,} bytes of the {noun} are missing"


def _wav_missing(data: bytes) -> int:
    """By the size of the `data` chunk."""
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name == b"data":
            return place + 8 + size - len(data) if size < _UNKNOWN_LENGTH else 0
        place += 8 + size + size % 2
    return 0


def _avi_missing(data: bytes) -> int:
    """By the sizes of the RIFF chunks; large files have more than one."""
    place = 0
    while data[place : place + 4] == b"RIFF" and place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if not 0 < size < _UNKNOWN_LENGTH:
            return 0
        place += 8 + size + size % 2
    missing = place - len(data)
    return missing if missing > 1 else 0  # a byte of padding may be left out


def _mp4_truncation(data: bytes, noun: str) -> str | None:
    """By the sizes of the boxes at the top, and whether there is an index at all."""
    place, names = 0, set()
    while place + 8 <= len(data):
        size, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        header = 8
        if size == 1:
            size, header = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        elif size == 0:  # up to the end of the file
            size = len(data) - place
        if size < header:
            break
        names.add(name)
        if name in _MP4_NEEDED and place + size > len(data):
            return _bytes(place + size - len(data), noun)
        place += size
    has_index = bool(names & {b"moov", b"moof", b"meta"})
    if not has_index and (b"mdat" in names or noun == "image"):
        index = "meta" if noun == "image" else "moov"
        return f"the index ({index}) of the {noun}, which stands after its data, is missing"
    return None


def _matroska_missing(data: bytes) -> int:
    """By the size of the segment."""
    place = 0
    while place + 4 <= len(data):
        name = data[place : place + _size_length(data[place])]
        place += len(name)
        if place >= len(data):
            break
        length = _size_length(data[place])
        size = int.from_bytes(data[place : place + length], "big") & ((1 << 7 * length) - 1)
        unknown = size == (1 << 7 * length) - 1
        place += length
        if unknown:
            return 0
        if name == _SEGMENT:
            return place + size - len(data)
        place += size
    return 0


def _asf_missing(data: bytes) -> int:
    """By the size of the data object, which follows the header."""
    place = int.from_bytes(data[16:24], "little")
    if data[place : place + 4] != _ASF_DATA:
        return 0
    return place + int.from_bytes(data[place + 16 : place + 24], "little") - len(data)


def _size_length(first: int) -> int:
    """Bytes of an EBML number whose first byte this is: leading zero bits and one."""
    return 9 - first.bit_length()


def _ogg_missing(data: bytes) -> int:
    """By the segment table of the last page."""
    page = data.rfind(b"OggS")
    if page + _OGG_HEADER > len(data):
        return page + _OGG_HEADER - len(data)
    table = page + _OGG_HEADER
    segments = data[table - 1]
    return table + segments + sum(data[table : table + segments]) - len(data)
