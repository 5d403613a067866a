"""The FusionHead contract: what a method builds, the inputs it gets and the outputs it gives.

A head is a pure function of (parameters, buffers, batch): no `.item()`, no Python branch on data,
no dynamic shapes, no `nn.Dropout` (`pipelines.counter_rng.dropout` replaces it), no in-place
writes. A buffer is state: a new tensor that a forward assigns to a registered buffer is its value
from then on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cache.samples import Task
from pipelines.features.statistics import Moments
from pipelines.features.table import Batch
from pipelines.fusion.losses import task_loss

Norm = Literal["none", "l2", "zscore"]


@dataclass(frozen=True)
class Stream:
    """One encoder's features of one modality: width D, and whether rows are sequences (T, D)."""

    width: int
    modality: str
    sequence: bool = False


@dataclass(frozen=True)
class Inputs:
    """Argument of `build`: the streams in the order of `present`'s columns, and the task."""

    streams: Mapping[str, Stream]
    task: Task

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the M streams, in order."""
        return tuple(self.streams)

    @property
    def outputs(self) -> int:
        """Width C of the logits."""
        return self.task.outputs


@dataclass(frozen=True)
class Stage:
    """A stage of training, in which only the parameters that it `trains` move.

    Attributes:
        name: what `trains` gets as `stage`.
        steps: optimisation steps per batch, in order; None = the head's `steps`.
        monitor: what selects the best epoch: `task` (task loss of the logits), `loss` (the head's
            own loss), `score` (the task's primary metric); None = as the plan says.
        plan: fields of the Plan that differ in this stage, such as {"learning_rate": 1e-4}.
    """

    name: str
    steps: tuple[str, ...] | None = None
    monitor: Literal["task", "loss", "score"] | None = None
    plan: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Fused:
    """Output of a head.

    Attributes:
        logits: (B, C); for a `value` task (B, 1).
        tokens: (B, M, H) one vector per stream, or None.
        stream_logits: (B, M, C) where the method has logits per stream; undefined where absent
            (but finite).
        weights: (B, M) weight of each stream in the logits, or None.
        extras: what else the loss needs, by name.
    """

    logits: Tensor
    tokens: Tensor | None = None
    stream_logits: Tensor | None = None
    weights: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class ObservesMoments(Protocol):
    """A module with the hook `observe`, called once before training."""

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """See `FusionHead.observe`."""


@runtime_checkable
class ObservesEpochSize(Protocol):
    """A module with the hook `observe_epoch_size`, called once before training."""

    def observe_epoch_size(self, batches: int, complete_rows: int) -> None:
        """See `FusionHead.observe_epoch_size`."""


class FusionHead(nn.Module):
    """Base class of fusion heads: features of M streams, some absent, to C logits.

    A method overrides `forward`, and of the other methods and attributes what it needs.
    `observe` and `observe_epoch_size` are also called on every submodule that defines them.

    Attributes:
        steps: optimisation steps per batch, in order.
        stages: stages of training, in order.
        additive: True where logits are a sum over streams, so that no synergy (XOR) is learned.
        ignores: streams that the head does not use, by design.
        complete_rows: rows with every stream that a training batch should have, or as many as
            there are; 0 leaves batches at random.
        frozen: parameters that never receive a gradient (name, or prefix ending in "."), with
            the reason.
        replicable: False where forward or loss cannot run under `torch.func.vmap`, since Python
            reads values; the replicas of such a head are computed one after another.
    """

    steps: tuple[str, ...] = ("joint",)
    stages: tuple[Stage, ...] = (Stage("fit"),)
    additive: bool = False
    ignores: tuple[str, ...] = ()
    complete_rows: int = 0
    frozen: Mapping[str, str] = {}
    replicable: bool = True
    class_weight: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.register_buffer("class_weight", torch.ones(inputs.outputs))

    def __call__(self, batch: Batch) -> Fused:
        """Call `forward` with the batch's streams put in the order of `inputs`."""
        fused: Fused = super().__call__(with_stream_order(batch, self.inputs.names))
        return fused

    def forward(self, batch: Batch) -> Fused:
        """Output for a batch; finite also where nothing is present."""
        raise NotImplementedError

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Take the train rows' mean and standard deviation of each stream, before training.

        Writes buffers in place (not under `vmap`); `Clean` takes what normalises its inputs.
        """

    def observe_epoch_size(self, batches: int, complete_rows: int) -> None:
        """Take the number of batches of an epoch, before training.

        Args:
            batches: of one epoch.
            complete_rows: train rows that have every stream.
        """

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Loss of this optimisation step, a scalar; the task's loss unless overridden."""
        return self.task_loss(batch, fused.logits)

    def task_loss(self, batch: Batch, logits: Tensor, counted: Tensor | None = None) -> Tensor:
        """The task's loss over the rows that have anything present (and are `counted`, (B,))."""
        rows = batch.present.any(1) if counted is None else batch.present.any(1) & counted
        return task_loss(self.inputs.task, logits, batch.targets, rows, self.class_weight)

    def trains(self, name: str, step: str, stage: str) -> bool:
        """Whether a parameter (or buffer) is updated in this step of this stage."""
        return True

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies: to matrices named `weight…`, and to nothing else.

        Not to biases, norms, placeholders and queries.
        """
        return name.rsplit(".", 1)[-1].startswith("weight") and parameter.ndim >= 2

    def modify_gradients(
        self,
        gradients: dict[str, Tensor],
        buffers: dict[str, Tensor],
        batch: Batch,
        fused: Fused,
        step: str,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Change the gradients of what trains in this step before the optimiser uses them.

        Runs under `vmap`, one replica at a time; returns new gradients and buffers, writes
        nothing in place.
        """
        return gradients, buffers

    def measures(self, batch: Batch, fused: Fused) -> dict[str, float]:
        """Metrics of the method's own on the rows that are scored, by name; in eval mode.

        Not under `vmap`: one replica at a time, so Python may read values.
        """
        return {}

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Notes on the trained state, (R, …) by name, that are printed with the results."""
        return ()


def with_stream_order(batch: Batch, names: Sequence[str]) -> Batch:
    """The same batch with its streams in this order."""
    order = list(batch.features)
    if order == list(names):
        return batch
    return replace(
        batch,
        features={name: batch.features[name] for name in names},
        present=batch.present[:, [order.index(name) for name in names]],
    )
