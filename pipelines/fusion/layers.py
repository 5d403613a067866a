"""Presence-aware layers of heads: input cleaning, stream projections, pooling, batch norm."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.features.statistics import Moments
from pipelines.features.table import Batch
from pipelines.fusion.head import Inputs, Norm, Stream


def module_key(name: str) -> str:
    """A stream's name as a key of `nn.ModuleDict`, where dots are not allowed."""
    return name.replace(".", "~")


def value_presence(batch: Batch, name: str) -> Tensor:
    """Which values of a stream are defined: (B, 1), or (B, T, 1) for a sequence stream."""
    present = batch.present[:, list(batch.features).index(name)]
    if name in batch.frame_present:
        return (present[:, None] & batch.frame_present[name])[..., None]
    return present[:, None]


class Clean(nn.Module):
    """Zero absent values, then normalise: none, L2 per row, or z-score.

    With `zscore` mean and standard deviation of the train rows are buffers, set before training
    (`observe`); absent values become 0, which is then the mean.
    """

    def __init__(self, inputs: Inputs, norm: Norm = "none") -> None:
        super().__init__()
        self.norm, self.names = norm, inputs.names
        if norm == "zscore":
            for name, stream in inputs.streams.items():
                self.register_buffer(f"mean_{module_key(name)}", torch.zeros(stream.width))
                self.register_buffer(f"deviation_{module_key(name)}", torch.ones(stream.width))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """(B, D) or (B, T, D) by stream; absent values give neither NaN nor gradient."""
        return {name: self._one(batch, name) for name in batch.features}

    def _one(self, batch: Batch, name: str) -> Tensor:
        there, x = value_presence(batch, name), batch.features[name]
        if self.norm == "zscore":
            mean = self.get_buffer(f"mean_{module_key(name)}")
            std = self.get_buffer(f"deviation_{module_key(name)}")
            return torch.where(there, (x - mean) * (1 / std), 0)
        x = torch.where(there, x, 0)
        if self.norm == "l2":
            x = x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-12)
        return x

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Set the train rows' statistics; a constant dimension has standard deviation 1."""
        if self.norm != "zscore":
            return
        for name in self.names:
            seen = moments[name]
            mean = self.get_buffer(f"mean_{module_key(name)}")
            std = torch.where(seen.deviation > 1e-6, seen.deviation, 1)
            mean.copy_(seen.mean)
            self.get_buffer(f"deviation_{module_key(name)}").copy_(std)


def pooled(x: Tensor, frame_present: Tensor | None) -> Tensor:
    """Mean over present frames: (B, T, D) and (B, T) → (B, D); zeros where no frame is present.

    Args:
        x: clean values (see `Clean`); (B, D) passes through.
        frame_present: (B, T), or None for a pooled stream.
    """
    if frame_present is None:
        return x
    total = torch.where(frame_present[..., None], x, 0).sum(-2)
    return total / frame_present.sum(-1, keepdim=True).clamp(min=1)


class LinearStem(nn.Module):
    """Default stem: mean over present frames, then one linear map."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(stream.width, width)

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """Clean values (B, D) or (B, T, D) → (B, H)."""
        return torch.as_tensor(self.linear(pooled(x, frame_present)))


class Stems(nn.ModuleDict):
    """One stem for each stream, all to one width H.

    Args:
        inputs: streams and task.
        width: H.
        stem: `stem(stream, width)` → module (values, frame_present) → (B, H).
    """

    def __init__(
        self, inputs: Inputs, width: int, stem: Callable[[Stream, int], nn.Module] = LinearStem
    ) -> None:
        super().__init__({module_key(n): stem(s, width) for n, s in inputs.streams.items()})

    def forward(self, values: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """(B, H) by stream from clean values (see `Clean`); of zeros where a stream is absent."""
        return {
            name: self[module_key(name)](x, batch.frame_present.get(name))
            for name, x in values.items()
        }


class Tokens(nn.Module):
    """Project every stream to one width H; a learned placeholder stands where it is absent.

    Args:
        inputs: streams and task.
        width: H.
        placeholder: one vector shared by all streams, or one each; initialised N(0, 0.02²).
        norm: normalisation of the inputs, see `Clean`.
        stem: front end of a stream, `stem(stream, width)` → module (values, frame_present) → H.
    """

    def __init__(
        self,
        inputs: Inputs,
        width: int,
        *,
        placeholder: Literal["shared", "each"] = "each",
        norm: Norm = "none",
        stem: Callable[[Stream, int], nn.Module] = LinearStem,
    ) -> None:
        super().__init__()
        self.clean = Clean(inputs, norm)
        self.stems = Stems(inputs, width, stem)
        count = 1 if placeholder == "shared" else len(inputs.streams)
        self.placeholder = nn.Parameter(torch.randn(count, width) * 0.02)

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, H), in the order of `batch.features`."""
        each = list(self.stems(self.clean(batch), batch).values())
        return torch.where(batch.present[..., None], torch.stack(each, 1), self.placeholder)


def present_mean(x: Tensor, present: Tensor) -> Tensor:
    """Mean over present streams: (B, M, H) and (B, M) → (B, H); zeros where none is present."""
    total = torch.where(present[..., None], x, 0).sum(1)
    return total / present.sum(1, keepdim=True).clamp(min=1)


class BatchNorm(nn.Module):
    """Batch normalisation over chosen rows only; running statistics in eval mode.

    `nn.BatchNorm1d` counts its batches in place and sees padded rows; this one is pure. Momentum,
    unbiased running variance and eps are its defaults. With fewer than two rows the running
    statistics are used, and stay as they are.
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
        """(B, H) and which rows count (B,), by default all → (B, H)."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            rows = torch.ones_like(x[:, 0], dtype=torch.bool) if rows is None else rows
            count = rows.sum()
            enough = count > 1
            counted = torch.where(rows[:, None], x, 0)
            batch_mean = counted.sum(0) / count.clamp(min=1)
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
