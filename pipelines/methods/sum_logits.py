"""Sum of logits: a linear classifier per stream, logits added and trained jointly.

    logits = Σ_m (W_m h_m + b_m) over the present streams,   h_m = ReLU(projection of stream m)

What papers of the OGM-GE and MLA family call "sum" (`fusion_modules.py`, SumFusion): a late sum of
logits, not of features (that is `sum_features`). Each stream has its own map and its own bias, so
its own logits are known; they are trained by the loss of their sum alone, unlike `late`. Absent
streams add nothing. An additive head: it cannot learn interactions of streams (XOR).
"""

import torch
from torch import nn

from pipelines.counter_rng import dropout as drop
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Clean, Stems, module_key
from pipelines.fusion.stems import Stem, stems_of


class SumLogits(FusionHead):
    """x_m → H → C for each stream; sum over present streams."""

    additive = True

    def __init__(
        self, inputs: Inputs, width: int, *, stem: Stem, dropout: float, norm: Norm
    ) -> None:
        super().__init__(inputs)
        self.dropout = dropout
        self.clean = Clean(inputs, norm)
        self.stems = Stems(inputs, width, stem)
        maps = {module_key(name): nn.Linear(width, inputs.outputs) for name in inputs.names}
        self.maps = nn.ModuleDict(maps)

    def forward(self, batch: Batch) -> Fused:
        """The sum, and each stream's own logits (zeros where absent)."""
        each = []
        for name, x in self.stems(self.clean(batch), batch).items():
            place = f"sum_logits.{name}"
            hidden = drop(torch.relu(x), self.dropout, batch.numbers, place, training=self.training)
            each.append(self.maps[module_key(name)](hidden))
        own = torch.where(batch.present[..., None], torch.stack(each, 1), 0)  # (B, M, C)
        return Fused(own.sum(1), stream_logits=own)


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
    return SumLogits(inputs, width, stem=made, dropout=dropout, norm=input_norm)
