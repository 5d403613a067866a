"""mmfuse eval: score runs with modalities hidden."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, metrics

Words = list[str] | None


def evaluate(
    context: typer.Context,
    named: arguments.Named = None,
    run: arguments.Runs = None,
    dataset: Annotated[
        str | None, typer.Option(help="Runs of the last train on this dataset.")
    ] = None,
    missing: Annotated[
        Words,
        typer.Option(
            help="NAME, NAME,NAME together or all (every subset); repeatable; default: each alone."
        ),
    ] = None,
    missing_rate: Annotated[
        str | None, typer.Option(help="Probabilities of hiding each cell: 0.1,0.3.")
    ] = None,
    missing_frames: Annotated[
        Words, typer.Option(help="Probability of hiding each frame: video=0.5; repeatable.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed for --missing-rate and --missing-frames.")
    ] = 0,
    metric: metrics.Metric = None,
    all_metrics: metrics.AllMetrics = False,
    device: arguments.Device = "auto",
) -> None:
    """Score runs with modalities hidden. Shown with complete data and simple baselines."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    found = arguments.runs(asked, run, arguments.either(named, dataset))
    rates = arguments.numbers("--missing-rate", missing_rate)
    frames = arguments.numbered_pairs("--missing-frames", missing_frames)
    shown = metrics.shown(metric, found, every=all_metrics)
    if not (missing or rates or frames):
        console.note("no --missing: each modality hidden in turn")
    asks = [(one, _patterns(one, missing or [], rates, frames, seed)) for one in found]
    done = [
        mmfuse.evaluate(
            asked.layout,
            one,
            patterns,
            device=device,
            metrics=mmfuse.runs.shown_metrics([one], shown) if shown else (),
            track=console.track,
        )
        for one, patterns in console.track(asks, "evaluate runs", len(asks))
    ]
    ends = [f"scores in {asked.layout.runs}/RUN/scores", "next: mmfuse runs"]
    tables = [mmfuse.runs.evaluation_table(done, shown)]
    tables += mmfuse.runs.robustness_tables(done, shown)
    if "recall" in shown:
        tables += mmfuse.recall.pattern_recall_tables(done)
    console.show(tables, as_json=asked.json, ends=ends)


def _patterns(
    run: "mmfuse.RunRecord",
    missing: list[str],
    rates: list[float],
    frames: dict[str, float],
    seed: int,
) -> "list[mmfuse.MissingPattern]":
    """Missing patterns of one run, checked; without any words each modality in turn."""
    if not (missing or rates or frames):
        several = run.modalities if len(run.modalities) > 1 else ()
        return [mmfuse.MissingPattern.named(name) for name in several]
    pattern = mmfuse.MissingPattern
    found = [one for word in missing for one in pattern.parse(word, run.modalities)]
    found += [pattern.rate(rate, seed) for rate in rates]
    thinned = [pattern.of_frames(name, rate, seed) for name, rate in frames.items()]
    for one in thinned:
        one.check(run.modalities, {s.modality for s in run.streams if s.sequence})
    return found + thinned
