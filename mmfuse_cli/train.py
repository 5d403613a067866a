"""mmfuse train: train fusion heads on cached features, all seeds side by side."""

from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, memory, metrics

Words = list[str] | None


def train(
    context: typer.Context,
    named: arguments.Named = None,
    method: Annotated[Words, typer.Option(help="NAME or ./my_head.py; repeatable, or A,B.")] = None,
    dataset: arguments.Dataset = None,
    features: arguments.Features = None,
    drop_rate: Annotated[
        float | None,
        typer.Option(help="Probability of hiding each modality at every training step."),
    ] = None,
    missing_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of cells hidden in every split, the same for every method and seed."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of replicas, trained side by side; default: 5."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Number of cross-validation folds over all rows; default: the splits."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Maximum epochs; training stops early.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in a training step.")] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(help="One, or several of which each is trained: 1e-3,3e-3."),
    ] = None,
    settings: Annotated[
        Words,
        typer.Option("--set", help="Setting of the method or of training, name=value; repeatable."),
    ] = None,
    select_metric: metrics.SelectMetric = None,
    metric: metrics.Metric = None,
    all_metrics: metrics.AllMetrics = False,
    device: arguments.Device = "auto",
) -> None:
    """Train fusion heads on cached features. Shows validation and test scores."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
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
    options = arguments.overlaid(flags, settings, {"seeds": tuple(range(5))})
    methods = arguments.methods(method)
    names = arguments.stored(asked, arguments.either(named, dataset))
    streams = arguments.features(asked, names, features)
    metrics.check(asked, names, metric, select_metric)
    group = mmfuse.new_id("+".join(Path(one).stem for one in methods), names[0])
    runs = []
    for name in names:
        for one in methods:
            with console.epochs(f"{one} on {name}") as on_epoch:
                runs += mmfuse.train_all(
                    one,
                    name,
                    home=asked.layout,
                    features=streams,
                    options=options,
                    group=group,
                    on_epoch=on_epoch,
                    device=device,
                )
    shown = metrics.shown(metric, runs, every=all_metrics)
    tables = [mmfuse.runs.train_table(runs, shown)]
    if "recall" in shown:
        tables += mmfuse.recall.recall_tables(runs)
    where = f"runs in {asked.layout.runs}: {', '.join(run.id for run in runs)}"
    ends = [
        *mmfuse.training_ends(runs),
        where,
        *([] if features else memory.absent_streams(asked.home, names)),
        "next: mmfuse eval (each modality missing in turn), or mmfuse eval --missing all",
    ]
    console.show(tables, as_json=asked.json, ends=ends)
