"""mmfuse sweep: search settings by validation score."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, memory, metrics

Words = list[str] | None


def sweep(
    context: typer.Context,
    named: arguments.Named = None,
    method: Annotated[str | None, typer.Option(help="NAME or ./my_head.py.")] = None,
    dataset: arguments.Dataset = None,
    features: arguments.Features = None,
    drop_rate: Annotated[
        str | None,
        typer.Option(help="Probability of hiding each modality in a step; several: 0.1,0.3."),
    ] = None,
    missing_rate: Annotated[
        str | None, typer.Option(help="Share of cells hidden in every split; several: 0,0.3.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Number of cross-validation folds over all rows; default: the splits."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(help="Maximum epochs; several: 20,40.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Rows in a training step; several: 32,128.")
    ] = None,
    learning_rate: Annotated[
        str | None, typer.Option(help="Learning rate; several: 1e-3,3e-3.")
    ] = None,
    settings: Annotated[
        Words, typer.Option("--set", help="Values to try, name=value,value,…; repeatable.")
    ] = None,
    select_metric: metrics.SelectMetric = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Number of settings drawn at random from the grid; default: all."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for --trials.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Number of replicas of each setting; default: 3.")
    ] = None,
    device: arguments.Device = "auto",
) -> None:
    """Search settings by validation score. Only the best is scored on test rows; resumable."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    method = arguments.one_method(method)
    flags = {
        "drop_rate": drop_rate,
        "missing_rate": missing_rate,
        "folds": folds,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "monitor": select_metric,
        "seeds": None if seeds is None else tuple(range(seeds)),
    }
    options = arguments.overlaid(flags, settings, {"seeds": tuple(range(3))})
    name = arguments.one(arguments.stored(asked, arguments.either(named, dataset)))
    streams = arguments.features(asked, [name], features)
    metrics.check(asked, [name], None, select_metric)
    told = "{done} of {total} runs done"
    with (
        console.counted(f"sweep of {method} on {name}: runs", told) as on_trials,
        console.epochs(f"{method} on {name}") as on_epoch,
    ):
        found = mmfuse.sweep(
            method,
            name,
            home=asked.layout,
            features=streams,
            options=options,
            trials=trials,
            seed=seed,
            device=device,
            on_epoch=on_epoch,
            on_trials=on_trials,
        )
    best = found.trials[0].runs
    group = mmfuse.latest_group(asked.layout)[0].group
    memory.remember(asked.home, "sweep", {"group": group, "runs": [run.id for run in best]})
    ends = mmfuse.training_ends(best)
    ends.append(f"{mmfuse.count_of(found.trained, 'run')} trained now, in {asked.layout.runs}")
    ends += [f"left out: {one}" for one in found.diverged]
    ends += [] if features else memory.absent_streams(asked.home, [name])
    ends.append(f"next: mmfuse eval {' '.join(f'--run {run.id}' for run in best)}")
    shown = [
        mmfuse.runs.sweep_table([trial.runs for trial in found.trials], found.metric),
        mmfuse.runs.train_table(best),
    ]
    console.show(shown, as_json=asked.json, ends=ends)
