"""mmfuse sweep: settings searched by validation rows alone."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

Words = list[str] | None


def sweep(
    context: typer.Context,
    method: Annotated[str | None, typer.Option(help="NAME or ./my_head.py.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="As the last extract named, if left out.")
    ] = None,
    features: Annotated[
        Words, typer.Option(help="Streams: clip/image,mfcc or repeated; all, if left out.")
    ] = None,
    settings: Annotated[
        Words, typer.Option("--set", help="name=value,value,… to try; repeatable.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="So many of the grid, by chance; all without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of that chance.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many replicas of each; 3 without.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Settings compared on validation rows; stopped, it goes on; test rows for the best alone."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if not method:
        raise mmfuse.MmfuseError("say which: --method NAME (mmfuse list methods shows them)")
    mmfuse.catalog.check("methods", method)
    flags = {"seeds": None if seeds is None else tuple(range(seeds))}
    options = arguments.overlaid(flags, settings, {"seeds": tuple(range(3))})
    name = arguments.one(arguments.stored(asked, dataset))
    found = mmfuse.sweep(
        method,
        name,
        home=asked.layout,
        features=features or None,
        options=options,
        trials=trials,
        seed=seed,
        device=device,
        on_epoch=console.epochs(f"{method} on {name}"),
        on_trials=lambda done, total: console.note(f"{done} of {total} runs there"),
    )
    best = found.trials[0].runs
    group = mmfuse.latest_group(asked.layout)[0].group
    arguments.remember(asked.home, "sweep", {"group": group, "runs": [run.id for run in best]})
    ends = [f"{mmfuse.count_of(found.trained, 'run')} trained now, in {asked.layout.runs}"]
    ends += [f"left out: {one}" for one in found.diverged]
    ends.append(f"next: mmfuse eval {' '.join(f'--run {run.id}' for run in best)}")
    shown = [
        mmfuse.runs.sweep_table([trial.runs for trial in found.trials]),
        mmfuse.runs.train_table(best),
    ]
    console.show(shown, as_json=asked.json, ends=ends)
