"""Gated and bilinear fusion: one stream gates the others element-wise, or by an outer product.

    gated             W (σ(x) ⊙ y) + b          x, y: projections, x of the gating stream
    bilinear          W (x ⊗ y) + b             outer product of two projections of width r
    bilinear_gated    W (σ(x) ⊗ y) + b

Paper: Kiela et al., "Efficient Large-Scale Multi-Modal Classification" (arXiv 1802.02892). What
papers of the MLA family call "BiGated" is the first line (`fusion_modules.py`, GatedFusion, x
gates y); Kiela's bilinear-gated is the third. The full outer product of two streams of width d has
d² entries; here both are first projected to `rank`. Ours: with more than two streams y is the mean
of all others; absent streams are learned placeholders. The order matters: `gate` names x.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.counter_rng import dropout as drop
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Tokens
from pipelines.fusion.stems import stems_of
from pipelines.fusion.two_streams import chosen_and_others, stream_number

Variant = Literal["gated", "bilinear", "bilinear_gated"]


class Gated(FusionHead):
    """x and y → H each, their (outer) product → C."""

    def __init__(
        self, inputs: Inputs, tokens: Tokens, gate: int, *, variant: Variant, width: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(inputs)
        self.tokens, self.gate = tokens, gate
        self.variant, self.dropout = variant, dropout
        self.out = nn.Linear(width if variant == "gated" else width * width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits and the tokens they were made from."""
        tokens: Tensor = self.tokens(batch)  # (B, M, H)
        x, y = chosen_and_others(tokens, self.gate)
        if self.variant != "bilinear":
            x = torch.sigmoid(x)
        product = x * y if self.variant == "gated" else (x[:, :, None] * y[:, None]).flatten(1)
        product = drop(product, self.dropout, batch.numbers, "gated", training=self.training)
        return Fused(self.out(product), tokens=tokens)


def build(
    inputs: Inputs,
    *,
    gate: str = "",
    variant: Variant = "gated",
    width: int = 128,
    rank: int = 16,
    dropout: float = 0.1,
    stem: str = "linear",
    share_stems: bool = False,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """Build the head; with one stream, it gates itself.

    Args:
        inputs: streams and task.
        gate: the stream or modality that gates the others; the first one if not named.
        variant: elementwise gate, outer product, or outer product with a gate.
        width: H of the elementwise gate.
        rank: r of the outer products.
        dropout: dropout probability of entries of the product.
        stem: front end of the streams, one word or by modality: audio=gru,image=cnn2d.
        share_stems: streams of one width share theirs.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for a gate that is not among them.
    """
    number = stream_number(inputs, gate)
    size = width if variant == "gated" else rank
    made = stems_of(inputs, stem, share=share_stems)
    return Gated(
        inputs,
        Tokens(inputs, size, norm=input_norm, stem=made),
        number,
        variant=variant,
        width=size,
        dropout=dropout,
    )
