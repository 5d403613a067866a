"""Early fusion: concatenate every stream's projection, then a small MLP.

Absent streams are learned placeholders (methods.md has zeros for CLARGA's early-fusion baseline;
with a bias in the projection zeros would not say "absent"). Copy this file to begin your own head.
"""

import torch
from torch import Tensor, nn

from pipelines.counter_rng import dropout
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Tokens


class Concat(FusionHead):
    """Each x_m → H; concatenated (B, M·H) → H → C."""

    def __init__(self, inputs: Inputs, width: int, drop: float, norm: Norm) -> None:
        super().__init__(inputs)
        self.drop = drop
        self.tokens = Tokens(inputs, width, norm=norm)
        self.mix = nn.Linear(len(inputs.streams) * width, width)
        self.out = nn.Linear(width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits and the tokens they were made from."""
        tokens: Tensor = self.tokens(batch)  # (B, M, H)
        hidden = torch.relu(self.mix(tokens.flatten(1)))  # (B, H)
        hidden = dropout(hidden, self.drop, batch.numbers, "concat", training=self.training)
        return Fused(self.out(hidden), tokens=tokens)


def build(
    inputs: Inputs, *, width: int = 128, dropout: float = 0.1, input_norm: Norm = "zscore"
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        width: H.
        dropout: dropout probability of hidden units.
        input_norm: none, l2, or zscore by the train rows.
    """
    return Concat(inputs, width, dropout, input_norm)
