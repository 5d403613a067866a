"""Mel spectra: librosa's values, whatever the clip and however it comes in chunks."""

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.media.mel import MelSpec, mel_filters, mel_spectra

SPECS = [MelSpec(16000, 400, 160, 64), MelSpec(8000, 200, 80, 40), MelSpec(1000, 25, 10, 8),
         MelSpec(44100, 1103, 441, 128)]  # fmt: skip


def spectra(samples, spec, cuts=()):
    """(frames, bands) of a clip that comes in pieces."""
    return np.concatenate(list(mel_spectra(np.split(samples, sorted(cuts)), spec)))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_filters_are_those_of_librosa(spec):
    """Slaney's scale and area, also where it ends below 1 kHz."""
    theirs = librosa.filters.mel(sr=spec.rate, n_fft=spec.points, n_mels=spec.bands)
    assert np.allclose(mel_filters(spec.rate, spec.points, spec.bands), theirs.T, atol=1e-8)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("length", [1, 159, 160, 513, 4000, 70_001])
def test_spectra_are_those_of_librosa(spec, length):
    """Within a thousandth of a decibel, 80 dB below the loudest tone of a clip."""
    random = np.random.default_rng(length)
    tone = np.sin(np.arange(length) * 0.05) + 1e-4 * random.normal(size=length)
    samples = np.pad(tone.astype(np.float32), (0, max(0, spec.points - length)))
    theirs = librosa.feature.melspectrogram(
        y=samples, sr=spec.rate, n_fft=spec.points, win_length=spec.window, hop_length=spec.hop,
        n_mels=spec.bands,
    )  # fmt: skip
    ours = spectra(samples, spec).T
    assert ours.shape == theirs.shape == (spec.bands, 1 + len(samples) // spec.hop)
    decibels = [librosa.power_to_db(power, top_db=80) for power in (ours, theirs)]
    assert np.abs(decibels[0] - decibels[1]).max() < 1e-3


@given(st.lists(st.integers(0, 3000), max_size=6), st.integers(400, 3000))
def test_how_a_clip_is_cut_changes_nothing(cuts, length):
    """Empty pieces, single samples, pieces shorter than a window."""
    samples = np.sin(np.arange(length) ** 1.3).astype(np.float32)
    spec = SPECS[0]
    assert np.allclose(spectra(samples, spec, cuts), spectra(samples, spec), rtol=1e-5, atol=1e-9)
