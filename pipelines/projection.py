"""Projection of a shared head's gradient away from the means gone by (MLA, section 3.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.numbers import uniform

POWER_ITERATIONS = 8

Norming = Literal["spectral", "fro", "none"]


@dataclass(frozen=True)
class Guard:
    """How the shared head's gradient is projected; see `build`."""

    alpha: float
    order: Literal["paper", "previous"]
    p_norm: Norming
    reset: Literal["never", "cycle"]
    augment_bias: bool


class Projection(nn.Module):
    """P as state: what the means so far have left free of the head's input space.

    Buffers: `matrix` (s, s) double; `direction` (s,) double, near its leading eigenvector;
    `taken` (), steps so far.
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

    def turn(
        self, state: Mapping[str, Tensor], mean: Tensor, numbers: Tensor, *, first: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step: what to project with, and the state after it.

        Args:
            state: the buffers.
            mean: (s,) double; all NaN where no row has the stream, which changes nothing.
            numbers: key of this step.
            first: whether it is the first step of its batch.
        """
        matrix, taken = state["matrix"], state["taken"]
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        if first and self.guard.reset == "cycle":
            matrix, taken = eye, torch.zeros_like(taken)
        some = mean.isfinite().all()
        mean = torch.where(some, mean, 0)
        if self.guard.augment_bias:
            mean = torch.cat([mean, mean.new_ones(1)])
        fresh = torch.where(some, rls(matrix, mean, self.guard.alpha), matrix)
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
        return use, kept


def rls(matrix: Tensor, mean: Tensor, alpha: float) -> Tensor:
    """One step of recursive least squares, equation 5: symmetric, and reset if it lost positivity.

    Args:
        matrix: P (s, s), symmetric, eigenvalues in (0, 1].
        mean: h̄ (s,).
        alpha: constant; after any number of steps P = (I + Σ h̄ h̄ᵀ / alpha)⁻¹.
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
