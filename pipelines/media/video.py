"""Decode videos frame by frame, as players show them; anything wrong raises `Unreadable`."""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pipelines.media.containers import truncation
from pipelines.media.payloads import Frames, Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAME_PIXELS = 36_000_000  # 8K is 33 million
MAX_VIDEO_PIXELS = 1 << 42  # of all frames: 20 hours of 1080p at 30 frames a second
_THREADED_PIXELS = 9_000_000  # each thread of the decoder holds frames: larger ones take one thread
# Frames that state more are never allocated, and playlists fetch nothing.
_OPTIONS = {"max_pixels": str(MAX_FRAME_PIXELS), "protocol_whitelist": "none"}


def decode_video(data: bytes) -> Frames:
    """A video with its frame count and time span; `decode_frames` decodes the frames later.

    Raises:
        Unreadable: wrong-type, truncated, damaged, empty, too-large, or no-decoder where the
            package `av` is not installed.
    """
    _require_av()
    if missing := truncation(data, "video"):
        raise Unreadable("truncated", missing)
    with open_container(data, "no known video format") as container:
        stream = _video_stream(container)
        rate, pixels = float(stream.average_rate or 0), stream.width * stream.height
        # Containers may not know their length, or state it wrongly: packets are read, not decoded.
        span = _Span()
        for packet in _demuxed(container, stream):
            span.add(packet)
    if span.cut:
        raise Unreadable("truncated", "the last packet of the video is not whole")
    if not span.count:
        raise Unreadable("empty", "the video has no frames")
    if span.count * pixels > MAX_VIDEO_PIXELS:
        raise Unreadable("too-large", f"{span.count:,} frames of {pixels:,} pixels")
    start, end = span.limits()
    return Frames(data, span.count, rate, start, end, timed=span.timed)


def decode_frames(frames: Frames, wanted: int) -> Iterator["Image"]:
    """Decode at most `wanted` frames as RGB images, one after another.

    They are those shown at evenly spaced moments from the first frame on, in a variable frame
    rate too; a frame that is shown at two of the moments is given once. Each is as a player shows
    it: with square pixels, turned and mirrored as the file says.

    Raises:
        Unreadable: damaged, or too-large.
    """
    for frame, ratio in _chosen(frames, wanted):
        yield _oriented(_square(frame.to_image().convert("RGB"), ratio), _display_matrix(frame))


def open_container(data: bytes, message: str) -> Any:  # noqa: ANN401 - av ships no types
    """An open container of FFmpeg; nothing outside of the bytes is ever opened.

    Raises:
        Unreadable: wrong-type, with the message, or empty.
    """
    import av

    try:
        return av.open(io.BytesIO(data), options=dict(_OPTIONS))
    except av.error.EOFError as error:
        raise Unreadable("empty", "the file ends before its first frame") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise Unreadable("wrong-type", message) from error


class _Span:
    """Number of shown frames and their time span, from packets that are not decoded."""

    def __init__(self) -> None:
        self.count, self.timed, self.cut = 0, True, False
        self._first = self._last = self._duration = 0

    def add(self, packet: Any) -> None:  # noqa: ANN401
        """Add a packet; those that are not shown do not count."""
        self.cut = packet.is_corrupt
        if packet.is_discard:
            return
        time = packet.pts
        if time is None:
            self.timed = False
        elif not self.count or time >= self._last:
            self._last, self._duration = time, packet.duration or 0
        if time is not None:
            self._first = time if not self.count else min(self._first, time)
        self.count += 1

    def limits(self) -> tuple[int, int]:
        """First moment, and that after the last frame: in ticks, or by number if untimed."""
        if not self.timed:
            return 0, self.count
        mean = (self._last - self._first) // max(self.count - 1, 1)
        return self._first, self._last + max(self._duration or mean, 1)


def _chosen(frames: Frames, wanted: int) -> Iterator[tuple[Any, Fraction]]:
    """Frames shown at evenly spaced moments, as decoded, and the shape of their pixels."""
    length = frames.end - frames.start
    moments = [frames.start + place * length // wanted for place in range(wanted)]
    with open_container(frames.data, "no known video format") as container:
        stream = _video_stream(container)
        if stream.width * stream.height <= _THREADED_PIXELS:
            stream.thread_type = "AUTO"
        else:
            stream.codec_context.thread_count = 1
        ratio, before, place = Fraction(stream.sample_aspect_ratio or 1), None, 0
        for number, frame in enumerate(_decoded(container, stream)):
            time = number if not frames.timed or frame.pts is None else frame.pts
            if before is not None and time > moments[place]:
                yield before, ratio
                while place < wanted and moments[place] < time:
                    place += 1
                if place == wanted:
                    return
            before = frame
    if before is None:
        raise Unreadable("damaged", "no frame of the video can be decoded")
    yield before, ratio


def _demuxed(container: Any, stream: Any) -> Iterator[Any]:  # noqa: ANN401
    import av

    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.error.FFmpegError as error:
        raise Unreadable("damaged", f"{type(error).__name__}: {error}") from error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:  # noqa: ANN401
    import av

    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise Unreadable("damaged", "a frame of the video is not whole")
            yield frame
    except av.error.FFmpegError as error:
        raise Unreadable("damaged", f"{type(error).__name__}: {error}") from error


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:  # noqa: ANN401
    """The matrix (a, b, c, d) that stored places (x, y) are shown at: (ax + cy, bx + dy)."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found)[:36])
    return a, b, c, d


def _oriented(image: "Image", matrix: tuple[int, int, int, int]) -> "Image":
    """Turn and mirror an image by the nearest of the eight orientations."""
    from PIL.Image import Transpose

    a, b, c, d = matrix
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.transpose(Transpose.TRANSPOSE), c, b
    if across < 0 and down < 0:
        return image.transpose(Transpose.ROTATE_180)
    if across < 0:
        return image.transpose(Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Transpose.FLIP_TOP_BOTTOM) if down < 0 else image


def _square(image: "Image", ratio: Fraction) -> "Image":
    """Stretch an image whose pixels are `ratio` times as wide as high, so that they are square."""
    from PIL import Image

    width, height = image.size
    wide = round(width * ratio) if ratio > 1 else width  # stretched either way, never squeezed
    high = round(height / ratio) if ratio < 1 else height
    if wide * high > MAX_FRAME_PIXELS:
        raise Unreadable("too-large", f"{wide} × {high} pixels, with pixels of shape {ratio}")
    if (wide, high) == image.size:
        return image
    return image.resize((wide, high), Image.Resampling.BICUBIC)


def _video_stream(container: Any) -> Any:  # noqa: ANN401 - av ships no types
    if not container.streams.video:
        raise Unreadable("wrong-type", "the file has no video stream")
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise Unreadable("too-large", f"frames of {stream.width} × {stream.height} pixels")
    if not stream.width:  # FFmpeg does not say which of the two
        detail = f"frames of more than {MAX_FRAME_PIXELS:,} pixels, or of a damaged size"
        raise Unreadable("too-large", detail)
    return stream


def _require_av() -> None:
    try:
        import av  # noqa: F401
    except ModuleNotFoundError as error:
        detail = "video needs the package av; run: pip install av"
        raise Unreadable("no-decoder", detail) from error
