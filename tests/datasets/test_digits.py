"""The built-in digits: hard enough alone, honest in everything but the signal."""

import io
import time
import wave

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines import catalog
from pipelines.datasets import digits
from pipelines.media import cells as reading

# One class in ten by chance; 1,797 rows give a standard error of 0.7 points: four of them.
CHANCE = 0.13


@pytest.fixture(scope="module")
def dataset():
    """The dataset as everybody gets it."""
    return digits.build()


@pytest.fixture(scope="module")
def labels(dataset):
    """(N,) classes."""
    return dataset.table["target"].to_numpy()


def leak(side, labels):
    """Cross-validated accuracy of a forest that sees side channels (N, F) alone."""
    side = np.asarray(side, float).reshape(len(labels), -1)
    forest = RandomForestClassifier(40, min_samples_leaf=20, random_state=0)
    return cross_val_score(forest, side, labels, cv=5).mean()


@pytest.fixture(scope="module")
def whole():
    """The table as it is before some cells are taken away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "ABSENT", 0.0)
        return digits.build().table


def test_rows_splits_and_absence_are_as_documented(dataset):
    """1,797 rows, 60/20/20 with every class in every split, a tenth of the cells absent."""
    table = dataset.table
    assert len(table) == 1797
    shares = table["split"].value_counts(normalize=True)
    assert dict(shares.iter_rows()) == pytest.approx(
        {"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.01
    )
    assert table.group_by("split", "target").len().height == 30
    present = np.stack([~table[m.name].is_null().to_numpy() for m in dataset.modalities], 1)
    assert present.any(axis=1).all()
    assert 1 - present.mean(axis=0) == pytest.approx([0.1] * 3, abs=0.025)


def test_the_same_seed_gives_the_same_bytes(dataset):
    """Building twice gives equal tables; another seed gives another."""
    assert dataset.table.equals(digits.build(seed=0).table)
    assert not dataset.table.equals(digits.build(seed=1).table)


def test_building_is_fast():
    """Nobody waits for the built-in data: two seconds of CPU time at the very most."""
    start = time.process_time()
    digits.build()
    assert time.process_time() - start < 2


def test_every_cell_can_be_read(dataset):
    """Images, clips and phrases decode to the payloads of their kinds."""
    for modality in dataset.modalities:
        for cell in dataset.table[modality.name].drop_nulls().head(50):
            assert reading.read(modality.kind, cell, None) is not None


@pytest.mark.parametrize(
    ("encoder", "modality"), [("pixels", "image"), ("mfcc", "audio"), ("hashing", "text")]
)
def test_each_modality_alone_is_useful_and_not_enough(dataset, labels, encoder, modality):
    """A plain logistic regression on weight-free features scores 60 to 90 % on test."""
    encoder = catalog.find("encoders", encoder).build()
    rows = np.flatnonzero(~dataset.table[modality].is_null().to_numpy())
    cells = dataset.table[modality].to_list()
    payloads = [reading.read(modality, cells[row], None) for row in rows]
    prepared = [encoder.prepare(modality, payload)[0] for payload in payloads]
    features = np.stack(encoder.encode(modality, prepared))
    split = dataset.table["split"].to_numpy()[rows]
    probe = LogisticRegression(max_iter=2000)
    # Numbers want a common scale; counts of n-grams, mostly zero, lose by it.
    probe = probe if modality == "text" else make_pipeline(StandardScaler(), probe)
    probe.fit(features[split == "train"], labels[rows][split == "train"])
    score = probe.score(features[split == "test"], labels[rows][split == "test"])
    assert 0.6 < score < 0.9


def test_absence_says_nothing_of_the_class(dataset, labels):
    """Which cells are missing predicts the class no better than chance."""
    side = [dataset.table[m.name].is_null().to_numpy() for m in dataset.modalities]
    assert leak(np.stack(side, 1), labels) < CHANCE


def test_the_order_of_rows_says_nothing_of_the_class(labels):
    """Neither the row number nor its last digit predicts the class."""
    rows = np.arange(len(labels))
    assert leak(np.stack([rows, rows % 10], 1), labels) < CHANCE


def test_the_side_channels_of_pictures_say_nothing_of_the_class(whole, labels):
    """Brightness, contrast and file size predict the class no better than chance."""
    cells = whole["image"]
    greys = [np.asarray(Image.open(io.BytesIO(cell)), float) for cell in cells]
    for side in (
        [grey.mean() for grey in greys],
        [grey.std() for grey in greys],
        [len(cell) for cell in cells],
        [(grey.mean(), grey.std()) for grey in greys],
    ):
        assert leak(side, labels) < CHANCE


def test_the_side_channels_of_sound_say_nothing_of_the_class(whole, labels):
    """Loudness, peak, duration and the noise above the tones say nothing of the class."""
    clips = []
    for cell in whole["audio"]:
        with wave.open(io.BytesIO(cell)) as file:
            clips.append(np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768)
    loudness = [np.sqrt(np.mean(clip**2)) for clip in clips]
    assert np.std(loudness) < 1e-3 * np.mean(loudness)
    noise = [np.mean(np.abs(np.fft.rfft(c)[len(c) // 4 :]) ** 2) / len(c) for c in clips]  # > 2 kHz
    peaks, durations = [np.abs(clip).max() for clip in clips], [len(clip) for clip in clips]
    for side in (
        loudness,
        noise,
        peaks,
        durations,
        list(zip(noise, peaks, durations, strict=True)),
    ):
        assert leak(side, labels) < CHANCE


def test_the_lengths_in_a_phrase_say_nothing_of_the_class(whole, labels):
    """Characters, words, fillers' characters and the misspelt word's length: all at chance."""
    sides = []
    for phrase in whole["text"]:
        words = phrase.split()
        odd = [len(word) for word in words if word not in digits.FILLERS]
        sides.append((len(phrase), len(words), len(phrase) - sum(odd), sum(odd)))
    for side in (*zip(*sides, strict=True), sides):
        assert leak(side, labels) < CHANCE


def test_fillers_hold_no_number():
    """No filler is a number's word, so a phrase names one digit at most."""
    assert not set(digits.FILLERS) & set(digits.WORDS)
