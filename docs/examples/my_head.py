"""Attention by one learned query over the streams; a learned token replaces an absent stream.

mmfuse check docs/examples/my_head.py
mmfuse train --method docs/examples/my_head.py --dataset digits --set width=256
"""

import torch
from torch import Tensor, nn

from mmfuse import Batch, Fused, FusionHead, Inputs, Tokens


class Query(FusionHead):
    """Project each stream to H, average by softmax(token · query), then a linear layer H → C."""

    def __init__(self, inputs: Inputs, width: int) -> None:
        super().__init__(inputs)
        self.tokens = Tokens(inputs, width, norm="zscore")
        self.query = nn.Parameter(torch.randn(width) / width**0.5)
        self.out = nn.Linear(width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits (B, C), with the tokens and the attention weight of each stream."""
        tokens: Tensor = self.tokens(batch)  # (B, M, H)
        weights = torch.softmax(tokens @ self.query, 1)  # (B, M)
        fused = (weights[..., None] * tokens).sum(1)  # (B, H)
        return Fused(self.out(torch.relu(fused)), tokens=tokens, weights=weights)


def build(inputs: Inputs, *, width: int = 128) -> FusionHead:
    """A head for these streams; `--set width=256` changes the width."""
    return Query(inputs, width)
