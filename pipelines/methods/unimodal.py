"""Unimodal baseline: an MLP on one stream, named by --set stream=clip/image.

Without a name it is the first stream in alphabetical order, and a note says which. Where the
stream is absent the output is a learned constant.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cache.errors import unknown
from pipelines.counter_rng import dropout
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Tokens


class Unimodal(FusionHead):
    """x → H → C of one stream."""

    additive = True

    def __init__(
        self,
        inputs: Inputs,
        stream: str,
        width: int,
        drop: float,
        norm: Norm,
        *,
        named: bool = True,
    ) -> None:
        super().__init__(inputs)
        self.named = named or len(inputs.streams) == 1
        self.stream, self.drop = stream, drop
        self.ignores = tuple(name for name in inputs.names if name != stream)
        alone = Inputs({stream: inputs.streams[stream]}, inputs.task)
        self.tokens = Tokens(alone, width, norm=norm)
        self.out = nn.Linear(width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits of the one stream."""
        hidden = torch.relu(self.tokens(batch.only((self.stream,)))[:, 0])  # (B, H)
        hidden = dropout(hidden, self.drop, batch.numbers, "unimodal", training=self.training)
        return Fused(self.out(hidden))

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Note which stream it is, if none was named."""
        if self.named:
            return ()
        return (f"unimodal without --set stream=NAME is of {self.stream}, the first by name",)


def build(
    inputs: Inputs,
    *,
    stream: str = "",
    width: int = 128,
    dropout: float = 0.1,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        stream: its name, such as clip/image; a modality's name will do where it has one stream.
        width: H.
        dropout: dropout probability of hidden units.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for a stream that is not among them.
    """
    named = [n for n, s in inputs.streams.items() if stream in {n, s.modality}]
    if stream and len(named) != 1:
        raise unknown("stream", stream, inputs.names)
    alone = named[0] if stream else min(inputs.names)
    return Unimodal(inputs, alone, width, dropout, input_norm, named=bool(stream))
