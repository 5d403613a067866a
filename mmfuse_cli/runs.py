"""mmfuse runs: past runs, newest last."""

from typing import Annotated

import typer

from mmfuse_cli import words


def runs(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="Only runs of this dataset.")] = None,
    costs: Annotated[
        bool, typer.Option(help="What one new sample takes instead of scores.")
    ] = False,
    latest: Annotated[int, typer.Option(help="How many, counted from the newest.")] = 20,
) -> None:
    """Past runs: what they were, and what they scored."""
    from cache.runs import list_runs
    from mmfuse_cli import console
    from pipelines import results

    asked = words.settings(context)
    found = [
        run
        for run in list_runs(asked.layout)
        if dataset is None or run.dataset == dataset or run.dataset.startswith(f"{dataset}/")
    ]
    shown = found[-latest:] if latest > 0 else []
    ends = [f"{len(shown)} of {len(found)} runs in {asked.layout.runs}"]
    ends.append("next: mmfuse eval --run RUN" if found else "next: mmfuse train --method concat")
    table = results.costs(shown) if costs else results.past(shown)
    console.show([table], as_json=asked.json, ends=ends)
