"""Statistics of the train rows: feature moments, class weights, target scale."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache.errors import MmfuseError
from cache.samples import Samples
from pipelines.features.table import FeatureTable, Scale


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a stream's train rows, each (D,), over what is present."""

    mean: Tensor
    deviation: Tensor


def moments(table: FeatureTable) -> dict[str, Moments]:
    """Mean and standard deviation of every stream over its present rows (and frames)."""
    found = {}
    for number, (name, x) in enumerate(table.features.items()):
        there = table.present[:, number]
        if name in table.frame_present:
            there = there[:, None] & table.frame_present[name]
        values = x[there].double()  # (rows or frames, D)
        mean = values.mean(0) if len(values) else torch.zeros(x.shape[-1])
        spread = values.std(0, correction=0) if len(values) else torch.ones(x.shape[-1])
        found[name] = Moments(mean.to(x), spread.to(x))
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
