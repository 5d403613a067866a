"""mmfuse report: one self-contained HTML page about runs."""

from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments


def report(
    context: typer.Context,
    run: arguments.Runs = None,
    output: Annotated[
        Path | None, typer.Option(help="The .html file; default: report.html in the home.")
    ] = None,
) -> None:
    """Write one HTML page about runs. Tables and charts; it loads nothing from elsewhere."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if output is not None:
        arguments.check_output("--output", output, (".html", ".htm"))
    runs = arguments.runs(asked, run)
    file = output or asked.home / "report.html"
    page = mmfuse.report(asked.layout, runs, track=console.track)
    with mmfuse.user_errors(file):
        file.write_text(page, encoding="utf-8")
    console.show([mmfuse.runs.train_table(runs)], as_json=asked.json, ends=[f"report in {file}"])
