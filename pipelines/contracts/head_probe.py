"""Outputs, losses and gradients of a head on small random batches, by name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError
from cache.samples import Task
from pipelines.contracts import synthetic
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs
from pipelines.fusion.layers import BatchNorm
from pipelines.training.plan import Plan

State = dict[str, Tensor]

ROWS = 24
"""Rows of a batch."""


@dataclass(frozen=True)
class HeadUnderTest:
    """A method with its options and training plan, built anew for every check."""

    build: Callable[..., FusionHead]
    options: Mapping[str, object]
    plan: Plan = field(default_factory=Plan)

    def head(self, inputs: Inputs, seed: int = 0) -> FusionHead:
        """A head initialised with a seed; the caller's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(inputs, **self.options)

    def tasks(self) -> list[Task]:
        """The kinds of task that it takes; the others it must refuse with a MmfuseError."""
        return [task for task in synthetic.TASKS if self.refusal(task) is None]

    def refusal(self, task: Task) -> str | None:
        """Why it does not take a task, or None."""
        try:
            self.head(synthetic.inputs((5, 4, 3), task))
        except MmfuseError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class ProbeOutputs:
    """Outputs, losses and gradients of a head on a batch, by name."""

    values: dict[str, Tensor]

    def strange(self) -> list[str]:
        """Names of values that are not finite."""
        return [name for name, x in self.values.items() if not x.isfinite().all()]

    def unlike(self, other: "ProbeOutputs", tolerance: float) -> list[str]:
        """Names of values that differ by more than the tolerance, absolute or relative."""
        return [
            name
            for name, x in self.values.items()
            if not torch.allclose(x, other.values[name], rtol=tolerance, atol=tolerance)
        ]


def train_steps(head: FusionHead) -> Iterator[tuple[str, str]]:
    """Every (stage, step) of training, in order."""
    for stage in head.stages:
        for step in stage.steps or head.steps:
            yield stage.name, step


def probe_head(head: FusionHead, batch: Batch) -> ProbeOutputs:
    """Forward, every loss, and every gradient, in the mode that the head is in."""
    fused = head(batch)
    values = dict(outputs(fused))
    for step in dict.fromkeys(step for _, step in train_steps(head)):
        loss = head.loss(batch, fused, step)
        values[f"loss {step}"] = loss.detach()
        for name, gradient in gradients(head, loss).items():
            values[f"gradient {step} {name}"] = gradient
    return ProbeOutputs(values)


def outputs(fused: Fused) -> Iterator[tuple[str, Tensor]]:
    """Outputs of a head, by name."""
    for name in ("logits", "tokens", "stream_logits", "weights"):
        value = getattr(fused, name)
        if value is not None:
            yield name, value.detach()


def gradients(head: FusionHead, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss by parameter, zeros where there is none; the graph is retained."""
    named = dict(head.named_parameters())
    if not loss.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    found = torch.autograd.grad(
        loss, list(named.values()), allow_unused=True, retain_graph=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


def input_cases(task: Task) -> Iterator[tuple[str, Inputs]]:
    """Inputs of a head: pooled streams of different and of equal width, and frames."""
    yield "two streams", synthetic.inputs((4, 4), task)
    yield "three streams", synthetic.inputs((5, 4, 3), task)
    yield "four streams", synthetic.inputs((3, 3, 4, 5), task)
    yield "frames", synthetic.inputs((5, 4, 3), task, sequences=(1,))


def test_cases(subject: HeadUnderTest) -> Iterator[tuple[str, Inputs]]:
    """Every case of inputs for every kind of task that a method takes, with its name."""
    for task in subject.tasks():
        for case, inputs in input_cases(task):
            yield f"{case}, {task.kind}", inputs


def eval_mode(subject: HeadUnderTest, inputs: Inputs) -> FusionHead:
    """A head in evaluation mode, its running statistics updated by two training batches."""
    head = subject.head(inputs).train()
    if any(isinstance(module, BatchNorm) for module in head.modules()):
        for seed in (11, 12):
            head(synthetic.batch(inputs, ROWS, seed=seed))
    return head.eval()


@dataclass(frozen=True)
class TrainStep:
    """One step of one stage as a pure function of state and batch, as the engine runs it."""

    head: FusionHead
    stage: str
    step: str

    def __call__(self, parameters: State, buffers: State, fields: dict[str, Any]) -> State:
        """Loss, logits, modified gradients, and the buffers afterwards."""
        batch = Batch(**fields)

        def loss(parameters: State) -> tuple[Tensor, tuple[State, State]]:
            state = {f"head.{name}": x for name, x in {**parameters, **buffers}.items()}
            value, fused = torch.func.functional_call(_ForwardAndLoss(self), state, (batch,))
            given = {name: x for name, x in vars(fused).items() if x is not None}
            return value, (given, {name: state[f"head.{name}"].detach() for name in buffers})

        found, (value, (given, after)) = torch.func.grad_and_value(loss, has_aux=True)(parameters)
        moving = {n: x for n, x in found.items() if self.head.trains(n, self.step, self.stage)}
        fused = Fused(**given)
        moving, after = self.head.modify_gradients(moving, after, batch, fused, self.step)
        changed = {f"gradient {name}": x for name, x in moving.items()}
        return {"loss": value, "logits": fused.logits, **changed, **after}


class _ForwardAndLoss(nn.Module):
    """Forward and loss of one step as one call, so that both see the same state."""

    def __init__(self, train_step: TrainStep) -> None:
        super().__init__()
        self.head, self.step = train_step.head, train_step.step

    def forward(self, batch: Batch) -> tuple[Tensor, Fused]:
        fused: Fused = self.head(batch)
        return self.head.loss(batch, fused, self.step), fused


def replica_drift(heads: list[FusionHead], batches: list[Batch], stage: str, step: str) -> float:
    """Largest difference in loss, gradients and buffers between stacked and separate heads."""
    train_step = TrainStep(heads[0], stage, step)
    parameters, buffers = torch.func.stack_module_state(list[nn.Module](heads))
    stacked = {key: _stack([vars(batch)[key] for batch in batches]) for key in vars(batches[0])}
    together = torch.vmap(train_step)(parameters, buffers, stacked)
    gaps = []
    for number, (head, batch) in enumerate(zip(heads, batches, strict=True)):
        own: State = dict(head.named_parameters())
        alone = TrainStep(head, stage, step)(own, dict(head.named_buffers()), vars(batch))
        gaps += [(together[name][number] - x).abs().max() for name, x in alone.items()]
    return float(torch.stack(gaps).max().detach())


def _stack(values: list[Any]) -> Any:  # noqa: ANN401 a Batch's fields are tensors or dicts of them
    if isinstance(values[0], Tensor):
        return torch.stack(values)
    return {key: _stack([each[key] for each in values]) for key in values[0]}
