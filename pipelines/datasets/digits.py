"""Built-in digits: handwritten image, synthetic dial tone in noise, and misspelt digit word.

The images are the 1,797 of scikit-learn (UCI ML hand-written digits, test set); tone and phrase
are synthetic. Each modality is degraded so that a plain logistic regression on weight-free features
scores roughly 60 to 90 % with it alone; the constants below were fixed on such single-modality
probes. About one cell in ten is absent. Only the signal depends on the class: brightness and
contrast of the image, loudness, noise level and duration of the audio, the lengths of the phrase,
of its fillers and of the misspelt word, and absence itself are drawn independently of it.
"""

import io
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.samples import Modality, Task
from pipelines.data.dataset import Dataset

NEEDS_DATA = False
SOURCE = "built in"
LICENCE = (
    "pictures: scikit-learn's digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0)"
)

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FILLERS = (
    "please", "dial", "call", "the", "number", "digit", "press", "key", "it", "is", "now", "you",
    "heard", "ring", "again", "desk", "room", "and", "then", "wait", "for", "thanks",
    "maybe", "just", "was", "said", "they", "took", "my", "old", "phone", "at", "home", "today",
)  # fmt: skip
ROWS, COLUMNS = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0)  # hertz, ITU-T Q.23
RATE = 8000  # hertz

SIDE = 16  # pixels of an image
GREY_NOISE = 0.7  # standard deviations of the digit's own contrast
SHIFT = 1  # pixels, at most, in each direction
TONE_TO_NOISE = (-20.0, -8.0)  # decibels, drawn per clip
SECONDS = (0.25, 0.40)  # drawn per clip
LOUDNESS = 0.08  # root mean square of every clip
WORD_LENGTH = (4, 5)  # letters of the misspelt word, drawn independently of the word
WRONG_LETTER = 0.28  # probability of each letter to be replaced
FILLER_COUNT = (3, 6)
ABSENT = 0.10  # probability of each cell, but never all three of a row


def build(root: Path | None = None, *, seed: int = 0) -> Dataset:
    """The 1,797 rows, 60/20/20 by class, the same bytes for the same seed.

    Args:
        root: not used; the data is built in.
        seed: of degradation, absence and split.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels: NDArray[np.int64] = digits.target.astype(np.int64)
    count = len(labels)
    images, clips, phrases, holes, order = np.random.default_rng(seed).spawn(5)
    shuffled = order.permutation(
        count
    )  # scikit-learn's order counts 0, 1, 2 … and would leak the class
    greys, labels = digits.images[shuffled], labels[shuffled]
    present = _present(count, holes)  # (N, 3)
    columns: dict[str, list[bytes] | list[str]] = {
        "image": [_picture(grey, images) for grey in greys],
        "audio": [_clip(int(digit), clips) for digit in labels],
        "text": [_phrase(int(digit), phrases) for digit in labels],
    }
    table = pl.DataFrame(
        {
            "id": [f"digit-{row:04d}" for row in range(count)],
            "split": _split(labels, order),
            "target": labels,
        }
    )
    for place, (name, cells) in enumerate(columns.items()):
        dtype = pl.String if name == "text" else pl.Binary
        shown = [
            cell if here else None for cell, here in zip(cells, present[:, place], strict=True)
        ]
        table = table.with_columns(pl.Series(name, shown, dtype))
    return Dataset(
        name="digits",
        table=table,
        modalities=(
            Modality("image", "image"),
            Modality("audio", "audio"),
            Modality("text", "text"),
        ),
        task=Task("classes", WORDS),
        source="synthetic",
        licence=LICENCE,
    )


def _picture(grey: NDArray[np.float64], generator: np.random.Generator) -> bytes:
    """An 8 × 8 digit, enlarged, shifted, with noise, mean and contrast set: PNG bytes."""
    from PIL import Image

    large = Image.fromarray(grey.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    moved = np.roll(np.asarray(large), generator.integers(-SHIFT, SHIFT + 1, 2), axis=(0, 1))
    noisy = moved / moved.std() + GREY_NOISE * generator.standard_normal((SIDE, SIDE))
    even = (noisy - noisy.mean()) / noisy.std()
    return _png(np.clip(np.rint(128 + 32 * even), 0, 255).astype(np.uint8))


def _png(grey: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def _clip(digit: int, generator: np.random.Generator) -> bytes:
    """The digit's two tones in white noise at one loudness: WAV bytes, 16 bits."""
    import wave

    length = int(RATE * generator.uniform(*SECONDS))
    time = np.arange(length) / RATE  # (T,)
    place = 10 if digit == 0 else digit - 1  # the zero lies under the eight
    row, column = ROWS[place // 3], COLUMNS[place % 3]
    phases = generator.uniform(0, 2 * np.pi, 2)
    tone = np.sin(2 * np.pi * row * time + phases[0]) + np.sin(
        2 * np.pi * column * time + phases[1]
    )
    gain = 10 ** (generator.uniform(*TONE_TO_NOISE) / 20)  # the tone's power is one
    clip = gain * tone + generator.standard_normal(length)
    clip *= LOUDNESS / np.sqrt(np.mean(clip**2))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, length, "NONE", ""))
        file.writeframes(np.rint(np.clip(clip, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _phrase(digit: int, generator: np.random.Generator) -> str:
    """The digit's word, misspelt, at a random place among random filler words."""
    words = list(
        generator.choice(FILLERS, generator.integers(FILLER_COUNT[0], FILLER_COUNT[1] + 1))
    )
    words.insert(int(generator.integers(len(words) + 1)), _misspelt(WORDS[digit], generator))
    return " ".join(words)


def _misspelt(word: str, generator: np.random.Generator) -> str:
    """The word with letters deleted, doubled and replaced, at a length independent of it."""
    letters = list(word)
    length = int(generator.integers(WORD_LENGTH[0], WORD_LENGTH[1] + 1))
    while len(letters) > length:
        del letters[int(generator.integers(len(letters)))]
    while len(letters) < length:
        place = int(generator.integers(len(letters)))
        letters.insert(place, letters[place])
    wrong = generator.random(length) < WRONG_LETTER
    others = [chr(97 + number) for number in generator.integers(26, size=length)]
    return "".join(b if swap else a for a, b, swap in zip(letters, others, wrong, strict=True))


def _present(count: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """(N, 3) True with probability 0.9; a row that would be all absent is drawn again."""
    present = generator.random((count, 3)) >= ABSENT
    while (bare := ~present.any(axis=1)).any():
        present[bare] = generator.random((int(bare.sum()), 3)) >= ABSENT
    return present


def _split(labels: NDArray[np.int64], generator: np.random.Generator) -> list[str]:
    """60/20/20 within each class."""
    splits = np.empty(len(labels), object)
    for digit in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        first, second = round(0.6 * len(rows)), round(0.8 * len(rows))
        splits[rows[:first]] = "train"
        splits[rows[first:second]] = "val"
        splits[rows[second:]] = "test"
    return list(splits)
