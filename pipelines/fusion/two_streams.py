"""Fusions of two inputs x and y for M streams: x is one chosen stream, y the mean of the others."""

from torch import Tensor

from cache.errors import unknown
from pipelines.fusion.head import Inputs


def stream_number(inputs: Inputs, word: str) -> int:
    """Number of the stream that a word names, or of the first one of a modality; 0 for "".

    Raises:
        MmfuseError: for a word that names none, with those there are.
    """
    named = [word in (name, stream.modality) for name, stream in inputs.streams.items()]
    if word and not any(named):
        raise unknown("stream", word, inputs.names)
    return named.index(True) if word else 0


def chosen_and_others(tokens: Tensor, chosen: int) -> tuple[Tensor, Tensor]:
    """(B, M, H) → x of the chosen stream and y, the mean of the others, (B, H) each.

    A stream alone is both.
    """
    others = [m for m in range(tokens.shape[1]) if m != chosen] or [chosen]
    return tokens[:, chosen], tokens[:, others].mean(1)
