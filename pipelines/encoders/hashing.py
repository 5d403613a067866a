"""Hashed character and word n-grams of text or code; no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.samples import Kind
from pipelines.encoding.encoder import Storage
from pipelines.media.payloads import Unreadable

KINDS: dict[Kind, int | None] = {"text": 1024, "code": 1024}
VERSION = 1
CHARACTERS = (2, 4)  # n-grams inside words
WORDS = (1, 2)


@dataclass(frozen=True)
class Hashing:
    """Signed log counts of character n-grams (half the width) and word n-grams, L2-normalised."""

    width: int
    name: str = "hashing"
    storage: Storage = "float32"
    sequence: bool = False
    weights: Literal["weight-free"] = "weight-free"

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """The same width for text and for code."""
        return {"text": self.width, "code": self.width}

    def fields(self, kind: Kind) -> dict[str, object]:
        """N-gram ranges and width."""
        return {
            "encoder": self.name,
            "version": VERSION,
            "width": self.width,
            "characters": list(CHARACTERS),
            "words": list(WORDS),
        }

    def provenance(self) -> dict[str, object]:
        """Version of scikit-learn, which hashes."""
        return {"versions": {"scikit-learn": version("scikit-learn")}}

    def prepare(self, kind: Kind, payload: Any) -> tuple[str, int]:  # noqa: ANN401
        """The text itself; the cost is 1 since nothing is padded.

        Raises:
            Unreadable: for a text of white space only.
        """
        if not payload.strip():
            raise Unreadable("empty", "the text is only white space")
        return payload, 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Texts → (D,) float32 each, of length 1: √½ of it characters, √½ words."""
        values = np.empty((len(batch), self.width), np.float32)
        half = self.width // 2
        for place, counter in zip((slice(half), slice(half, None)), self._counters, strict=True):
            counts = counter.transform(batch)  # (B, D/2) sparse, signed
            counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
            values[:, place] = counts.toarray()
            norms = np.linalg.norm(values[:, place], axis=1, keepdims=True)
            values[:, place] *= np.sqrt(0.5) / np.maximum(norms, 1e-12)
        return list(values)

    @cached_property
    def _counters(self) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import HashingVectorizer

        half = self.width // 2
        characters = HashingVectorizer(
            analyzer="char_wb", ngram_range=CHARACTERS, n_features=half, norm=None
        )
        # One-letter words count: they are the variables of code.
        words = HashingVectorizer(
            token_pattern=r"(?u)\b\w+\b", ngram_range=WORDS, n_features=self.width - half, norm=None
        )
        return characters, words


def build(*, width: int = 1024) -> Hashing:
    """Hashed n-grams as an encoder; `width` is the number of hash buckets."""
    return Hashing(width)
