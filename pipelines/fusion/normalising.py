"""Normalising: batch normalisation as a pure function, over the rows that count."""

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalisation over the counted rows alone; with running statistics in eval mode.

    `nn.BatchNorm1d` counts its batches in place and sees padded rows; this one is pure. Momentum,
    unbiased running variance and eps are its defaults. With fewer than two rows counted the
    running statistics are used and kept.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(B, H) and which rows count (B,), default all → (B, H)."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            rows = torch.ones_like(x[:, 0], dtype=torch.bool) if rows is None else rows
            count = rows.sum()
            enough = count > 1
            kept = torch.where(rows[:, None], x, 0)
            batch_mean = kept.sum(0) / count.clamp(min=1)
            spread = torch.where(rows[:, None], x - batch_mean, 0)
            batch_variance = (spread * spread).sum(0) / count.clamp(min=1)
            unbiased = batch_variance * (count / (count - 1).clamp(min=1))
            self.running_mean = torch.where(
                enough, torch.lerp(mean, batch_mean.detach(), self.momentum), mean
            )
            self.running_var = torch.where(
                enough, torch.lerp(variance, unbiased.detach(), self.momentum), variance
            )
            mean = torch.where(enough, batch_mean, mean)
            variance = torch.where(enough, batch_variance, variance)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
