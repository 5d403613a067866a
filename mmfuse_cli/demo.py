"""mmfuse demo: extract → train → eval on the built-in digits, ending in a table."""

import time
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, memory

ENCODERS = ("pixels", "mfcc", "hashing")
METHODS = ("clarga", "concat", "late", "mean")


def demo(
    context: typer.Context,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of replicas, trained side by side.")
    ] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Maximum epochs of each method.")] = 15,
) -> None:
    """Extract, train, score the built-in digits. No download, under a minute on two cores."""
    from mmfuse_cli import console

    asked, began = arguments.settings(context), time.monotonic()
    home = asked.layout
    (digits,) = mmfuse.open_dataset("digits")
    console.note(f"1/3 extract: digits, {len(digits.table):,} rows, with {', '.join(ENCODERS)}")
    encoders = [mmfuse.build_encoder(name) for name in ENCODERS]
    reports = mmfuse.extraction.ExtractionReports(home)
    reports.add(digits, mmfuse.extract(digits, encoders, home=home, track=console.track))
    if reports.interrupted:
        raise KeyboardInterrupt
    memory.remember(asked.home, "extract", {"dataset": "digits", "names": ["digits"]})
    for report in reports.all:
        console.note(f"  {report.key.name}: {report.new:,} new, {report.reused:,} from the cache")
    streams = [report.key.name for report in reports.all]
    tried: list[tuple[str, dict[str, str]]] = [(method, {}) for method in METHODS]
    tried += [("unimodal", {"stream": stream}) for stream in streams]
    console.note(f"2/3 train: {', '.join(METHODS)}, unimodal; {seeds} seeds each, side by side")
    group = mmfuse.new_id("demo", "digits")
    runs = []
    for method, options in tried:
        with console.epochs(" ".join([method, *options.values()])) as on_epoch:
            run = mmfuse.train(
                method,
                "digits",
                home=home,
                features=[report.key.label for report in reports.all],
                options={"seeds": tuple(range(seeds)), "epochs": epochs, **options},
                group=group,
                on_epoch=on_epoch,
            )
        console.note(f"  {' '.join([method, *options.values()])}: {run.seconds:.1f} s")
        runs.append(run)
    console.note("3/3 eval: complete, and each modality missing in turn")
    patterns = [mmfuse.MissingPattern.named(name) for name in runs[0].modalities]
    tracked = console.track(runs, "evaluate runs", len(runs))
    done = [mmfuse.evaluate(home, run, patterns, track=console.track) for run in tracked]
    written = asked.home / "demo.html"
    written.write_text(mmfuse.report(home, runs, track=console.track), encoding="utf-8")
    ends = [
        f"{time.monotonic() - began:.0f} s; features in {home.features('digits')}, "
        f"runs in {home.runs}, report in {written}",
        "next: mmfuse train --method clarga --drop-rate 0.3, then mmfuse eval",
    ]
    console.show([mmfuse.runs.robustness_table(done)], as_json=asked.json, ends=ends)
