"""Sum of features: add the streams' projections, then ReLU and a linear classifier.

    logits = W ReLU(Σ_m h_m) + b over the present streams,   h_m = projection of stream m

MMF's "feature sum", and the summation of MLA's appendix A.2, which the code of that family does not
do (there "sum" adds logits: `sum_logits`). With the ReLU behind the sum it is a joint head: the
first layer of a network on the concatenation, whose absent parts are zero. Absent streams add
nothing, not even their bias.
"""

import torch
from torch import nn

from pipelines.counter_rng import dropout as drop
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Clean, Stems
from pipelines.fusion.stems import Stem, stems_of


class SumFeatures(FusionHead):
    """Each x_m → H; their sum, H → C."""

    def __init__(
        self, inputs: Inputs, width: int, *, stem: Stem, dropout: float, norm: Norm
    ) -> None:
        super().__init__(inputs)
        self.dropout = dropout
        self.clean = Clean(inputs, norm)
        self.stems = Stems(inputs, width, stem)
        self.out = nn.Linear(width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits, and the tokens they were made from (zeros where absent)."""
        each = list(self.stems(self.clean(batch), batch).values())
        tokens = torch.where(batch.present[..., None], torch.stack(each, 1), 0)  # (B, M, H)
        hidden = torch.relu(tokens.sum(1))  # (B, H)
        place = "sum_features"
        hidden = drop(hidden, self.dropout, batch.numbers, place, training=self.training)
        return Fused(self.out(hidden), tokens=tokens)


def build(
    inputs: Inputs,
    *,
    width: int = 128,
    dropout: float = 0.1,
    stem: str = "linear",
    share_stems: bool = False,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        width: H.
        dropout: dropout probability of hidden units.
        stem: front end of the streams, one word or by modality: audio=gru,image=cnn2d.
        share_stems: streams of one width share theirs.
        input_norm: none, l2, or zscore by the train rows.
    """
    made = stems_of(inputs, stem, share=share_stems)
    return SumFeatures(inputs, width, stem=made, dropout=dropout, norm=input_norm)
