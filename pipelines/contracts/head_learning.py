"""Checks that a head learns synthetic tasks with a known best score."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cache.samples import Modality, Samples
from pipelines.contracts import synthetic
from pipelines.contracts.head_probe import HeadUnderTest
from pipelines.contracts.result import CheckFailedError
from pipelines.contracts.synthetic import SyntheticTask
from pipelines.features.table import FeatureTable
from pipelines.training.loop import FitJob, fit
from pipelines.training.replicas import Replicas
from pipelines.training.run import prepare

TRAIN, HELD = 400, 200
"""Rows of the train split, and of each of the validation and test splits."""

EPOCHS = 60
PATIENCE = 8
POINT = 0.01
"""Accuracy by which a head may miss the optimum."""

SLACK = 0.02
"""Nats by which an additive head's loss may be below log 2 at random in a finite sample."""


def synergy_is_found_or_not(subject: HeadUnderTest) -> str:
    """A joint head solves XOR of two streams within a point; an additive one cannot.

    Ledger: S31, as the other two.
    """
    task = synthetic.synthetic_task("synergy", TRAIN + 2 * HELD)
    head = subject.head(task.inputs)
    accuracies, loss = _scored(_trained(subject, task), task)
    if head.additive:
        if loss < math.log(2) - SLACK:
            raise CheckFailedError(f"declared additive, but its loss on XOR is {loss:.3f} < log 2")
        return f"additive: loss {loss:.3f}, log 2 is {math.log(2):.3f}"
    _reaches(accuracies, task)
    return _accuracy_text(accuracies)


def redundancy_is_used(subject: HeadUnderTest) -> str:
    """What both streams hold is learned within a point, also from either one alone."""
    task = synthetic.synthetic_task("redundant", TRAIN + 2 * HELD)
    accuracies, _ = _scored(_trained(subject, task), task)
    for name in _streams_used(subject, task):
        accuracies.pop(f"without {name}", None)  # the other is ignored, by design
    _reaches(accuracies, task)
    return _accuracy_text(accuracies)


def unique_information_is_joined(subject: HeadUnderTest) -> str:
    """What each stream alone holds is combined within a point of the optimum."""
    task = synthetic.synthetic_task("unique", TRAIN + 2 * HELD)
    if _streams_used(subject, task):
        return "uses one stream alone, by design"
    accuracies, _ = _scored(_trained(subject, task), task)
    _reaches(accuracies, task)
    return _accuracy_text(accuracies)


def _streams_used(subject: HeadUnderTest, task: SyntheticTask) -> list[str]:
    """The streams a head uses if it ignores others by design; else none."""
    ignored = subject.head(task.inputs).ignores
    return [name for name in task.inputs.names if name not in ignored] if ignored else []


CHECKS: tuple[Callable[[HeadUnderTest], str], ...] = (
    synergy_is_found_or_not,
    redundancy_is_used,
    unique_information_is_joined,
)


def training_table(task: SyntheticTask) -> FeatureTable:
    """A synthetic task as a feature table: train, validation and test rows in order."""
    count = len(task.targets)
    splits = ["train"] * TRAIN + ["val"] * HELD + ["test"] * (count - TRAIN - HELD)
    modalities = tuple(stream.modality for stream in task.inputs.streams.values())
    samples = Samples(
        ids=np.array([f"row {number}" for number in range(count)], object),
        splits=np.array(splits, object),
        targets=task.targets.numpy(),
        groups=None,
        task=task.inputs.task,
        modalities=tuple(Modality(name, "series") for name in modalities),
        source="synthetic",
    )
    present = torch.ones(count, len(modalities), dtype=torch.bool)
    return FeatureTable(task.features, {}, present, modalities, samples, torch.arange(count))


def _trained(subject: HeadUnderTest, task: SyntheticTask) -> Replicas:
    """One head, trained with modality dropout so that each stream alone is learned too."""
    table = training_table(task)
    plan = replace(
        subject.plan,
        epochs=EPOCHS,
        batch_size=32,
        drop_rate=0.3,
        patience=PATIENCE,
        min_delta=1e-3,
        seeds=(0,),
    )
    head = subject.head(task.inputs)
    prepare([head], table, plan)
    replicas = Replicas([head])
    seen = _held_with_gaps(table.take(np.arange(TRAIN + HELD)))
    fit(replicas, FitJob(seen, [plan], plan.seeds))
    return replicas


def _held_with_gaps(table: FeatureTable) -> FeatureTable:
    """The table with validation rows in turn complete and without each stream, for selection."""
    present = table.present.clone()
    turn = torch.arange(len(table)) % (present.shape[1] + 1)  # 0: complete
    for number in range(present.shape[1]):
        present[(turn == number + 1) & (torch.arange(len(table)) >= TRAIN), number] = False
    return replace(table, present=present)


def _scored(replicas: Replicas, task: SyntheticTask) -> tuple[dict[str, float], float]:
    """Accuracy on test rows complete and without each stream, and the loss when complete."""
    whole = training_table(task)
    test = whole.take(np.arange(TRAIN + HELD, len(whole)))
    logits = _logits(replicas, test)
    found = {"complete": _accuracy(logits, test.targets)}
    for number, name in enumerate(task.inputs.names):
        present = test.present.clone()
        present[:, number] = False
        less = _logits(replicas, replace(test, present=present))
        found[f"without {name}"] = _accuracy(less, test.targets)
    return found, float(F.cross_entropy(logits, test.targets))


def _logits(replicas: Replicas, table: FeatureTable) -> Tensor:
    return replicas.logits(table)[0]


def _accuracy(logits: Tensor, targets: Tensor) -> float:
    return float((logits.argmax(1) == targets).double().mean())


def _reaches(accuracies: dict[str, float], task: SyntheticTask) -> None:
    """Within a point of the best possible, complete and with a stream missing.

    Where a missing stream leaves several classes equally likely, which one a head prefers is
    random: there four binomial standard deviations are allowed.
    """
    for pattern, accuracy in accuracies.items():
        best = task.best_without.get(pattern.removeprefix("without "), task.best)
        margin = 0.0 if best == 1 else 4 * math.sqrt(best * (1 - best) / HELD)
        if accuracy < best - POINT - margin:
            raise CheckFailedError(
                f"{task.name}, {pattern}: accuracy {accuracy:.3f}, best is {best:.2f}"
            )


def _accuracy_text(accuracies: dict[str, float]) -> str:
    return ", ".join(f"{pattern} {accuracy:.3f}" for pattern, accuracy in accuracies.items())
