"""Statistics of the train rows: feature moments, class weights, target scale."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import MmfuseError
from cache.samples import Samples
from pipelines.device import where_double
from pipelines.features.table import FeatureTable, Scale

_VALUES = 1 << 22  # looked at a time


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a stream's train rows, each (D,), over what is present."""

    mean: Tensor
    deviation: Tensor


def moments(table: FeatureTable, rows: NDArray[np.int64] | None = None) -> dict[str, Moments]:
    """Mean and standard deviation of every stream over its present rows (and frames).

    In double precision, some rows at a time: first the means, then the squares about them.

    Args:
        table: the features.
        rows: positions of the rows to look at; None: all.
    """
    positions = torch.arange(len(table)) if rows is None else torch.from_numpy(rows)
    found = {}
    for number, (name, x) in enumerate(table.features.items()):
        parts = torch.split(positions.to(table.device), max(1, _VALUES // x[:1].numel()))
        place = where_double(x.device)

        def values(part: Tensor, number: int = number, name: str = name) -> Tensor:
            there = table.present[:, number].index_select(0, part)
            frames = table.frame_present.get(name)
            if frames is not None:
                there = there[:, None] & frames.index_select(0, part)
            seen = table.features[name].index_select(0, part)[there]  # (rows, D)
            return seen.to(where_double(seen.device)).double()

        count = 0
        total = torch.zeros(x.shape[-1], dtype=torch.float64, device=place)
        for part in parts:
            seen = values(part)
            count, total = count + len(seen), total + seen.sum(0)
        mean = total / max(count, 1)
        squares = torch.zeros_like(total)
        for part in parts:
            squares += (values(part) - mean).square().sum(0)
        spread = (squares / count).sqrt() if count else torch.ones_like(total)
        dtype = torch.promote_types(x.dtype, torch.float32)
        found[name] = Moments(mean.to(dtype).to(x.device), spread.to(dtype).to(x.device))
    return found


def class_weights(table: FeatureTable) -> Tensor:
    """(C,) inverse class frequency, mean 1 over rows; for `labels` negatives / positives, ≤ 100."""
    task, targets = table.samples.task, table.targets
    if task.kind == "value":
        raise MmfuseError("class weights are for classes and labels, not for a value")
    if task.kind == "labels":
        positive = targets.sum(0)
        return ((len(table) - positive) / positive.clamp(min=1)).clamp(0.01, 100)
    counts = torch.bincount(targets, minlength=task.outputs)
    return torch.where(counts > 0, len(table) / (task.outputs * counts.clamp(min=1)), 1.0)


def target_scale(samples: Samples) -> Scale:
    """Mean and standard deviation of a `value` task's train targets; 0 and 1 for other tasks."""
    if samples.task.kind != "value":
        return Scale()
    train = samples.targets[samples.splits == "train"].astype(np.float64)
    std = float(train.std())
    return Scale(float(train.mean()), std if std > 1e-12 else 1.0)
