"""AdamW, SGD, gradient clipping, learning-rate schedules and early stopping for R replicas.

Parameters of R heads lie in one matrix (R, P) per block, and gradients where autograd put them: a
step is one fused kernel over the parameters of all replicas of one learning rate, without a copy of
the gradients. Rows of stopped replicas are left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

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
        self.decaying = frozenset(decaying)
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

    def pieces(self, name: str) -> tuple[tuple[Tensor, ...], ...]:
        """Of each replica the parameter, its first and its second moments, flat views (P,)."""
        return self._pieces[name]

    @cached_property
    def _pieces(self) -> dict[str, tuple[tuple[Tensor, ...], ...]]:
        matrices = (self.flat, self.first, self.second)
        views = [self.views(matrix) for matrix in matrices]
        return {
            name: tuple(
                tuple(view[name][r].view(-1) for view in views) for r in range(len(self.flat))
            )
            for name in self.names
        }


@dataclass(frozen=True)
class Rates:
    """Hyperparameters of one optimiser step of one replica."""

    learning_rate: float
    weight_decay: float
    momentum: float = 0.9


def optimizer_step(
    block: ParameterBlock,
    gradients: Mapping[str, Tensor],
    rule: Rule,
    rates: Sequence[Rates | None],
) -> None:
    """One step in place, equal to `torch.optim.AdamW` or `SGD` (momentum, coupled decay).

    Args:
        block: parameters to update.
        gradients: by name, (A, …) of the A replicas that move, in their order; contiguous.
        rule: which optimiser.
        rates: one per replica; None leaves a stopped replica exactly as it is.
    """
    moving = [r for r, rate in enumerate(rates) if rate is not None]
    counts = block.count.unbind(0)
    torch._foreach_add_([counts[r] for r in moving], 1)
    slopes = {name: _flat(gradients[name]).unbind(0) for name in block.names}
    groups: dict[Rates, list[tuple[int, int]]] = {}  # replica, and its row of the gradients
    for row, r in enumerate(moving):
        groups.setdefault(rates[r], []).append((r, row))  # type: ignore[arg-type]
    step = _adamw if rule == "adamw" else _sgd
    for rate, pairs in groups.items():
        for decay in dict.fromkeys((rate.weight_decay, 0.0)):
            names = [
                n for n in block.names if (rate.weight_decay if n in block.decaying else 0) == decay
            ]
            parts = [
                (*block.pieces(name)[r], slopes[name][row], counts[r])
                for name in names
                for r, row in pairs
            ]
            if parts:
                parameters, first, second, own, steps = map(list, zip(*parts, strict=True))
                step([parameters, own, first, second], steps, rate, decay)


def clip_gradients(gradients: Sequence[Tensor], largest: Sequence[float | None]) -> None:
    """Clip each replica's gradient norm to at most `largest`, in place.

    Args:
        gradients: (R, …) of each parameter; the norm is over all of them, one per replica.
        largest: one per replica, None for no limit.
    """
    if all(limit is None for limit in largest):
        return
    norms = torch.stack([torch.linalg.vector_norm(_flat(g), dim=1) for g in gradients])
    norm = torch.linalg.vector_norm(norms, dim=0)  # (R,)
    factor = (_limits(tuple(largest), norm.device).to(norm) / (norm + 1e-6)).clamp(max=1)
    if factor.device.type == "cpu" and bool((factor == 1).all()):
        return  # elsewhere, looking would wait for the device
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *(1,) * (gradient.ndim - 1)))


@lru_cache(maxsize=16)
def _limits(largest: tuple[float | None, ...], device: torch.device) -> Tensor:
    """(A,) limits on the device, copied there once and not in every step."""
    return torch.tensor([math.inf if x is None else x for x in largest], device=device)


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


def _adamw(rows: list[list[Tensor]], steps: list[Tensor], rate: Rates, decay: float) -> None:
    parameters, gradients, first, second = rows
    torch._fused_adamw_(
        parameters,
        gradients,
        first,
        second,
        [],
        steps,
        lr=rate.learning_rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=decay,
        eps=EPS,
        amsgrad=False,
        maximize=False,
    )


def _sgd(rows: list[list[Tensor]], _steps: list[Tensor], rate: Rates, decay: float) -> None:
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
