"""Synthetic batches, and synthetic tasks whose best possible score is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cache.samples import Task
from pipelines.features.table import Batch
from pipelines.fusion.head import Inputs, Stream

CLASSES = Task("classes", ("a", "b", "c"))
LABELS = Task("labels", ("a", "b", "c"))
VALUE = Task("value", ("a",))
TASKS = (CLASSES, LABELS, VALUE)


def inputs(widths: Sequence[int], task: Task = CLASSES, *, sequences: Sequence[int] = ()) -> Inputs:
    """Streams `e0/m0`, `e1/m1`, … of these widths; those numbered in `sequences` have frames."""
    streams = {
        f"e{i}/m{i}": Stream(width, f"m{i}", sequence=i in sequences)
        for i, width in enumerate(widths)
    }
    return Inputs(streams, task)


def batch(made: Inputs, rows: int, seed: int = 0, *, absent: float = 0.3, frames: int = 4) -> Batch:
    """Normal features and random targets; cells absent at random, at least one a row present."""
    generator = torch.Generator().manual_seed(seed)
    features, frame_present = {}, {}
    present = torch.rand(rows, len(made.streams), generator=generator) >= absent
    spare = torch.randint(len(made.streams), (rows,), generator=generator)
    present[torch.arange(rows), spare] |= ~present.any(1)
    for column, (name, stream) in enumerate(made.streams.items()):
        shape = (rows, frames, stream.width) if stream.sequence else (rows, stream.width)
        features[name] = torch.randn(shape, generator=generator)
        if stream.sequence:
            there = torch.rand(rows, frames, generator=generator) < 0.7
            there[:, 0] |= ~there.any(1)
            frame_present[name] = there & present[:, column, None]
    return Batch(
        features, present, frame_present, _targets(made.task, rows, generator),
        torch.arange(rows), torch.tensor(seed),
    )  # fmt: skip


def with_present(batch: Batch, present: Tensor) -> Batch:
    """The same batch with another presence (B, M); frames follow their stream."""
    order = list(batch.features)
    frames = {
        name: torch.ones_like(there) & present[:, order.index(name), None]
        for name, there in batch.frame_present.items()
    }
    return replace(batch, present=present, frame_present=frames)


def behind_absent(batch: Batch, value: float) -> Batch:
    """The same batch with `value` (NaN, say) in place of everything that is not present."""
    features = {}
    for column, (name, x) in enumerate(batch.features.items()):
        there = batch.present[:, column]
        if name in batch.frame_present:
            there = batch.frame_present[name] & there[:, None]
        features[name] = torch.where(there[..., None], x, value)
    return replace(batch, features=features)


def some_rows(batch: Batch, rows: slice) -> Batch:
    """Only these rows of a batch."""
    return replace(
        batch,
        features={name: x[rows] for name, x in batch.features.items()},
        present=batch.present[rows],
        frame_present={name: there[rows] for name, there in batch.frame_present.items()},
        targets=batch.targets[rows],
        rows=batch.rows[rows],
    )


def to_device(batch: Batch, device: str) -> Batch:
    """The same batch on a device."""
    return replace(
        batch,
        features={name: x.to(device) for name, x in batch.features.items()},
        present=batch.present.to(device),
        frame_present={name: there.to(device) for name, there in batch.frame_present.items()},
        targets=batch.targets.to(device),
        rows=batch.rows.to(device),
        numbers=batch.numbers.to(device),
    )


def double(batch: Batch) -> Batch:
    """The same batch in double precision."""
    targets = batch.targets.double() if batch.targets.is_floating_point() else batch.targets
    features = {name: x.double() for name, x in batch.features.items()}
    return replace(batch, features=features, targets=targets)


def _targets(task: Task, rows: int, generator: torch.Generator) -> Tensor:
    if task.kind == "classes":
        return torch.randint(task.outputs, (rows,), generator=generator)
    if task.kind == "labels":
        return (torch.rand(rows, task.outputs, generator=generator) < 0.5).float()
    return torch.randn(rows, generator=generator)


@dataclass(frozen=True)
class SyntheticTask:
    """Two streams, and the best accuracy that any head can reach on them.

    Attributes:
        name: what the classes depend on.
        inputs: streams and task.
        features: by stream, (N, D).
        targets: (N,) class numbers.
        best: with everything present.
        best_without: by stream, with that stream absent.
    """

    name: Literal["synergy", "redundant", "unique"]
    inputs: Inputs
    features: dict[str, Tensor]
    targets: Tensor
    best: float
    best_without: dict[str, float]


def synthetic_task(
    name: Literal["synergy", "redundant", "unique"], rows: int, seed: int = 0
) -> SyntheticTask:
    """Random rows of a synthetic task.

    Each stream has a sign ±1 in two dimensions and noise in a third.
    `synergy`: the class is whether the two signs differ (XOR), so one alone does not help;
    `redundant`: both signs are the class; `unique`: four classes, one bit in each stream.
    """
    generator = torch.Generator().manual_seed(seed)
    bits = _balanced(rows, generator)
    if name == "redundant":
        bits = bits[:, :1].expand(-1, 2)
    signs = bits * 2.0 - 1
    noise = (torch.rand(2, rows, 1, generator=generator) - 0.5) * 0.4
    features = {
        f"e{m}/m{m}": torch.cat([signs[:, m, None], -signs[:, m, None], noise[m]], 1)
        for m in range(2)
    }
    if name == "unique":
        task, targets = Task("classes", ("00", "01", "10", "11")), bits[:, 0] * 2 + bits[:, 1]
    else:
        task = Task("classes", ("no", "yes"))
        targets = bits[:, 0] ^ bits[:, 1] if name == "synergy" else bits[:, 0]
    alone = {"synergy": 0.5, "redundant": 1.0, "unique": 0.5}[name]
    made = inputs((3, 3), task)
    return SyntheticTask(name, made, features, targets, 1.0, dict.fromkeys(made.names, alone))


def _balanced(rows: int, generator: torch.Generator) -> Tensor:
    """(N, 2) bits, the four combinations equally often up to one row, in random order."""
    corner = torch.randperm(rows, generator=generator) % 4
    return torch.stack([corner // 2, corner % 2], 1)
