"""mmfuse report: one self-contained HTML page about some runs."""

from pathlib import Path
from typing import Annotated

import typer

from mmfuse_cli import words


def report(
    context: typer.Context,
    run: Annotated[
        list[str] | None, typer.Option(help="Ids or their beginnings; those of the last train.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The .html file; report.html in the home without.")
    ] = None,
) -> None:
    """Tables and plots of runs in one HTML file that needs nothing else."""
    from cache.storage.objects import mendable
    from mmfuse_cli import console
    from pipelines.reports import runs as results
    from pipelines.reports.html import page

    asked = words.settings(context)
    if output is not None:
        words.check_output("--output", output, (".html", ".htm"))
    runs = words.runs(asked, run)
    file = output or asked.home / "report.html"
    with mendable(file):
        file.write_text(page(asked.layout, runs), encoding="utf-8")
    console.show([results.trained(runs)], as_json=asked.json, ends=[f"report in {file}"])
