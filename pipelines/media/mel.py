"""Mel spectra of audio, block by block: librosa's values, without its start-up and memory.

As `librosa.feature.melspectrogram` with its defaults: frames centred on multiples of the hop, zeros
beyond both ends, a periodic Hann window, power, Slaney's mel scale and area normalisation.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

_FRAMES = 1 << 12  # transformed at a time
_LINEAR = 200 / 3  # hertz of a mel below `_BREAK`, where the scale is linear
_BREAK = 1000.0  # hertz; above it, 27 mels are a factor of 6.4
_STEP = math.log(6.4) / 27


@dataclass(frozen=True)
class MelSpec:
    """Parameters of mel spectra.

    Attributes:
        rate: of the samples, in hertz.
        window: length of the window in samples; the Fourier transform has the next power of two.
        hop: samples from frame to frame.
        bands: number of bands, from 0 to half the rate.
    """

    rate: int
    window: int
    hop: int
    bands: int

    @property
    def points(self) -> int:
        """Length of the Fourier transform."""
        return 1 << (self.window - 1).bit_length()


def mel_spectra(
    chunks: Iterable[NDArray[np.float32]], spec: MelSpec
) -> Iterator[NDArray[np.float32]]:
    """Mel power spectra of a clip: 1 + T // hop frames, in blocks (B, bands).

    Args:
        chunks: consecutive samples, T in all.
        spec: window, hop and bands.
    """
    from scipy.fft import rfft

    window, hop, points = spec.window, spec.hop, spec.points
    shape, filters = _hann(window), mel_filters(spec.rate, points, spec.bands)
    before = points // 2 - (points - window) // 2
    left = np.zeros(before, np.float32)
    for chunk in chain(chunks, [np.zeros(window - before, np.float32)]):
        left = np.concatenate([left, chunk])
        count = max(0, 1 + (len(left) - window) // hop)
        for start in range(0, count, _FRAMES):
            stop = min(count, start + _FRAMES)
            part = left[start * hop : (stop - 1) * hop + window]
            frames = np.lib.stride_tricks.sliding_window_view(part, window)[::hop]
            spectrum = rfft(frames * shape, points)  # (B, points // 2 + 1) complex128
            power = spectrum.real**2 + spectrum.imag**2
            yield power.astype(np.float32) @ filters
        left = left[count * hop :]


@lru_cache(maxsize=8)
def mel_filters(rate: int, points: int, bands: int) -> NDArray[np.float32]:
    """Triangular filters (points // 2 + 1, bands), each of area 1 over hertz times 2.

    Slaney's scale (Auditory Toolbox, 1998), linear below 1 kHz and logarithmic above.
    """
    top = _BREAK / _LINEAR + max(0.0, math.log(rate / 2 / _BREAK) / _STEP)
    top = top if rate / 2 >= _BREAK else rate / 2 / _LINEAR
    mels = np.linspace(0, top, bands + 2)
    logarithmic = _BREAK * np.exp(_STEP * (mels - _BREAK / _LINEAR))
    edges = np.where(mels < _BREAK / _LINEAR, mels * _LINEAR, logarithmic)  # hertz
    tones = np.linspace(0, rate / 2, points // 2 + 1)[:, None]
    rising = (tones - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - tones) / np.diff(edges)[1:]
    weights = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return np.ascontiguousarray(weights, np.float32)


@lru_cache(maxsize=8)
def _hann(length: int) -> NDArray[np.float64]:
    """A periodic Hann window; in float32 its rounding would show 70 dB below the loudest tone."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length))
