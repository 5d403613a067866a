"""Observing: what heads may know of the train rows before training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cache.errors import MmfuseError
from pipelines.features.table import FeatureTable, cut
from pipelines.fusion.head import FusionHead, Moments
from pipelines.training.plan import Plan


def prepare(heads: Sequence[FusionHead], table: FeatureTable, plan: Plan) -> None:
    """Give heads what they know of the train rows.

    Moments of the streams to every part that has `observe`; how many batches an epoch has and how
    many rows are complete to every part that has `foresee`; class weights.
    """
    train = table.take(table.split("train"))
    seen = moments(train)
    batches = len(cut(len(train), plan.batch_size))
    weights = class_weights(train) if plan.class_weights else None
    for head in heads:
        if weights is not None:
            head.class_weight.copy_(weights)
        for module in head.modules():
            observe = getattr(module, "observe", None)
            if callable(observe):
                observe(seen)
            foresee = getattr(module, "foresee", None)
            if callable(foresee):
                foresee(batches, int(train.complete.sum()))


def moments(table: FeatureTable) -> dict[str, Moments]:
    """Mean and deviation of every stream over its present rows (and frames)."""
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
    """(C,) inverse frequency with mean 1 over rows; for `labels` absent / present, at most 100."""
    task, targets = table.samples.task, table.targets
    if task.kind == "value":
        raise MmfuseError("class weights are for classes and labels, not for a value")
    if task.kind == "labels":
        positive = targets.sum(0)
        return ((len(table) - positive) / positive.clamp(min=1)).clamp(0.01, 100)
    counts = torch.bincount(targets, minlength=task.outputs)
    return torch.where(counts > 0, len(table) / (task.outputs * counts.clamp(min=1)), 1.0)
