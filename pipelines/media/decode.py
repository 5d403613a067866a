"""Decode encoded images, audio and video; anything wrong with them raises `Unreadable`."""

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.media.payloads import Frames, Unreadable, Waveform

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # above it Pillow suspects a decompression bomb
MAX_SOUND = 1 << 30  # samples of all channels; 4 GB of float32
_UNKNOWN_LENGTH = (1 << 31) - (1 << 16)  # bytes of a WAV; larger stated sizes mean unknown


def decode_image(data: bytes) -> "Image":
    """An upright RGB image with 8 bits a channel, decoded to the last byte.

    The first frame of an animation; 16 bits scaled to 8; EXIF orientation applied; transparency is
    dropped, as the reference pipelines of CLIP and torchvision do, not blended.

    Raises:
        Unreadable: wrong-type, truncated, damaged, bomb, non-finite.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # True would turn damaged parts into grey
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on size and odd metadata, which are checked here
        try:
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise Unreadable("bomb", f"{width} × {height} pixels")
                image.load()
                return _rgb(_upright(image))
        except Unreadable:
            raise
        except UnidentifiedImageError as error:
            raise Unreadable("wrong-type", "no known image format") from error
        except Image.DecompressionBombError as error:
            raise Unreadable("bomb", str(error)) from error
        except Exception as error:  # decoders raise anything on damaged bytes; it costs the cell
            reason = "truncated" if "truncated" in str(error).lower() else "damaged"
            raise Unreadable(reason, f"{type(error).__name__}: {error}") from error


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
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.mode == "P":  # a palette with transparency must be converted to RGBA first
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """(H, W) grey values of deep modes → 0 … 255.

    Integers are taken as 16 bits wide, or 32 where they do not fit; floats as 0 … 1, or 0 … 255
    where they do not fit.
    """
    deep = values.astype(np.float64)
    if not np.isfinite(deep).all():
        raise Unreadable("non-finite", "the image holds NaN or infinity")
    top = deep.max()
    if mode == "F":
        scale = 255.0 if top <= 1 else 1.0
    else:
        scale = 255 / 65535 if top <= 65535 else 255 / (2**31 - 1)
    return np.clip(np.rint(deep * scale), 0, 255).astype(np.uint8)


def decode_audio(data: bytes) -> Waveform:
    """Audio as mono float32, channels averaged; WAV, FLAC, OGG and MP3.

    Raises:
        Unreadable: wrong-type, truncated, empty, bomb, non-finite.
    """
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, ValueError, RuntimeError, TypeError) as error:
        message = getattr(error, "error_string", error)  # the whole message holds an address
        detail = f"{message} WAV, FLAC, OGG and MP3 can be read"
        raise Unreadable("wrong-type", detail) from error
    with file:
        if file.frames * file.channels > MAX_SOUND:
            raise Unreadable("bomb", f"{file.frames:,} frames of {file.channels} channels")
        stated, rate = file.frames, int(file.samplerate)
        try:
            channels = file.read(dtype="float32", always_2d=True)  # (T, channels)
        except (soundfile.LibsndfileError, ValueError, RuntimeError, TypeError) as error:
            raise Unreadable("damaged", str(getattr(error, "error_string", error))) from error
    if not len(channels):
        raise Unreadable("truncated" if stated > 0 else "empty", "the audio has no samples")
    if missing := _missing_bytes(data):
        raise Unreadable("truncated", f"the last {missing:,} bytes of the audio are missing")
    if len(channels) < stated < 2**62:  # a file of unknown length states the largest number
        raise Unreadable("truncated", f"{len(channels):,} of {stated:,} samples could be decoded")
    samples = channels.mean(axis=1, dtype=np.float32)  # (T,)
    if not np.isfinite(samples).all():
        raise Unreadable("non-finite", "the audio holds NaN or infinity")
    return Waveform(samples, rate)


def _missing_bytes(data: bytes) -> int:
    """Bytes that a WAV's header states and the file lacks.

    soundfile reads what is there without an error. A writer to a pipe, which cannot know the
    length, states none or nearly 2 or 4 GB.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return 0
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name == b"data":
            return max(0, place + 8 + size - len(data)) if size < _UNKNOWN_LENGTH else 0
        place += 8 + size + size % 2
    return 0


def decode_video(data: bytes) -> Frames:
    """A video with its frame count; `pictures` decodes the frames later.

    Raises:
        Unreadable: wrong-type, empty, or no-decoder where the package `av` is not installed.
    """
    with _open_video(data) as container:
        stream = _video_stream(container)
        rate = float(stream.average_rate or 0)
        # Containers may not know their length, or state it wrongly: packets are counted.
        count = sum(packet.size > 0 for packet in _until_damage(container.demux(stream)))
    if not count:
        raise Unreadable("empty", "the video has no frames")
    return Frames(path="", count=count, rate=rate, data=data)


def decode_frames(frames: Frames, numbers: Sequence[int]) -> list["Image"]:
    """Decode frames of a video by number to RGB images, in the given order, repeats allowed.

    Where fewer frames can be decoded than were counted, the last one stands for the missing.

    Raises:
        Unreadable: where no frame can be decoded.
    """
    wanted = set(numbers)
    if not wanted:
        return []
    found: dict[int, Image] = {}
    last = None
    with _open_video(frames.data or frames.path) as container:
        stream = _video_stream(container)
        stream.thread_type = "AUTO"
        for number, frame in enumerate(_until_damage(container.decode(stream))):
            last = frame
            if number in wanted:
                found[number] = frame.to_image().convert("RGB")
            if number >= max(wanted):
                break
    if last is None:
        raise Unreadable("damaged", "no frame of the video can be decoded")
    ending = last.to_image().convert("RGB")
    return [found.get(number, ending) for number in numbers]


def _until_damage(items: Iterator[Any]) -> Iterator[Any]:
    import av

    try:
        yield from items
    except av.error.FFmpegError:
        return  # frames before the damage are good


def _video_stream(container: Any) -> Any:  # noqa: ANN401 - av ships no types
    if not container.streams.video:
        raise Unreadable("wrong-type", "the file has no video stream")
    return container.streams.video[0]


def _open_video(source: bytes | str) -> Any:  # noqa: ANN401 - av ships no types
    try:
        import av
    except ModuleNotFoundError as error:
        detail = "video needs the package av; run: pip install av"
        raise Unreadable("no-decoder", detail) from error
    try:
        return av.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (av.error.FFmpegError, ValueError) as error:
        raise Unreadable("wrong-type", f"no known video format: {error}") from error
