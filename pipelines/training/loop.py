"""Training loop: R replicas side by side, early stopping, best weights by validation rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from cache.errors import MmfuseError
from pipelines import counter_rng
from pipelines.features.hiding import drop_modalities
from pipelines.features.table import Batch, FeatureTable, gather, shuffled_batches
from pipelines.fusion.head import Stage
from pipelines.fusion.losses import task_loss
from pipelines.metrics.metrics import LOWER_IS_BETTER, PRIMARY, score
from pipelines.training.optimizer import Rates, ReplicaSchedule
from pipelines.training.plan import Plan, selecting_metric
from pipelines.training.replicas import Replicas, State


class DivergedError(MmfuseError):
    """A replica never had a finite validation loss."""


@dataclass(frozen=True)
class Epoch:
    """History of one epoch, one value per replica; NaN where a replica had stopped.

    Attributes:
        stage: name of the stage.
        number: from 1.
        of: maximum number of epochs.
        losses: mean training loss.
        monitored: the value that selects the best epoch, smaller is better.
        scores: the task's primary metric on validation rows.
        rates: learning rates.
        active: which replicas train on after it.
        monitor: what `monitored` is, see `Plan`.
        patience: epochs without improvement after which a replica stops, or None.
    """

    stage: str
    number: int
    of: int
    losses: tuple[float, ...]
    monitored: tuple[float, ...]
    scores: tuple[float, ...]
    rates: tuple[float, ...]
    active: tuple[bool, ...]
    monitor: str = "task"
    patience: int | None = None


@dataclass
class Progress:
    """State of training after an epoch: resumed from it, training equals never having stopped.

    Attributes:
        stage: number of the current stage.
        epoch: epochs done in it.
        schedule: its learning rates and early stopping; None before its first epoch.
        best: the best parameters and buffers so far in this stage, by name (R, …).
        history: epochs so far, all stages.
    """

    stage: int = 0
    epoch: int = 0
    schedule: ReplicaSchedule | None = None
    best: State = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)

    def begin(self, stage: int) -> None:
        """Reset for the first epoch of a stage."""
        self.stage, self.epoch, self.schedule, self.best = stage, 0, None, {}


@dataclass(frozen=True)
class FitJob:
    """Input of `fit`: rows, and a plan and a seed for every replica.

    Attributes:
        table: train and validation rows and no others.
        plans: one per replica; they may differ in `plan.VECTOR_FIELDS`.
        seeds: one per replica.
        on_epoch: called after each epoch.
        keep: called after each epoch to write a checkpoint.
    """

    table: FeatureTable
    plans: Sequence[Plan]
    seeds: Sequence[int]
    on_epoch: Callable[[Epoch], None] | None = None
    keep: Callable[[Replicas, Progress], None] | None = None

    @cached_property
    def train(self) -> Tensor:
        """Positions of the train rows, on the device."""
        return torch.as_tensor(self.table.split("train"), device=self.table.device)

    @cached_property
    def drop_rates(self) -> Tensor | None:
        """(R,) modality dropout rates on the device; None without any."""
        rates = [plan.drop_rate for plan in self.plans]
        return torch.tensor(rates, device=self.table.device) if any(rates) else None

    @cached_property
    def held(self) -> FeatureTable:
        """The validation rows."""
        return self.table.take(self.table.split("val"))


def fit(replicas: Replicas, job: FitJob, progress: Progress | None = None) -> list[Epoch]:
    """Train every stage of R heads; each ends with its best weights on validation rows.

    Args:
        replicas: initialised heads; changed in place.
        job: rows, plans, seeds.
        progress: where to resume, `replicas` having loaded the state of then.

    Returns:
        The history, epoch by epoch.

    Raises:
        DivergedError: if a replica never had a finite validation loss.
    """
    progress = progress or Progress()
    stages = replicas.head.stages
    while progress.stage < len(stages):
        stage = stages[progress.stage]
        plans = [replace(plan, **stage.plan) for plan in job.plans]  # type: ignore[arg-type]
        schedule = progress.schedule or _schedule_of(plans)
        progress.schedule = schedule
        while progress.epoch < plans[0].epochs and any(schedule.active):
            rates = _rates(plans, schedule, progress.epoch)
            losses = _one_epoch(replicas, job, plans, rates, progress)
            monitored, primary = _validate(replicas, job.held, plans[0], stage, schedule.active)
            _copy_improved(replicas, progress, schedule.observe(monitored))
            progress.epoch += 1
            trained = [rate is not None for rate in rates]
            progress.history.append(
                Epoch(
                    stage.name,
                    progress.epoch,
                    plans[0].epochs,
                    _nan_unless(trained, losses),
                    _nan_unless(trained, monitored),
                    _nan_unless(trained, primary),
                    tuple(rate.learning_rate if rate else float("nan") for rate in rates),
                    tuple(schedule.active),
                    stage.monitor or plans[0].monitor,
                    plans[0].patience,
                )
            )
            if job.on_epoch:
                job.on_epoch(progress.history[-1])
            if job.keep:
                job.keep(replicas, progress)
        _check_best(schedule, job, stage)
        replicas.load(progress.best)
        progress.begin(progress.stage + 1)
    return progress.history


def _one_epoch(
    replicas: Replicas,
    job: FitJob,
    plans: Sequence[Plan],
    rates: Sequence[Rates | None],
    progress: Progress,
) -> list[float]:
    """Train one epoch, each replica in its own row order; mean loss per replica."""
    table, stage = job.table, replicas.head.stages[progress.stage].name
    seeds = torch.tensor(list(job.seeds), device=table.device)
    epoch_key = counter_rng.key(seeds, progress.stage, progress.epoch)  # (R,)
    order = vmap(lambda key: counter_rng.permutation(key, "order", len(job.train)))(epoch_key)
    size, least = plans[0].batch_size, replicas.head.complete_rows
    parts = shuffled_batches(job.train[order], table.complete, size, least)
    limits = [plan.clip for plan in plans]
    steps = replicas.steps(stage)
    total = torch.zeros(replicas.count, device=table.device)
    counters = torch.arange(len(parts), device=table.device)
    keys = counter_rng.key(epoch_key, counters[:, None])  # (batches, R)
    for rows, key in zip(parts, keys, strict=True):
        batch = _drop(gather(table, rows, key), job)
        for number, step in enumerate(steps):
            own = replace(batch, numbers=counter_rng.key(key, number)) if number else batch
            losses = replicas.step(own, (step, stage), plans[0].optimizer, rates, limits)
            total += losses.detach().to(total) * rows.shape[1] / len(steps)
    return (total / sum(rows.shape[1] for rows in parts)).tolist()


def _drop(batch: Batch, job: FitJob) -> Batch:
    """Modality dropout, each replica at its own rate."""
    if job.drop_rates is None:
        return batch
    owners = job.table.owners
    present = vmap(lambda p, s, k: drop_modalities(p, owners, s, k))(
        batch.present, job.drop_rates, batch.numbers
    )
    return replace(batch, present=present)


def _validate(
    replicas: Replicas, held: FeatureTable, plan: Plan, stage: Stage, active: Sequence[bool]
) -> tuple[list[float], list[float]]:
    """Monitored value and primary metric on validation rows, one per replica; NaN where stopped."""
    task, monitor = held.samples.task, monitor_of(stage, plan)
    going = [r for r, on in enumerate(active) if on]
    logits = replicas.logits(held, going)  # (A, N, C)
    decoded_logits = [decoded(held, each) for each in logits.cpu()]
    primary = [score(task, PRIMARY[task.kind], *each) for each in decoded_logits]
    if monitor not in ("task", "loss"):
        name = selecting_metric(task.kind, monitor)
        values = primary
        if name != PRIMARY[task.kind]:
            values = [score(task, name, *each) for each in decoded_logits]
        values = [value if name in LOWER_IS_BETTER else -value for value in values]
    elif monitor == "loss":
        steps = replicas.steps(stage.name)
        each = [replicas.losses(held, step, plan.batch_size, going) for step in steps]
        values = torch.stack(each).mean(0).tolist()
    else:
        rows = held.present.any(1)
        weights = replicas.buffers["class_weight"][going]
        pairs = zip(logits, weights, strict=True)
        each = [task_loss(task, one, held.targets, rows, weight) for one, weight in pairs]
        values = torch.stack(each).tolist()
    return _placed(values, going, len(active)), _placed(primary, going, len(active))


def _placed(values: Sequence[float], places: Sequence[int], count: int) -> list[float]:
    """Values at their places, NaN elsewhere."""
    found = [float("nan")] * count
    for place, value in zip(places, values, strict=True):
        found[place] = value
    return found


def monitor_of(stage: Stage, plan: Plan) -> str:
    """What selects the best epoch of a stage.

    A metric of the plan selects in every stage that learns the task, not in one by its own loss.
    """
    own = stage.monitor or plan.monitor
    return own if own == "loss" or plan.monitor in ("task", "loss", "score") else plan.monitor


def decoded(table: FeatureTable, logits: Tensor) -> tuple[Any, Any]:
    """Outputs in units of the targets, and the targets, as arrays for `metrics.scores`."""
    outputs = logits.cpu().double().numpy()
    if table.samples.task.kind == "value":
        outputs = outputs * table.scale.deviation + table.scale.mean
    return outputs, table.samples.targets


def _copy_improved(replicas: Replicas, progress: Progress, improved: Sequence[bool]) -> None:
    """Copy the state of the replicas that improved."""
    if not progress.best:
        progress.best = {name: value.clone() for name, value in replicas.state.items()}
        return
    if any(improved):
        better = [r for r, is_better in enumerate(improved) if is_better]
        rows = torch.tensor(better, device=replicas.device)
        for name, value in replicas.state.items():
            progress.best[name].index_copy_(0, rows, value.index_select(0, rows))


def _schedule_of(plans: Sequence[Plan]) -> ReplicaSchedule:
    first = plans[0]
    return ReplicaSchedule(
        [plan.learning_rate for plan in plans],
        first.schedule,
        first.epochs,
        first.patience,
        first.min_delta,
        first.step_every,
        first.plateau_factor,
        first.plateau_patience,
    )


def _rates(plans: Sequence[Plan], schedule: ReplicaSchedule, epoch: int) -> list[Rates | None]:
    each = zip(plans, schedule.at(epoch), schedule.active, strict=True)
    return [Rates(rate, p.weight_decay, p.momentum) if on else None for p, rate, on in each]


def _nan_unless(trained: Sequence[bool], values: Sequence[float]) -> tuple[float, ...]:
    return tuple(v if on else float("nan") for v, on in zip(values, trained, strict=True))


def _check_best(schedule: ReplicaSchedule, job: FitJob, stage: Stage) -> None:
    lost = [s for s, best in zip(job.seeds, schedule.best, strict=True) if not np.isfinite(best)]
    if not lost:
        return
    seeds, monitor = ", ".join(map(str, lost)), monitor_of(stage, job.plans[0])
    if monitor in ("task", "loss"):
        raise DivergedError(
            f"training diverged in stage {stage.name} for seed {seeds}: no finite validation loss; "
            f"lower it with --set learning_rate=…"
        )
    name = selecting_metric(job.held.samples.task.kind, monitor)
    raise DivergedError(
        f"{name} on validation rows selects epochs, and it was undefined in every epoch of "
        f"stage {stage.name} for seed {seeds}: training diverged, or these {len(job.held)} rows do "
        f"not define it; take another --select-metric, or lower --set learning_rate=…"
    )
