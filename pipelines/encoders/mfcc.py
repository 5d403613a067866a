"""Log-mel and MFCC statistics of audio, or their frames as a sequence; no weights."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.samples import Kind
from pipelines.encoding.encoder import Storage
from pipelines.media.audio import (
    FREE_SAMPLES,
    MAX_SAMPLES,
    check_resampling,
    checked_samples,
    resampled,
)
from pipelines.media.mel import MelSpec, mel_spectra
from pipelines.media.payloads import Unreadable

KINDS: dict[Kind, int | None] = {"audio": 248}
VERSION = 1
WINDOW, HOP = 0.025, 0.010  # seconds, as is usual for speech
BANDS, COEFFICIENTS = 64, 20
FLOOR = 80.0  # dynamic range in decibels below a clip's maximum
PARTS = 3  # equal parts of a clip whose mean coefficients are features
_LEAST_POWER = 1e-10


@dataclass(frozen=True)
class Mfcc:
    """64 log-mel bands and 20 cepstral coefficients every 10 ms, or statistics of them.

    A clip's statistics are means and standard deviations of the 84 rows, mean absolute deltas of
    the coefficients, and the coefficients' means in three equal parts of the clip.
    """

    rate: int
    sequence: bool
    name: str = "mfcc"
    storage: Storage = "float32"
    weights: Literal["weight-free"] = "weight-free"

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """`audio` → 84 a frame, or 2 × 84 + 20 × 4 a clip."""
        rows = BANDS + COEFFICIENTS
        return {"audio": rows if self.sequence else 2 * rows + COEFFICIENTS * (1 + PARTS)}

    def fields(self, kind: Kind) -> dict[str, object]:
        """Sample rate, window and numbers of bands and coefficients."""
        return {
            "encoder": self.name,
            "version": VERSION,
            "rate": self.rate,
            "window": [WINDOW, HOP],
            "rows": [BANDS, COEFFICIENTS],
            "floor": FLOOR,
            "parts": PARTS,
            "sequence": self.sequence,
        }

    def provenance(self) -> dict[str, object]:
        """Versions of the libraries that resample and transform."""
        return {"versions": {library: version(library) for library in ("soxr", "scipy")}}

    def prepare(self, kind: Kind, payload: Any) -> tuple[NDArray[np.float32], int]:  # noqa: ANN401
        """Waveform → (84, T) rows or (D,) statistics, float32; the cost is 1.

        Statistics of a long clip are gathered block by block, so that it takes no more memory.

        Raises:
            Unreadable: for audio without samples, with NaN or infinity, or too long.
        """
        samples = checked_samples(payload)
        if payload.rate != self.rate:
            if self.sequence:
                check_resampling(len(samples), payload.rate, self.rate)
            elif len(samples) * self.rate > MAX_SAMPLES * payload.rate:
                long = f"{len(samples):,} samples at {payload.rate:g} Hz"
                raise Unreadable(
                    "too-large", f"{long} are more than {MAX_SAMPLES:,} at {self.rate} Hz"
                )
        hop = round(HOP * self.rate)
        spec = MelSpec(self.rate, round(WINDOW * self.rate), hop, BANDS)
        length = max(math.ceil(len(samples) * self.rate / payload.rate), spec.points)

        def spectra() -> Iterator[NDArray[np.float32]]:
            return mel_spectra(
                _padded(resampled(samples, payload.rate, self.rate), spec.points), spec
            )

        if length > FREE_SAMPLES and not self.sequence:
            return _long_statistics(spectra, 1 + length // hop), 1
        rows = _rows(np.concatenate(list(spectra())).T)
        return (rows if self.sequence else _statistics(rows)), 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared clips → (D,) float32 each, or (T, 84) with `sequence`."""
        return [np.ascontiguousarray(rows.T) for rows in batch] if self.sequence else list(batch)


def _padded(chunks: Iterable[NDArray[np.float32]], least: int) -> Iterator[NDArray[np.float32]]:
    """The chunks of a clip, followed by silence if it is shorter than `least` samples."""
    length = 0
    for chunk in chunks:
        length += len(chunk)
        yield chunk
    if length < least:
        yield np.zeros(least - length, np.float32)


