"""Late fusion: a classifier per stream, trained on its own; their predictions are averaged.

Papers disagree on what is averaged: MLA averages logits with fixed weights, CLARGA's baseline and
ours are the mean of probabilities; `fusion=logits` and `fusion=df` (entropy weights on logits,
methods.md 3.4) are options. `df` reproduces MLA's rows "late fusion + DF". Only present streams
count. For `value` tasks every form is the mean of the predictions.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache.errors import MmfuseError
from pipelines.counter_rng import dropout
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Clean, module_key, pooled
from pipelines.fusion.losses import entropy_weights

Fusion = Literal["probabilities", "logits", "df"]


class Late(FusionHead):
    """x_m → H → C for each stream; mean over present streams."""

    additive = True

    def __init__(self, inputs: Inputs, width: int, drop: float, norm: Norm, fusion: Fusion) -> None:
        super().__init__(inputs)
        if fusion == "df" and inputs.task.kind == "value":
            raise MmfuseError("late with fusion=df weights by entropy, which a value does not have")
        self.drop, self.fusion = drop, fusion
        self.clean = Clean(inputs, norm)
        self.hidden = nn.ModuleDict(
            {module_key(n): nn.Linear(s.width, width) for n, s in inputs.streams.items()}
        )
        self.out = nn.ModuleDict(
            {module_key(n): nn.Linear(width, inputs.outputs) for n in inputs.names}
        )

    def forward(self, batch: Batch) -> Fused:
        """Fused logits, and each stream's own (zeros where absent)."""
        each = [self._one(batch, name, x) for name, x in self.clean(batch).items()]
        logits = torch.where(batch.present[..., None], torch.stack(each, 1), 0)  # (B, M, C)
        weights = self._weights(logits, batch.present)  # (B, M)
        return Fused(self._fuse(logits, weights), stream_logits=logits, weights=weights)

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Mean over streams of each one's own loss, over the rows that have it."""
        assert fused.stream_logits is not None
        each = [
            self.task_loss(batch, fused.stream_logits[:, number], batch.present[:, number])
            for number in range(batch.present.shape[1])
        ]
        return torch.stack(each).mean()

    def _one(self, batch: Batch, name: str, x: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden[module_key(name)](pooled(x, batch.frame_present.get(name))))
        hidden = dropout(hidden, self.drop, batch.numbers, f"late {name}", training=self.training)
        return torch.as_tensor(self.out[module_key(name)](hidden))

    def _weights(self, logits: Tensor, present: Tensor) -> Tensor:
        if self.fusion == "df" and self.inputs.task.kind != "value":
            return entropy_weights(self.inputs.task.kind, logits, present)
        share = present.to(logits.dtype)
        return share / share.sum(1, keepdim=True).clamp(min=1)

    def _fuse(self, logits: Tensor, weights: Tensor) -> Tensor:
        """(B, M, C) and (B, M) → (B, C); zeros where nothing is present."""
        if self.fusion != "probabilities" or self.inputs.task.kind == "value":
            return (weights[..., None] * logits).sum(1)
        if self.inputs.task.kind == "classes":
            return _log_mean(logits.log_softmax(-1), weights)
        # For labels the odds of the mean probability.
        return _log_mean(F.logsigmoid(logits), weights) - _log_mean(F.logsigmoid(-logits), weights)


def _log_mean(logs: Tensor, weights: Tensor) -> Tensor:
    """Log of the weighted mean of exp(logs) over streams; 0 where no weight is above 0."""
    counted = weights[..., None] > 0
    shares = torch.where(counted, weights[..., None], 1).log()
    floor = torch.finfo(logs.dtype).min / 4
    terms = torch.where(counted, logs + shares, floor)
    return torch.where(counted.any(1), terms.logsumexp(1), 0)


def build(
    inputs: Inputs,
    *,
    width: int = 128,
    dropout: float = 0.1,
    input_norm: Norm = "zscore",
    fusion: Fusion = "probabilities",
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        width: H of each stream's own network.
        dropout: dropout probability of hidden units.
        input_norm: none, l2, or zscore by the train rows.
        fusion: mean of probabilities, mean of logits, or entropy-weighted logits (df).
    """
    return Late(inputs, width, dropout, input_norm, fusion)
