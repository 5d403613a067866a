"""Log-mel and MFCC statistics of audio, or their frames as a sequence; no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.samples import Kind
from pipelines.encoding.encoder import Storage
from pipelines.media.audio import check_resampling, checked_samples

KINDS: dict[Kind, int | None] = {"audio": 248}
VERSION = 1
WINDOW, HOP = 0.025, 0.010  # seconds, as is usual for speech
BANDS, COEFFICIENTS = 64, 20
FLOOR = 80.0  # dynamic range in decibels below a clip's maximum
PARTS = 3  # equal parts of a clip whose mean coefficients are features


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
        libraries = ("librosa", "soxr", "scipy")
        return {"versions": {library: version(library) for library in libraries}}

    def prepare(self, kind: Kind, payload: Any) -> tuple[NDArray[np.float32], int]:  # noqa: ANN401
        """Waveform → (84, T) rows or (D,) statistics, float32; the cost is 1.

        Raises:
            Unreadable: for audio without samples, with NaN or infinity, or too long to resample.
        """
        import librosa

        samples = checked_samples(payload)
        if payload.rate != self.rate:
            check_resampling(len(samples), payload.rate, self.rate)
            samples = librosa.resample(samples, orig_sr=payload.rate, target_sr=self.rate)
        window, hop = round(WINDOW * self.rate), round(HOP * self.rate)
        size = 1 << (window - 1).bit_length()
        if len(samples) < size:
            samples = np.pad(samples, (0, size - len(samples)))
        power = librosa.feature.melspectrogram(
            y=samples, sr=self.rate, n_fft=size, win_length=window, hop_length=hop, n_mels=BANDS
        )
        mel = librosa.power_to_db(power, top_db=FLOOR)  # (64, T)
        cepstrum = librosa.feature.mfcc(S=mel, n_mfcc=COEFFICIENTS)  # (20, T)
        rows = np.concatenate([mel, cepstrum]).astype(np.float32)  # (84, T)
        return (rows if self.sequence else _statistics(rows)), 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared clips → (D,) float32 each, or (T, 84) with `sequence`."""
        return [np.ascontiguousarray(rows.T) for rows in batch] if self.sequence else list(batch)


def _statistics(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(84, T) → (248,)."""
    cepstrum = rows[BANDS:]
    steps = np.abs(np.diff(cepstrum, axis=1)) if cepstrum.shape[1] > 1 else np.zeros_like(cepstrum)
    edges = np.linspace(0, rows.shape[1], PARTS + 1).round().astype(int)
    parts = [
        cepstrum[:, start : max(stop, start + 1)].mean(axis=1)
        for start, stop in zip(np.minimum(edges[:-1], rows.shape[1] - 1), edges[1:], strict=True)
    ]
    return np.concatenate([rows.mean(axis=1), rows.std(axis=1), steps.mean(axis=1), *parts])


def build(*, rate: int = 16000, sequence: bool = False) -> Mfcc:
    """Log-mel bands and MFCC as an encoder.

    Args:
        rate: hertz that every clip is resampled to.
        sequence: one vector every 10 ms instead of one a clip.
    """
    return Mfcc(rate, sequence)
