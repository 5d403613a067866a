"""AdamW, SGD, gradient clipping, learning-rate schedules and early stopping for R replicas.

Parameters of R heads lie in one matrix (R, P) per block, so a step is one fused kernel over rows,
each row with its own learning rate; rows of stopped replicas are left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipelines.training.plan import Rule, Schedule

BETAS = (0.9, 0.999)
EPS = 1e-8


class ParameterBlock:
    """Parameters of R replicas that are always updated together, and their optimiser state.

    Args:
        parameters: by name, (R, …) each; copied.
        decaying: names that weight decay applies to; they come first in the matrix.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decaying: set[str]) -> None:
        self.names = sorted(parameters, key=lambda name: (name not in decaying, name))
        self.shapes = {name: tuple(parameters[name].shape[1:]) for name in self.names}
        rows = [_flat(parameters[name].detach()) for name in self.names]
        self.flat = torch.cat(rows, 1)  # (R, P)
        self.border = sum(math.prod(self.shapes[n]) for n in self.names if n in decaying)
        self.first = torch.zeros_like(self.flat)
        self.second = torch.zeros_like(self.flat)
        self.count = torch.zeros(len(self.flat), device=self.flat.device)

    def views(self, matrix: Tensor) -> dict[str, Tensor]:
        """Views (R, …) by name of a matrix (R, P) that is laid out as this block."""
        found, at = {}, 0
        for name in self.names:
            size = math.prod(self.shapes[name])
            found[name] = matrix[:, at : at + size].view(len(matrix), *self.shapes[name])
            at += size
        return found

    def gather(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Flatten gradients by name to (R, P)."""
        return torch.cat([_flat(gradients[name]) for name in self.names], 1)

    def segments(self, matrix: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Rows of the columns with weight decay, and rows of the others."""
        return matrix[:, : self.border].unbind(0), matrix[:, self.border :].unbind(0)


@dataclass(frozen=True)
class Rates:
    """Hyperparameters of one optimiser step of one replica."""

    learning_rate: float
    weight_decay: float
    momentum: float = 0.9


def optimizer_step(
    block: ParameterBlock, gradient: Tensor, rule: Rule, rates: Sequence[Rates | None]
) -> None:
    """One step in place, equal to `torch.optim.AdamW` or `SGD` (momentum, coupled decay).

    Args:
        block: parameters to update.
        gradient: (A, P) of the A replicas that move, in their order.
        rule: which optimiser.
        rates: one per replica; None leaves a stopped replica exactly as it is.
    """
    moving = [r for r, rate in enumerate(rates) if rate is not None]
    if len(moving) == len(rates):
        block.count += 1
    else:
        block.count[moving] += 1
    groups: dict[Rates, list[tuple[int, int]]] = {}  # replica, and its row of the gradient
    for row, r in enumerate(moving):
        groups.setdefault(rates[r], []).append((r, row))  # type: ignore[arg-type]
    segments = [block.segments(matrix) for matrix in (block.flat, block.first, block.second)]
    slopes, counts = block.segments(gradient), block.count.unbind(0)
    for rate, pairs in groups.items():
        rows = [r for r, _ in pairs]
        for part, decay in ((0, rate.weight_decay), (1, 0.0)):
            flat, first, second = ([pair[part][r] for r in rows] for pair in segments)
            chosen = [flat, [slopes[part][row] for _, row in pairs], first, second]
            if not chosen[0][0].numel():
                continue
            if rule == "adamw":
                _adamw(chosen, [counts[r] for r in rows], rate, decay)
            else:
                _sgd(chosen, rate, decay)


def clip_gradients(gradients: Sequence[Tensor], largest: Sequence[float | None]) -> None:
    """Clip each replica's gradient norm to at most `largest`, in place.

    Args:
        gradients: (R, P) of each block; the norm is over all of them, one per replica.
        largest: one per replica, None for no limit.
    """
    if all(limit is None for limit in largest):
        return
    norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients])
    norm = torch.linalg.vector_norm(norms, dim=0)  # (R,)
    limit = torch.tensor([math.inf if x is None else x for x in largest], device=norm.device)
    factor = (limit.to(norm) / (norm + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor[:, None])


@dataclass
class ReplicaSchedule:
    """Learning-rate schedules and early stopping of R replicas.

    Attributes:
        rates: initial learning rates.
        schedule: `cosine` anneals to zero over the epochs, `step` divides by ten every `every`
            epochs, `plateau` multiplies by `factor` after `waits` epochs without improvement.
        epochs: number of epochs.
        patience: epochs without improvement after which a replica stops; None never.
        least: an improvement must be larger than this.
        best: best monitored value so far, smaller is better.
        bad: epochs since then.
        plateau: best value that the plateau schedule counts; `flat` epochs since then.
        scale: factor on the rate, from plateaus so far.
        active: which replicas still train.
    """

    rates: list[float]
    schedule: Schedule
    epochs: int
    patience: int | None
    least: float = 0.0
    every: int = 70
    factor: float = 0.1
    waits: int = 10
    best: list[float] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    plateau: list[float] = field(default_factory=list)
    flat: list[int] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    active: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fill the initial state, unless it is given (resumed)."""
        count = len(self.rates)
        self.best = self.best or [math.inf] * count
        self.bad = self.bad or [0] * count
        self.plateau = self.plateau or [math.inf] * count
        self.flat = self.flat or [0] * count
        self.scale = self.scale or [1.0] * count
        self.active = self.active or [True] * count

    def at(self, epoch: int) -> list[float]:
        """Learning rates of an epoch, counted from 0."""
        if self.schedule == "cosine":
            part = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        elif self.schedule == "step":
            part = 0.1 ** (epoch // self.every)
        else:
            part = 1.0
        return [rate * part * scale for rate, scale in zip(self.rates, self.scale, strict=True)]

    def observe(self, values: Sequence[float]) -> list[bool]:
        """Take an epoch's monitored values; returns which active replicas improved.

        A value that is not finite is no improvement. The plateau's threshold is that of
        `torch.optim.lr_scheduler.ReduceLROnPlateau`, 1e-4 relative.
        """
        improved = [False] * len(values)
        for r, value in enumerate(values):
            if not self.active[r]:
                continue
            improved[r] = value < self.best[r] - self.least or (
                math.isinf(self.best[r]) and math.isfinite(value)
            )
            self.best[r] = value if improved[r] else self.best[r]
            self.bad[r] = 0 if improved[r] else self.bad[r] + 1
            self._step_plateau(r, value)
            if self.patience is not None and self.bad[r] >= self.patience:
                self.active[r] = False
        return improved

    def _step_plateau(self, r: int, value: float) -> None:
        if self.schedule != "plateau":
            return
        best = self.plateau[r]
        lower = value < (best - abs(best) * 1e-4 if math.isfinite(best) else best)
        self.plateau[r] = value if lower else best
        self.flat[r] = 0 if lower else self.flat[r] + 1
        if self.flat[r] > self.waits:
            self.scale[r] *= self.factor
            self.flat[r] = 0


def _flat(values: Tensor) -> Tensor:
    """(R, …) → (R, P)."""
    return values.reshape(len(values), -1)


def _adamw(rows: list[list[Tensor]], counts: list[Tensor], rate: Rates, decay: float) -> None:
    parameters, gradients, first, second = rows
    torch._fused_adamw_(
        parameters,
        gradients,
        first,
        second,
        [],
        counts,
        lr=rate.learning_rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=decay,
        eps=EPS,
        amsgrad=False,
        maximize=False,
    )


def _sgd(rows: list[list[Tensor]], rate: Rates, decay: float) -> None:
    parameters, gradients, buffers, _ = rows
    torch._fused_sgd_(
        parameters,
        gradients,
        buffers,
        lr=rate.learning_rate,
        momentum=rate.momentum,
        weight_decay=decay,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
