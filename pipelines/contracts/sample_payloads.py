"""Sample payloads: a few small ones of each kind, to check encoders on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cache.samples import Kind
from pipelines.media.payloads import Record, Series, Waveform


def sample_payloads(kind: Kind) -> list[Any]:
    """Payloads of a kind that differ in size, length and content; none of `video` and `layout`."""
    makers: dict[Kind, Callable[[], list[Any]]] = {
        "image": _images, "text": _texts, "code": _texts, "audio": _waveforms, "tabular": _records,
        "series": _series,
    }  # fmt: skip
    return makers[kind]() if kind in makers else []


def _images() -> list[Any]:
    from PIL import Image

    random = np.random.default_rng(0)
    sizes = [(40, 56), (56, 40), (32, 32), (1, 1), (7, 300), (33, 47), (128, 96)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), np.uint8)) for s in sizes]


def _texts() -> list[str]:
    words = ["the", "quick", "fox,", "JUMPED", "over", "def", "lazy(dog):", "return", "42", "猫"]
    random = np.random.default_rng(1)
    return [" ".join(random.choice(words, length)) for length in (3, 1, 40, 7, 200, 12)]


def _waveforms() -> list[Waveform]:
    random = np.random.default_rng(2)
    shapes = [(16000, 16000), (8000, 4100), (22050, 22050), (16000, 300), (44100, 30000)]
    return [
        Waveform(random.normal(0, 0.1, length).astype(np.float32), rate) for rate, length in shapes
    ]


def _records() -> list[Record]:
    random = np.random.default_rng(3)
    return [
        {
            "height": None if i % 5 == 0 else float(random.normal(170, 10)),
            "colour": str(random.choice(["red", "green", "blue"])),
            "born": f"{1950 + i}-0{1 + i % 9}-11",
        }
        for i in range(12)
    ]


def _series() -> list[Series]:
    random = np.random.default_rng(4)
    found = [random.normal(3, 2, (length, 2)).astype(np.float32) for length in (40, 7, 1, 100)]
    found[0][5:9, 1] = np.nan
    found[3][:, 0] = np.nan
    return found
