"""Options on metrics: which are shown, and which one selects."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

import mmfuse
from mmfuse_cli import arguments

Metric = Annotated[
    list[str] | None,
    typer.Option(help="Metrics to show: accuracy,ece; repeatable; default: the task's first."),
]
AllMetrics = Annotated[
    bool, typer.Option("--all-metrics", help="Show every metric, and the recall of each class.")
]
SelectMetric = Annotated[
    str | None,
    typer.Option(
        help="Metric on validation rows that selects epochs, settings and runs; default: the task "
        "loss for epochs, the task's first metric for the rest."
    ),
]


def shown(
    typed: Sequence[str] | None,
    runs: "Sequence[mmfuse.RunRecord]",
    *,
    every: bool = False,
) -> list[str]:
    """Names of the metrics to show of some runs; empty for the default.

    Args:
        typed: words of `--metric`.
        runs: that are shown.
        every: whether all of their metrics are meant.

    Raises:
        MmfuseError: for a metric that none of them has; it names those that exist.
    """
    known = mmfuse.runs.known_metrics(runs)
    if every:
        return known
    kinds = [run.task.kind for run in runs]
    return [mmfuse.check_metric(word, kinds, known) for word in arguments.words(typed)]


def check(
    asked: arguments.Settings, names: Sequence[str], typed: Sequence[str] | None, select: str | None
) -> None:
    """Check metrics before runs are there: `--metric` and `--select-metric`.

    Args:
        asked: the global options.
        names: of the datasets.
        typed: words of `--metric`, each of a metric that one of the tasks has.
        select: the word of `--select-metric`, a metric that all of them have.

    Raises:
        MmfuseError: for another metric; it names those that exist.
    """
    if not typed and select is None:
        return
    found = (mmfuse.FeatureStore(asked.layout, name).task_kind for name in names)
    kinds: list[Any] = [kind for kind in found if kind is not None]
    more = ["recall"] if "classes" in kinds else []
    for word in arguments.words(typed) if kinds else ():
        mmfuse.check_metric(word, kinds, more)
    for kind in kinds if select is not None else ():
        mmfuse.check_metric(str(select), [kind])
