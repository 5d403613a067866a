"""Restore a recorded run: its heads with their weights, and its feature table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.runs import RunRecord
from pipelines import catalog
from pipelines.device import onto, pick_device, threads_for
from pipelines.features.hiding import hide
from pipelines.features.load import load_table
from pipelines.features.table import FeatureTable, Scale
from pipelines.fusion.head import Inputs, Stream
from pipelines.metrics import baselines
from pipelines.training.plan import Plan
from pipelines.training.record import digest, score_all
from pipelines.training.replicas import Replicas
from pipelines.training.run import missing_pattern, resplit


@threads_for(0)
def score_test(home: Home, record: RunRecord, device: str = "auto") -> None:
    """Score a run on test rows, under its own missing protocol, if a sweep had left them out.

    Raises:
        MmfuseError: as `evaluation.evaluate`.
    """
    if any(scores.split == "test" for scores in record.scores):
        return
    where, plan = pick_device(device), plan_of(record)
    hidden = hide(run_table(home, record, where), missing_pattern(plan))
    found, predictions = score_all(
        rebuild(record, where),
        hidden,
        range(len(record.seeds)),
        record.seeds,
        label=missing_pattern(plan).label,
    )
    record.add_scores(found)
    record.keep_predictions(predictions)


def rebuild(record: RunRecord, device: torch.device) -> Replicas:
    """Build the run's heads and load their weights."""
    streams = {s.name: Stream(s.width, s.modality, s.sequence) for s in record.streams}
    head = method_of(record)(Inputs(streams, record.task), **record.options)
    replicas = Replicas([onto(head, device)] * len(record.seeds))
    replicas.load({name: torch.from_numpy(value) for name, value in record.state().items()})
    return replicas


def run_table(home: Home, record: RunRecord, device: torch.device) -> FeatureTable:
    """Load the features that a run was trained on, nothing hidden.

    Raises:
        MmfuseError: if they are gone, or are of other samples now.
    """
    store = FeatureStore(home, record.dataset)
    store.inputs_of(record)  # which raises where they are not those of the training
    infos = list(store.streams_of(record).values())
    table = resplit(load_table(store, infos, device), plan_of(record))
    return replace(table, scale=Scale(*record.scale))


def linear_name(record: RunRecord) -> str:
    """Name of the linear baseline of the run's task."""
    return baselines.linear_name(record.task)


def plan_of(record: RunRecord) -> Plan:
    """Plan of a recorded run."""
    return Plan(**record.plan | {"seeds": tuple(record.seeds)})


def method_of(record: RunRecord) -> Callable[..., Any]:
    """`build` of a recorded run's method; one given as a file is the copy in the run's folder.

    Raises:
        MmfuseError: if that copy was changed.
    """
    if not record.method_digest:
        build: Callable[..., Any] = catalog.find("methods", record.method).build
        return build
    path = record.path / "method.py"
    if digest(path.read_text(encoding="utf-8")) != record.method_digest:
        raise MmfuseError(f"{path} is not what {record.id} was trained with; train again")
    copied: Callable[..., Any] = catalog.find("methods", str(path)).build
    return copied
