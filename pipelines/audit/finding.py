"""Finding: what one check of an audit saw, in a sentence and in numbers."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["leak", "suspect", "not checked", "clear"]
"""leak: test scores will be too good; suspect: look at it; not checked: there was nothing to judge
by; clear: looked for and not found. In the order in which they are told."""


@dataclass(frozen=True)
class StreamArrays:
    """One stream as an audit sees it: values (N, D), sequences pooled; present (N,)."""

    values: NDArray[np.floating]
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: near-duplicates, same-vectors, groups, label-words, absence or probe.
        about: the stream or modality, or "" for the rows themselves.
        verdict: leak, suspect, not checked or clear.
        sentence: what was found, for a person.
        numbers: the same for a machine.
        rows: up to ten pairs or rows, as ids.
    """

    check: str
    about: str
    verdict: Verdict
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
    rows: tuple[tuple[str, ...], ...] = ()


def judge(share: float, leak: float) -> Verdict:
    """A verdict by the share of rows concerned: any is suspect, `leak` and more is one."""
    if share >= leak:
        return "leak"
    return "suspect" if share > 0 else "clear"
