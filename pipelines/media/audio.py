"""Decode audio files, and the sound of videos, to mono; anything wrong raises `Unreadable`."""

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.media.containers import truncation
from pipelines.media.payloads import Unreadable, Waveform
from pipelines.media.video import open_container

FORMATS = "WAV, FLAC, OGG and MP3 can be read"
MAX_RATE = 1 << 22  # hertz; ultrasound is recorded at a tenth of it
MAX_CANCELLED = 20.0  # decibels that the mean of the channels may lie below them
# Samples of one clip. Few bytes can state or hold any number of samples, so the limit grows with
# the file: 12 minutes at 44.1 kHz for any, and twice what the best speech codec needs for large.
FREE_SAMPLES = 1 << 25
MAX_SAMPLES = 1 << 30
_SAMPLES_PER_BYTE = 128
_MAX_UPSAMPLING = 8  # times as many samples as before, beyond FREE_SAMPLES
_BLOCK = 1 << 20  # values decoded at a time
_UNKNOWN_FRAMES = 1 << 62  # a file of unknown length states more
_OTHERS = ((b"RIFF", b"WAVE"), (b"fLaC", b""), (b"FORM", b"AIF"))  # never given to FFmpeg


def decode_audio(data: bytes) -> Waveform:
    """Audio as mono float32: the mean of the channels.

    WAV, FLAC, OGG, MP3 and AIFF; with the package `av` also M4A, AAC, WMA and the sound of videos.

    Raises:
        Unreadable: wrong-type, truncated, damaged, empty, too-large, non-finite, or
            cancelled-phase where the mean lies more than 20 dB below the channels, as it does
            for a recording of which one channel was inverted.
    """
    import soundfile

    mono = _Mono(len(data))
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, ValueError, RuntimeError, TypeError) as error:
        message = getattr(error, "error_string", error)  # the whole message holds an address
        return _decode_by_ffmpeg(data, mono, f"{message} {FORMATS}")
    with file:
        stated, rate = file.frames, int(file.samplerate)
        if stated < _UNKNOWN_FRAMES:
            mono.check(stated)
        try:
            while len(block := file.read(_BLOCK // file.channels, "float32", always_2d=True)):
                mono.add(block)
        except (soundfile.LibsndfileError, ValueError, RuntimeError, TypeError) as error:
            raise Unreadable("damaged", str(getattr(error, "error_string", error))) from error
    if not mono.length:
        raise Unreadable("truncated" if stated > 0 else "empty", "the audio has no samples")
    if missing := truncation(data, "audio"):
        raise Unreadable("truncated", missing)
    if mono.length < stated < _UNKNOWN_FRAMES:
        raise Unreadable("truncated", f"{mono.length:,} of {stated:,} samples could be decoded")
    return mono.finish(rate)


def checked_samples(payload: Waveform) -> NDArray[np.float32]:
    """Samples of a clip as float32, (T,), checked to be there and finite.

    Raises:
        Unreadable: empty, non-finite.
    """
    samples = np.asarray(payload.samples, np.float32)
    if not samples.size:
        raise Unreadable("empty", "the clip has no samples")
    if not np.isfinite(samples).all():
        raise Unreadable("non-finite", "the clip holds NaN or infinity")
    return samples


def check_resampling(samples: int, rate: float, wanted: float) -> None:
    """Check that resampling a clip does not make it huge, before it is done.

    Args:
        samples: of the clip.
        rate: its own sample rate, which a few bytes may state to be 1 Hz.
        wanted: the sample rate that it is to have.

    Raises:
        Unreadable: too-large.
    """
    length = samples * wanted / rate
    if length > max(FREE_SAMPLES, min(MAX_SAMPLES, _MAX_UPSAMPLING * samples)):
        raise Unreadable(
            "too-large", f"{samples:,} samples at {rate:g} Hz are {length:,.0f} at {wanted:g} Hz"
        )


def resampled(
    samples: NDArray[np.float32], rate: int, wanted: int
) -> Iterator[NDArray[np.float32]]:
    """A clip at another rate, ceil(T × wanted / rate) samples, in chunks of about a million.

    Args:
        samples: (T,).
        rate: theirs, in hertz.
        wanted: that of the chunks.
    """
    step = max(1, _BLOCK * rate // wanted)
    if rate == wanted:
        yield from (samples[start : start + step] for start in range(0, len(samples), step))
        return
    import soxr

    left = math.ceil(len(samples) * wanted / rate)
    if len(samples) <= step:
        chunks = iter([soxr.resample(samples, rate, wanted)])
    else:
        stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32")
        starts = range(0, len(samples), step)
        chunks = (
            stream.resample_chunk(samples[start : start + step], last=start + step >= len(samples))
            for start in starts
        )
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
    if left > 0:
        yield np.zeros(left, np.float32)


class _Mono:
    """Collects the mean of the channels block by block, within the limit of a clip's length."""

    def __init__(self, size: int) -> None:
        self.length = 0
        self._most = min(MAX_SAMPLES, max(FREE_SAMPLES, _SAMPLES_PER_BYTE * size))
        self._blocks: list[NDArray[np.float32]] = []
        self._power = self._mean_power = 0.0  # sums of squares: per channel, and of the mean
        self._channels = 1

    def check(self, length: int) -> None:
        """Raise `Unreadable` (too-large) for so many samples a channel."""
        if length > self._most:
            raise Unreadable(
                "too-large", f"{length:,} samples are more than {self._most:,} for its size"
            )

    def add(self, block: NDArray[np.float32]) -> None:
        """Add samples (T, channels)."""
        self.check(self.length + len(block))
        mean = block.mean(axis=1, dtype=np.float32)  # (T,)
        self._channels = max(self._channels, block.shape[1])
        self._power += float(np.vdot(block, block)) / block.shape[1]
        self._mean_power += float(np.vdot(mean, mean))
        self._blocks.append(mean)
        self.length += len(mean)

    def finish(self, rate: int) -> Waveform:
        """The clip.

        Raises:
            Unreadable: damaged, non-finite or cancelled-phase.
        """
        if not 0 < rate <= MAX_RATE:
            raise Unreadable("damaged", f"the audio states a rate of {rate:,} Hz")
        samples = self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
        if not np.isfinite(samples).all():
            raise Unreadable("non-finite", "the audio holds NaN or infinity")
        if self._power > self._mean_power * 10 ** (MAX_CANCELLED / 10):
            lost = 10 * math.log10(self._power / self._mean_power) if self._mean_power else math.inf
            raise Unreadable(
                "cancelled-phase",
                f"the mean of the {self._channels} channels is {lost:.0f} dB below them: they "
                "cancel each other; save one channel of it as mono",
            )
        return Waveform(samples, rate)


def _decode_by_ffmpeg(data: bytes, mono: _Mono, message: str) -> Waveform:
    """The first audio stream of any file that FFmpeg can read; `message` is why others could not.

    Files of the formats above are never given to it: it would read damaged ones as noise.
    """
    if any(data.startswith(first) and data[8:].startswith(then) for first, then in _OTHERS):
        raise Unreadable("wrong-type", message)
    try:
        import av
    except ModuleNotFoundError as error:
        more = f"{message}; M4A, AAC, WMA and the sound of videos with: pip install av"
        raise Unreadable("wrong-type", more) from error
    if missing := truncation(data, "audio"):
        raise Unreadable("truncated", missing)
    rate, cut = 0, False
    with open_container(data, message) as container:
        if not container.streams.audio:
            raise Unreadable("wrong-type", "the file has no audio stream")
        plain = av.AudioResampler(format="fltp")  # float, planar; channels and rate as they are
        try:
            for packet in container.demux(container.streams.audio[0]):
                cut = packet.is_corrupt if packet.size else cut
                for frame in packet.decode():
                    rate = rate or frame.sample_rate
                    _add_frame(mono, plain, frame)
        except (av.error.FFmpegError, ValueError) as error:
            reason = "truncated" if cut else "damaged"
            raise Unreadable(reason, f"{type(error).__name__}: {error}") from error
    if cut:
        raise Unreadable("truncated", "the last packet of the audio is not whole")
    if not mono.length:
        raise Unreadable("empty", "the audio has no samples")
    return mono.finish(rate)


def _add_frame(mono: _Mono, plain: Any, frame: Any) -> None:  # noqa: ANN401 - av ships no types
    for part in plain.resample(frame):
        mono.add(np.ascontiguousarray(part.to_ndarray().T))  # (T, channels)
