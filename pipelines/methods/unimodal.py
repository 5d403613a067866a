"""One stream alone: what fusion has to beat. Name it by --set stream=clip/image.

Without a name it is the first stream in alphabetical order. Where the stream is absent the answer
is a learned constant.
"""

import torch
from torch import nn

from cache.errors import unknown
from pipelines.batching import Batch
from pipelines.fusion import Fused, FusionHead, Inputs, Norm, Tokens
from pipelines.numbers import dropout


class Unimodal(FusionHead):
    """x → H → C of one stream."""

    additive = True

    def __init__(self, inputs: Inputs, stream: str, width: int, drop: float, norm: Norm) -> None:
        super().__init__(inputs)
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


def build(
    inputs: Inputs,
    *,
    stream: str = "",
    width: int = 128,
    dropout: float = 0.1,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """A head over one of these streams.

    Args:
        inputs: streams and task.
        stream: its name, such as clip/image; a modality's name will do where it has one stream.
        width: H.
        dropout: chance of dropping a hidden unit in training.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for a stream that is not among them.
    """
    named = [n for n, s in inputs.streams.items() if stream in {n, s.modality}]
    if stream and len(named) != 1:
        raise unknown("stream", stream, inputs.names)
    return Unimodal(inputs, named[0] if stream else min(inputs.names), width, dropout, input_norm)
