"""mmfuse report: one self-contained HTML page about some runs."""

from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments


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
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if output is not None:
        arguments.check_output("--output", output, (".html", ".htm"))
    runs = arguments.runs(asked, run)
    file = output or asked.home / "report.html"
    with mmfuse.user_errors(file):
        file.write_text(mmfuse.report(asked.layout, runs), encoding="utf-8")
    console.show([mmfuse.runs.train_table(runs)], as_json=asked.json, ends=[f"report in {file}"])