def _decibels(power: NDArray[np.float32]) -> NDArray[np.float32]:
    return 10 * np.log10(np.maximum(power, _LEAST_POWER))


def _rows(power: NDArray[np.float32], floor: float | None = None) -> NDArray[np.float32]:
    """Mel power (64, T) → log-mel bands and coefficients (84, T).

    Args:
        power: of some frames.
        floor: decibels below which bands are raised; None: `FLOOR` below the loudest of them.
    """
    mel = _decibels(power)
    mel = np.maximum(mel, mel.max() - FLOOR if floor is None else floor)
    cepstrum = _cosines() @ mel.astype(np.float64)  # sums of hundreds of decibels
    return np.concatenate([mel, cepstrum.astype(np.float32)])


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """Orthonormal discrete cosine transform of type II, (20, 64)."""
    angles = np.outer(np.arange(COEFFICIENTS), np.arange(BANDS) + 0.5) * np.pi / BANDS
    cosines = np.cos(angles) * np.sqrt(2 / BANDS)
    cosines[0] = np.sqrt(1 / BANDS)
    return np.asarray(cosines)


def _edges(frames: int) -> list[tuple[int, int]]:
    """First frame of each part of a clip, and the one behind its last."""
    edges = np.linspace(0, frames, PARTS + 1).round().astype(int).tolist()
    starts = [min(start, frames - 1) for start in edges[:-1]]
    return [(a, max(b, a + 1)) for a, b in zip(starts, edges[1:], strict=True)]


def _statistics(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(84, T) → (248,)."""
    cepstrum = rows[BANDS:]
    steps = np.abs(np.diff(cepstrum, axis=1)) if cepstrum.shape[1] > 1 else np.zeros_like(cepstrum)
    parts = [cepstrum[:, start:stop].mean(axis=1) for start, stop in _edges(rows.shape[1])]
    return np.concatenate([rows.mean(axis=1), rows.std(axis=1), steps.mean(axis=1), *parts])


def _long_statistics(
    spectra: Callable[[], Iterator[NDArray[np.float32]]], frames: int
) -> NDArray[np.float32]:
    """`_statistics` of a clip that is read twice, block by block: first for its loudest band.

    Args:
        spectra: starts reading: mel power, (B, 64) a block.
        frames: T.
    """
    floor = _decibels(np.array(max(float(block.max()) for block in spectra()))) - FLOOR
    total, squares = np.zeros(BANDS + COEFFICIENTS), np.zeros(BANDS + COEFFICIENTS)
    steps, parts = np.zeros(COEFFICIENTS), np.zeros((PARTS, COEFFICIENTS))
    edges, start, last = _edges(frames), 0, None
    centre = None
    for block in spectra():
        rows = _rows(block.T, float(floor)).astype(np.float64)  # (84, B)
        centre = rows.mean(axis=1) if centre is None else centre  # so that squares stay small
        total += (rows - centre[:, None]).sum(axis=1)
        squares += ((rows - centre[:, None]) ** 2).sum(axis=1)
        cepstrum = rows[BANDS:]
        steps += np.abs(np.diff(cepstrum, axis=1)).sum(axis=1)
        steps += 0 if last is None else np.abs(cepstrum[:, 0] - last)
        last = cepstrum[:, -1]
        for part, (first, behind) in zip(parts, edges, strict=True):
            part += cepstrum[:, max(0, first - start) : max(0, behind - start)].sum(axis=1)
        start += rows.shape[1]
    mean = total / frames
    spread = np.sqrt(np.maximum(squares / frames - mean**2, 0))
    lengths = [behind - first for first, behind in edges]
    means = [part / length for part, length in zip(parts, lengths, strict=True)]
    found = [mean + (0 if centre is None else centre), spread, steps / max(frames - 1, 1), *means]
    return np.concatenate(found).astype(np.float32)


def build(*, rate: int = 16000, sequence: bool = False) -> Mfcc:
    """Log-mel bands and MFCC as an encoder.

    Args:
        rate: hertz that every clip is resampled to.
        sequence: one vector every 10 ms instead of one a clip.
    """
    return Mfcc(rate, sequence)
