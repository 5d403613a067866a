"""FusionHead: what a method builds, and the presence-aware parts that heads are made of.

A head is a pure function of (parameters, buffers, batch): no `.item()`, no Python branch on data,
no dynamic shapes, no `nn.Dropout` (`pipelines.counter_rng.dropout` replaces it), no in-place
writes. A buffer is state: a forward that assigns a new tensor to a registered buffer has it carried
on.
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
    """What `build` gets: the streams in the order of `present`'s columns, and the task."""

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
    """A part of training with its own weights in motion.

    Attributes:
        name: as `trains` is asked.
        steps: optimisation steps of a batch, in order; None = the head's `steps`.
        monitor: what validation selects by: `task` (task loss of the logits), `loss` (the head's
            own loss), `score` (the task's first metric); None = as the plan says.
        plan: fields of the Plan that differ in this stage, such as {"learning_rate": 1e-4}.
    """

    name: str
    steps: tuple[str, ...] | None = None
    monitor: Literal["task", "loss", "score"] | None = None
    plan: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Fused:
    """A head's opinion.

    Attributes:
        logits: (B, C); for a `value` task (B, 1).
        tokens: (B, M, H) one vector a stream, or None.
        stream_logits: (B, M, C) where the method has an opinion of each stream; undefined where
            absent (but finite).
        weights: (B, M) how much each stream counted, or None.
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
    """Features of M streams, some absent, to C logits.

    A method overrides `forward`, and of the other methods and attributes what it needs.
    `observe` and `observe_epoch_size` are also called on every submodule that defines them.

    Attributes:
        steps: optimisation steps of every batch, in order.
        stages: parts of training, in order.
        additive: True where logits are a sum over streams, so that no synergy (XOR) is learned.
        ignores: streams that the head does not look at, by design.
        complete_rows: rows with every stream that a training batch should have, or as many as
            there are; 0 = as chance has it.
        frozen: parameters that never receive a gradient (name, or prefix ending in "."), with
            the reason.
    """

    steps: tuple[str, ...] = ("joint",)
    stages: tuple[Stage, ...] = (Stage("fit"),)
    additive: bool = False
    ignores: tuple[str, ...] = ()
    complete_rows: int = 0
    frozen: Mapping[str, str] = {}
    class_weight: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.register_buffer("class_weight", torch.ones(inputs.outputs))

    def __call__(self, batch: Batch) -> Fused:
        """`forward`, with the streams in the order of `inputs` whatever the batch's order is."""
        fused: Fused = super().__call__(with_stream_order(batch, self.inputs.names))
        return fused

    def forward(self, batch: Batch) -> Fused:
        """Opinion on a batch; finite also where nothing is present."""
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
        """What this optimisation step minimises, a scalar; the task's loss unless overridden."""
        return self.task_loss(batch, fused.logits)

    def task_loss(self, batch: Batch, logits: Tensor, counted: Tensor | None = None) -> Tensor:
        """The task's loss over the rows that have anything present (and are `counted`, (B,))."""
        rows = batch.present.any(1) if counted is None else batch.present.any(1) & counted
        return task_loss(self.inputs.task, logits, batch.targets, rows, self.class_weight)

    def trains(self, name: str, step: str, stage: str) -> bool:
        """Whether a parameter moves (or a buffer is carried on) in this step of this stage."""
        return True

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies: to matrices named `weight…`, and to nothing else.

        So biases, norms, placeholders and queries are left alone.
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
        """Change gradients (of what trains in this step) before they are used; buffers are state.

        Runs under `vmap`, one replica at a time; returns new dicts, writes nothing in place.
        """
        return gradients, buffers

    def measures(self, batch: Batch, fused: Fused) -> dict[str, float]:
        """Numbers of the method's own on the rows that are scored, by name; in eval mode.

        Not under `vmap`: one replica at a time, so values may be looked at.
        """
        return {}

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """What a reader of the table should know of the trained state, (R, …) by name."""
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
