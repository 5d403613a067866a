"""mmfuse compare: differences between runs, with significance tests."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, metrics

Words = list[str] | None


def compare(
    context: typer.Context,
    run: arguments.Runs = None,
    against: Annotated[
        str | None, typer.Option(help="Run to compare with; default: the best on validation rows.")
    ] = None,
    metric: metrics.Metric = None,
    all_metrics: metrics.AllMetrics = False,
) -> None:
    """Compare runs on the same test rows. Paired permutation tests with Holm correction."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    found = arguments.runs(asked, run)
    reference = mmfuse.load_run(asked.layout, against) if against else None
    if reference is not None and reference.id not in {one.id for one in found}:
        found = [reference, *found]
    shown = metrics.shown(metric, found, every=all_metrics)
    if "recall" in shown and not all_metrics:
        raise mmfuse.MmfuseError(
            "recall is one number a class, which compare does not test; balanced_accuracy is its "
            "mean, and mmfuse report --metric recall shows each class"
        )
    table = mmfuse.compare(
        asked.layout, found, reference.id if reference else None, shown, track=console.track
    )
    ends = [f"{mmfuse.count_of(len(found), 'run')} in {asked.layout.runs}", "next: mmfuse report"]
    console.show([table], as_json=asked.json, ends=ends)
