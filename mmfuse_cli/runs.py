"""mmfuse runs: past runs, newest last; tags, notes, deletion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

Words = list[str] | None
SORTS = ("when", "val", "test")
SHOWN = 20  # runs without --latest


def runs(
    context: typer.Context,
    named: arguments.Named = None,
    dataset: Annotated[
        str | None, typer.Option(help="Only runs of this dataset; default: all.")
    ] = None,
    method: Annotated[Words, typer.Option(help="Only runs of this method; repeatable.")] = None,
    run: Annotated[Words, typer.Option(help="Only this run, id or prefix; repeatable.")] = None,
    tagged: Annotated[str | None, typer.Option(help="Only runs with this tag.")] = None,
    sort: Annotated[str, typer.Option(help="when, val or test; the best last.")] = "when",
    costs: Annotated[
        bool, typer.Option(help="Show the cost of one sample instead of scores.")
    ] = False,
    latest: Annotated[
        int | None,
        typer.Option(min=1, help="Show this many, the last ones; default: 20, JSON all."),
    ] = None,
    tag: Annotated[Words, typer.Option(help="Add a tag to each --run; repeatable.")] = None,
    untag: Annotated[Words, typer.Option(help="Remove a tag from each --run; repeatable.")] = None,
    note: Annotated[
        str | None, typer.Option(help="Write a note on each --run, or '' for none.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Move each --run away; mmfuse cache gc deletes it.")
    ] = False,
) -> None:
    """List past runs with their test scores or costs. Tag, annotate or delete some."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    arguments.one_of("order of runs", sort, SORTS)
    if (tag or untag or note is not None or delete) and not run:
        raise mmfuse.MmfuseError("say which: --run RUN (mmfuse runs shows them)")
    found = arguments.runs(asked, run) if run else mmfuse.list_runs(asked.layout)
    found = list({one.id: one for one in found}.values())
    if (word := arguments.either(named, dataset)) is not None:
        names = arguments.datasets_with_runs(asked, word)
        found = [one for one in found if one.dataset in names]
    if methods := arguments.words(method):
        found = _of_methods(found, methods)
    if tagged is not None:
        known = {word for one in found for word in one.labels.tags}
        arguments.one_of("tag", tagged, sorted(known))
        found = [one for one in found if tagged in one.labels.tags]
    tags, untags = arguments.words(tag), arguments.words(untag)
    if tags or untags or note is not None:
        for one in found:
            mmfuse.label_run(one, add=tags, remove=untags, note=note)
    shown = (found if sort == "when" else mmfuse.runs.ordered(found, sort))[
        -(latest or (len(found) if asked.json else SHOWN)) :
    ]
    table = mmfuse.runs.cost_table(shown) if costs else mmfuse.runs.runs_table(shown)
    ends = [f"{len(shown)} of {mmfuse.count_of(len(found), 'run')} in {asked.layout.runs}"]
    ends.append("next: mmfuse eval --run RUN" if found else "next: mmfuse train --method concat")
    if delete:
        for one in found:
            mmfuse.delete_run(asked.layout, one)
        moved = f"{mmfuse.count_of(len(found), 'run')} moved to {asked.layout.deleted_runs}"
        back = f"to restore one, move its folder to {asked.layout.runs}"
        ends = [f"{moved}; {back}", "next: mmfuse cache gc --yes"]
    console.show([table], as_json=asked.json, ends=ends)


def _of_methods(
    found: "Sequence[mmfuse.RunRecord]", methods: Sequence[str]
) -> "list[mmfuse.RunRecord]":
    """Runs of some methods; a file's name without its folder and ending means the file."""
    known = {one.method for one in found} | {Path(one.method).stem for one in found}
    for word in methods:
        arguments.one_of("method with runs", word, sorted(known))
    return [one for one in found if {one.method, Path(one.method).stem} & set(methods)]
