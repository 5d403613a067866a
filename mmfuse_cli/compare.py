"""mmfuse compare: runs side by side, with significance."""

from typing import Annotated

import typer

from mmfuse_cli import words

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
    import mmfuse
    from mmfuse_cli import console
    from pipelines.reports.compare import compare as paired
    from pipelines.reports.table import several

    asked = words.settings(context)
    found = words.runs(asked, run)
    reference = mmfuse.load_run(asked.layout, against) if against else None
    if reference is not None and reference.id not in {one.id for one in found}:
        found = [reference, *found]
    table = paired(asked.layout, found, reference.id if reference else None)
    ends = [f"{several(len(found), 'run')} in {asked.layout.runs}", "next: mmfuse report"]
    console.show([table], as_json=asked.json, ends=ends)
