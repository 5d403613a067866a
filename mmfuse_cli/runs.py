"""mmfuse runs: past runs, newest last."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments


def runs(
    context: typer.Context,
    dataset: Annotated[
        str | None, typer.Option(help="Only runs of this dataset; default: all.")
    ] = None,
    costs: Annotated[
        bool, typer.Option(help="Show the cost of one sample instead of scores.")
    ] = False,
    latest: Annotated[int, typer.Option(min=1, help="Show this many of the newest runs.")] = 20,
) -> None:
    """List past runs with their test scores or costs."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    every = mmfuse.list_runs(asked.layout)
    there = sorted({run.dataset for run in every})
    names = [name for name in there if dataset in (None, name) or name.startswith(f"{dataset}/")]
    if dataset is not None and not names:
        raise mmfuse.unknown("dataset with runs", dataset, there)
    found = [run for run in every if run.dataset in names]
    shown = found[-latest:]
    ends = [f"{len(shown)} of {mmfuse.count_of(len(found), 'run')} in {asked.layout.runs}"]
    ends.append("next: mmfuse eval --run RUN" if found else "next: mmfuse train --method concat")
    table = mmfuse.runs.cost_table(shown) if costs else mmfuse.runs.runs_table(shown)
    console.show([table], as_json=asked.json, ends=ends)
