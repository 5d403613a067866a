"""Stand-ins: what a head is given where a stream is absent, and rows spoilt on purpose."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines import counter_rng
from pipelines.fusion.head import Inputs, Moments
from pipelines.fusion.layers import slot

Fill = Literal["zero", "mean", "learned"]


class Filler(nn.Module):
    """What stands behind an absent stream: zeros, its train mean, or a learned vector.

    Zeros and learned vectors stand behind the projector, where the projection of zeros would not
    be zero; means before it. With `learned` the presence of every stream is appended, since zeros
    are a legal feature.
    """

    def __init__(self, inputs: Inputs, fill: Fill, joined: Mapping[str, int]) -> None:
        super().__init__()
        self.fill = fill
        for name, stream in inputs.streams.items() if fill == "mean" else ():
            self.register_buffer(f"mean_{slot(name)}", torch.zeros(stream.width))
        if fill == "learned":
            made = {slot(n): nn.Parameter(torch.randn(w) * 0.02) for n, w in joined.items()}
            self.learned = nn.ParameterDict(made)

    def before(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        """(B, D) pooled features as the projector gets them."""
        if self.fill != "mean":
            return x
        return torch.where(present[:, None], x, self.get_buffer(f"mean_{slot(name)}"))

    def behind(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        """(B, D) as the classifier gets them."""
        if self.fill == "mean":
            return x
        stand_in = self.learned[slot(name)] if self.fill == "learned" else 0
        return torch.where(present[:, None], x, stand_in)

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Take the train rows' means."""
        for name, seen in moments.items() if self.fill == "mean" else ():
            self.get_buffer(f"mean_{slot(name)}").copy_(seen.mean)


class Stand(nn.Module):
    """What stands in for a stream where nothing is translated: zeros or its train mean."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        for name, stream in inputs.streams.items():
            self.register_buffer(slot(name), torch.zeros(stream.width))

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Take the train rows' means."""
        for name, seen in moments.items():
            self.get_buffer(slot(name)).copy_(seen.mean)


def spoilt(key: Tensor, place: str, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Rows of a training batch that are lost and others that get noise, each a share of them.

    Args:
        key: `batch.numbers`.
        place: a name that no other draw of the same head has.
        count: B, rows of the batch.
        share: of each kind; int(share · B) rows, drawn without replacement, none of both kinds.

    Returns:
        Two (B,) bool.
    """
    order, some = counter_rng.permutation(key, place, count), int(share * count)
    return order < some, (order >= some) & (order < 2 * some)
