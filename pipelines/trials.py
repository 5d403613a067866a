"""Trials: a method tried on small made-up batches, and what it did there, by name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cache.errors import MmfuseError
from cache.samples import Task
from pipelines import puzzles
from pipelines.batching import Batch
from pipelines.fusion import BatchNorm, Fused, FusionHead, Inputs
from pipelines.plans import Plan

ROWS = 24
"""Rows of a batch that a head is tried on."""


class BrokenError(Exception):
    """A promise is not kept; the message is what was seen instead."""


@dataclass(frozen=True)
class Subject:
    """A method with its options and its way of training, built anew for every promise."""

    build: Callable[..., FusionHead]
    options: Mapping[str, object]
    plan: Plan = field(default_factory=Plan)

    def head(self, inputs: Inputs, seed: int = 0) -> FusionHead:
        """A head with the weights that belong to a seed; the caller's random state stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(inputs, **self.options)

    def tasks(self) -> list[Task]:
        """The kinds of task that it takes; the others it must refuse with a MmfuseError."""
        return [task for task in puzzles.TASKS if self.refusal(task) is None]

    def refusal(self, task: Task) -> str | None:
        """Why it does not take a task, or None."""
        try:
            self.head(puzzles.inputs((5, 4, 3), task))
        except MmfuseError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Seen:
    """Outputs, losses and gradients of a head on a batch, by name."""

    values: dict[str, Tensor]

    def strange(self) -> list[str]:
        """Names of what is not finite."""
        return [name for name, x in self.values.items() if not x.isfinite().all()]

    def unlike(self, other: "Seen", tolerance: float) -> list[str]:
        """Names of what differs by more than the tolerance, relative to the larger of 1 and it."""
        return [
            name
            for name, x in self.values.items()
            if not torch.allclose(x, other.values[name], rtol=tolerance, atol=tolerance)
        ]


def turns(head: FusionHead) -> Iterator[tuple[str, str]]:
    """Every (stage, step) of training, in order."""
    for stage in head.stages:
        for step in stage.steps or head.steps:
            yield stage.name, step


def see(head: FusionHead, batch: Batch) -> Seen:
    """Forward, every loss, and every gradient, in the mode that the head is in."""
    fused = head(batch)
    values = dict(outputs(fused))
    for step in dict.fromkeys(step for _, step in turns(head)):
        loss = head.loss(batch, fused, step)
        values[f"loss {step}"] = loss.detach()
        for name, gradient in gradients(head, loss).items():
            values[f"gradient {step} {name}"] = gradient
    return Seen(values)


def outputs(fused: Fused) -> Iterator[tuple[str, Tensor]]:
    """What a head says, by name."""
    for name in ("logits", "tokens", "stream_logits", "weights"):
        value = getattr(fused, name)
        if value is not None:
            yield name, value.detach()


def gradients(head: FusionHead, loss: Tensor) -> dict[str, Tensor]:
    """Of a loss, by parameter; zeros where there is none. The graph is kept."""
    named = dict(head.named_parameters())
    if not loss.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    found = torch.autograd.grad(
        loss, list(named.values()), allow_unused=True, retain_graph=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


def scenes(task: Task) -> Iterator[tuple[str, Inputs]]:
    """Kinds of input that a head may meet: pooled streams of other and of equal width, frames."""
    yield "two streams", puzzles.inputs((4, 4), task)
    yield "three streams", puzzles.inputs((5, 4, 3), task)
    yield "four streams", puzzles.inputs((3, 3, 4, 5), task)
    yield "frames", puzzles.inputs((5, 4, 3), task, sequences=(1,))


def settings(subject: Subject) -> Iterator[tuple[str, Inputs]]:
    """Every scene of every kind of task that a method takes, with its name."""
    for task in subject.tasks():
        for scene, inputs in scenes(task):
            yield f"{scene}, {task.kind}", inputs


def settled(subject: Subject, inputs: Inputs) -> FusionHead:
    """In evaluation mode, with running statistics that two training batches have moved."""
    head = subject.head(inputs).train()
    if any(isinstance(module, BatchNorm) for module in head.modules()):
        for seed in (11, 12):
            head(puzzles.batch(inputs, ROWS, seed=seed))
    return head.eval()
