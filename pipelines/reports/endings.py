"""How trainings ended: stopped early and why, or all epochs used; one line a method."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cache.runs import RunRecord
from pipelines.metrics.metrics import PRIMARY
from pipelines.reports.notes import listed
from pipelines.reports.table import count_of


@dataclass(frozen=True)
class _Ending:
    """How one replica ended a stage."""

    epochs: int
    of: int
    reason: str


def training_ends(runs: Sequence[RunRecord]) -> list[str]:
    """One line for each method, over its datasets, settings, folds and seeds.

    `concat on digits: stopped after 34 of 100 epochs: no lower validation loss for 15 epochs`, or
    `concat on digits: used all 100 epochs`. Stages are named where a method has several.
    """
    lines = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        stages: dict[str, list[_Ending]] = {}
        for run in own:
            for stage, found in _endings(run).items():
                stages.setdefault(stage, []).extend(found)
        if stages:
            lines.append(f"{method} on {listed(run.dataset for run in own)}: {_describe(stages)}")
    return lines


def _endings(run: RunRecord) -> dict[str, list[_Ending]]:
    """By stage, how each replica ended it."""
    history = run.history()
    if "of" not in history.columns:  # written before the maximum of a stage was
        history = history.with_columns(
            of=pl.lit(run.plan["epochs"]),
            monitor=pl.lit(run.plan["monitor"]),
            patience=pl.lit(run.plan["patience"]),
        )
    last = history.group_by("stage", "seed", maintain_order=True).last()
    stages: dict[str, list[_Ending]] = {}
    for row in last.iter_rows(named=True):
        waited = count_of(row["patience"] or 0, "epoch")
        reason = f"{_improvement(row['monitor'], run)} for {waited}"
        stages.setdefault(row["stage"], []).append(_Ending(row["epoch"], row["of"], reason))
    return stages


def _improvement(monitor: str, run: RunRecord) -> str:
    if monitor in ("task", "loss"):
        return "no lower validation loss"
    metric = PRIMARY[run.task.kind] if monitor == "score" else monitor
    return f"no better validation {metric.replace('_', ' ')}"


def _describe(stages: dict[str, list[_Ending]]) -> str:
    if len(stages) == 1:
        return _describe_stage(next(iter(stages.values())))
    return ", then ".join(f"{name} {_describe_stage(found)}" for name, found in stages.items())


def _describe_stage(found: Sequence[_Ending]) -> str:
    of = _span([ending.of for ending in found])
    early = [ending for ending in found if ending.epochs < ending.of]
    if not early:
        return f"used all {of} epochs" if of != "1" else "used its only epoch"
    reasons = " or ".join(dict.fromkeys(ending.reason for ending in early))
    sentence = (
        f"stopped after {_span([ending.epochs for ending in early])} of {of} epochs: {reasons}"
    )
    if len(early) < len(found):
        return f"{len(early)} of {len(found)} replicas {sentence}; the others used all"
    return sentence


def _span(values: Sequence[int]) -> str:
    """`34`, or `30–41`."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"
