"""mmfuse report: one self-contained HTML page about runs."""

from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, metrics


def report(
    context: typer.Context,
    run: arguments.Runs = None,
    output: Annotated[
        Path | None, typer.Option(help="The .html file; default: report.html in the home.")
    ] = None,
    metric: metrics.Metric = None,
    all_metrics: metrics.AllMetrics = False,
) -> None:
    """Write one HTML page about runs. Tables and charts; it loads nothing from elsewhere."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if output is not None:
        arguments.check_output("--output", output, (".html", ".htm"))
    runs = arguments.runs(asked, run)
    shown = metrics.shown(metric, runs, every=all_metrics)
    file = output or asked.home / "report.html"
    page = mmfuse.report(asked.layout, runs, shown, track=console.track)
    with mmfuse.user_errors(file):
        file.write_text(page, encoding="utf-8")
    tables = [mmfuse.runs.train_table(runs, shown)]
    if "recall" in shown:
        tables += mmfuse.recall.recall_tables(runs)
    console.show(tables, as_json=asked.json, ends=[f"report in {file}"])
