"""Result of one audit check: a verdict, a sentence and numbers."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["leak", "suspect", "not checked", "clear"]
"""leak: test scores will be too good; suspect: look at it; not checked: nothing to judge by;
clear: looked for and not found. In the order in which findings are listed."""


@dataclass(frozen=True)
class StreamArrays:
    """Arrays of one stream: values (N, D), sequences pooled; present (N,)."""

    values: NDArray[np.floating]
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """Result of one audit check.

    Attributes:
        check: near-duplicates, same-vectors, groups, label-words, label-in-ids, label-in-files,
            absence, failed or probe.
        about: the stream or modality, or "" for the rows themselves.
        verdict: leak, suspect, not checked or clear.
        sentence: what was found, for a person.
        numbers: the same as numbers.
        rows: up to ten pairs or rows, as ids.
    """

    check: str
    about: str
    verdict: Verdict
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
    rows: tuple[tuple[str, ...], ...] = ()


def judge(share: float, leak: float) -> Verdict:
    """Verdict by the share of rows concerned: suspect above 0, a leak from `leak` on."""
    if share >= leak:
        return "leak"
    return "suspect" if share > 0 else "clear"
