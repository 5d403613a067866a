"""Projection of a shared head's gradient away from the means gone by (MLA, section 3.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.counter_rng import uniform

POWER_ITERATIONS = 8

Norming = Literal["spectral", "fro", "none"]
Forgets = Literal["never", "cycle", "epoch"]
Schedule = Literal["constant", "decay"]


@dataclass(frozen=True)
class Guard:
    """How the shared head's gradient is projected; see `build`."""

    alpha: float
    order: Literal["paper", "previous"]
    p_norm: Norming
    reset: Forgets
    augment_bias: bool
    schedule: Schedule = "constant"

    @property
    def counts(self) -> bool:
        """Whether it matters where in its epoch a batch is."""
        return self.schedule == "decay" or self.reset == "epoch"


class Projection(nn.Module):
    """P as state: what the means so far have left free of the head's input space.

    Buffers: `matrix` (s, s) double; `direction` (s,) double, near its leading eigenvector;
    `taken` (), steps so far. Where it matters, `batch` (), number of the next batch of its epoch,
    and `batches` (), how many an epoch has.
    """

    matrix: Tensor
    direction: Tensor
    taken: Tensor

    def __init__(self, width: int, guard: Guard) -> None:
        super().__init__()
        self.guard = guard
        size = width + guard.augment_bias
        self.register_buffer("matrix", torch.eye(size, dtype=torch.float64))
        self.register_buffer("direction", torch.randn(size, dtype=torch.float64))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
        if guard.counts:
            self.register_buffer("batch", torch.zeros((), dtype=torch.int64))
            self.register_buffer("batches", torch.ones((), dtype=torch.int64))

    def foresee(self, batches: int, _complete: int) -> None:
        """Take the number of batches of an epoch."""
        if self.guard.counts:
            self.get_buffer("batches").fill_(batches)

    def turn(
        self,
        state: Mapping[str, Tensor],
        mean: Tensor,
        numbers: Tensor,
        *,
        first: bool,
        last: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step: what to project with, and the state after it.

        Args:
            state: the buffers.
            mean: (s,) double; all NaN where no row has the stream, which changes nothing.
            numbers: key of this step.
            first: whether it is the first step of its batch.
            last: whether it is the last one.
        """
        matrix, taken = state["matrix"], state["taken"]
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        if first and self.guard.reset != "never":
            forgets = torch.ones_like(taken) if self.guard.reset == "cycle" else 1 - state["batch"]
            matrix = torch.where(forgets > 0, eye, matrix)
            taken = torch.where(forgets > 0, 0, taken)
        counted = self._counted(state, last=last)
        alpha: Tensor | float = self.guard.alpha
        if self.guard.schedule == "decay":
            alpha = alpha * 0.1 ** (state["batch"].double() / state["batches"])
        some = mean.isfinite().all()
        mean = torch.where(some, mean, 0)
        if self.guard.augment_bias:
            mean = torch.cat([mean, mean.new_ones(1)])
        fresh = torch.where(some, rls(matrix, mean, alpha), matrix)
        if self.guard.order == "paper":
            after = use = torch.where(taken > 0, fresh, matrix)
        else:
            after, use = fresh, matrix
        direction = state["direction"]
        if self.guard.p_norm == "spectral":
            largest, direction = leading(use, direction, numbers)
            use = use / largest
        elif self.guard.p_norm == "fro":
            use = use / torch.linalg.matrix_norm(use)
        use = torch.where(taken > 0, use, eye)
        kept = {"matrix": after, "direction": direction, "taken": taken + some.to(taken.dtype)}
        return use, {**kept, **counted}

    def _counted(self, state: Mapping[str, Tensor], *, last: bool) -> dict[str, Tensor]:
        if not self.guard.counts:
            return {}
        batch, batches = state["batch"], state["batches"]
        return {"batch": (batch + last) % batches, "batches": batches}


def rls(matrix: Tensor, mean: Tensor, alpha: float | Tensor) -> Tensor:
    """One step of recursive least squares, equation 5: symmetric, and reset if it lost positivity.

    Args:
        matrix: P (s, s), symmetric, eigenvalues in (0, 1].
        mean: h̄ (s,).
        alpha: of this step; after any number of steps P = (I + Σ h̄ h̄ᵀ / alpha)⁻¹.
    """
    moved = matrix @ mean
    along = mean @ moved
    fresh = matrix - torch.outer(moved, moved) / (alpha + along)
    fresh = (fresh + fresh.mT) / 2
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.where(along.isfinite() & (along >= 0), fresh, eye)


def leading(matrix: Tensor, direction: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue of P by a few power iterations from the last direction, and the next one.

    The direction is stirred a little every step, so that it never stays where P has vanished.
    """
    stir = uniform(numbers, "mla.direction", direction.shape).to(matrix.dtype) - 0.5
    direction = direction / torch.linalg.vector_norm(direction)
    direction = direction + stir * (0.05 / len(direction) ** 0.5)
    for _ in range(POWER_ITERATIONS):
        direction = matrix @ direction
        direction = direction / torch.linalg.vector_norm(direction).clamp(min=1e-300)
    return (direction @ matrix @ direction).clamp(min=1e-300), direction


def projected(gradients: Mapping[str, Tensor], head: str, use: Tensor) -> dict[str, Tensor]:
    """The gradients of a linear map `head`, times P; the bias only where P has a place for it.

    Args:
        gradients: by name, with `{head}.weight` (C, s) and `{head}.bias` (C,).
        head: name of the map.
        use: P, (s, s) or (s + 1, s + 1).
    """
    weight, bias = gradients[f"{head}.weight"], gradients[f"{head}.bias"]
    if len(use) == weight.shape[1]:
        return {f"{head}.weight": (weight.double() @ use).to(weight.dtype)}
    both = torch.cat([weight, bias[:, None]], 1).double() @ use
    both = both.to(weight.dtype)
    return {f"{head}.weight": both[:, :-1], f"{head}.bias": both[:, -1]}
