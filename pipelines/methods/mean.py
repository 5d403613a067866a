"""Mean pooling of the present streams' projections, then a small MLP.

CLARGA's ablation `mean` (methods.md 1.6) averages absent streams' mask vectors too; this averages
present streams only, so that one more absent stream changes nothing.
"""

import torch
from torch import Tensor, nn

from pipelines.counter_rng import dropout
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Tokens, present_mean


class Mean(FusionHead):
    """Each x_m → H; mean over present streams, H → H → C."""

    # Where nothing is present the mean is 0; the placeholders of `Tokens` are never used.
    frozen = {"tokens.placeholder": "absent streams are left out of the mean"}  # noqa: RUF012

    def __init__(self, inputs: Inputs, width: int, drop: float, norm: Norm) -> None:
        super().__init__(inputs)
        self.drop = drop
        self.tokens = Tokens(inputs, width, placeholder="shared", norm=norm)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits and the tokens they were made from."""
        tokens: Tensor = self.tokens(batch)  # (B, M, H)
        hidden = torch.relu(self.mix(present_mean(tokens, batch.present)))  # (B, H)
        hidden = dropout(hidden, self.drop, batch.numbers, "mean", training=self.training)
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
    return Mean(inputs, width, dropout, input_norm)
