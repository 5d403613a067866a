"""mmfuse compare: runs side by side, with significance."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

Words = list[str] | None


def compare(
    context: typer.Context,
    run: Annotated[
        Words, typer.Option(help="Ids or their beginnings; those of the last train without.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The run to compare with; the best on validation without.")
    ] = None,
) -> None:
    """Runs on the same test rows: paired differences, permutation tests, Holm's correction."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    found = arguments.runs(asked, run)
    reference = mmfuse.load_run(asked.layout, against) if against else None
    if reference is not None and reference.id not in {one.id for one in found}:
        found = [reference, *found]
    table = mmfuse.compare(asked.layout, found, reference.id if reference else None)
    ends = [f"{mmfuse.count_of(len(found), 'run')} in {asked.layout.runs}", "next: mmfuse report"]
    console.show([table], as_json=asked.json, ends=ends)
