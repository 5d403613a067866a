"""mmfuse cache verify, gc: is the cache as it was written, and what of it can go."""

from typing import Annotated

import typer

from mmfuse_cli import exchange, recomputing, words

app = typer.Typer(
    help="Checksums, space, and features in and out.", rich_markup_mode=None, no_args_is_help=True
)


@app.command()
def verify(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset or group.")] = None,
    repair: Annotated[bool, typer.Option(help="Take back what is damaged, unread.")] = False,
    recompute: Annotated[
        int, typer.Option(min=0, help="Also encode so many random rows a stream once more.")
    ] = 0,
    encoder: Annotated[
        list[str] | None, typer.Option(help="With --recompute: as extract was told.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="With --recompute: likewise.")] = None,
) -> None:
    """Check every byte against its checksum; exit code 1 where something is damaged."""
    from cache.maintenance import repair as mending
    from cache.maintenance import verify as verifying
    from mmfuse_cli import console
    from pipelines.reports.table import Table, amount, several

    asked = words.settings(context)
    names = words.stored(asked, dataset) if dataset else None
    seen = verifying.verify(asked.layout, names, track=console.track)
    rows = tuple(
        (d.dataset, d.label or "-", "-" if d.rows is None else f"{d.rows[0]}–{d.rows[1] - 1}",
         d.what, "damaged" if d.path.exists() else "missing", str(d.path))
        for d in seen.damages
    )  # fmt: skip
    checked = f"{several(seen.streams, 'stream')}, {amount(seen.bytes)} checked"
    columns = ("dataset", "stream", "rows", "what", "state", "file")
    table = Table("damages", columns, rows, () if rows else (f"none: {checked}",))
    if not seen.damages:
        tables = [table]
        if recompute:
            tables.append(recomputing.again(asked, dataset, encoder or [], weights, recompute))
        console.show(tables, as_json=asked.json, ends=[f"cache in {asked.home}"])
        if recompute and any(row[-1] for row in tables[-1].rows):
            raise typer.Exit(1)
        return
    ends = [checked]
    if repair:
        mending.take_back(asked.layout, seen.damages)
        ends += [f"next: {command}" for command in mending.commands(seen.damages)]
    else:
        ends.append("next: mmfuse cache verify --repair, which names the extract commands")
    console.show([table], as_json=asked.json, ends=ends)
    raise typer.Exit(1)


@app.command()
def gc(
    context: typer.Context,
    streams: Annotated[bool, typer.Option(help="Older streams too, which no run names.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only shown.")] = False,
) -> None:
    """Show what no reader sees any more; with --yes, delete it."""
    from cache.maintenance import gc as collecting
    from mmfuse_cli import console
    from pipelines.reports.table import Table, amount

    asked = words.settings(context)
    found = collecting.plan(asked.layout, streams=streams)
    rows = tuple((item.dataset, item.name, item.why, amount(item.bytes)) for item in found)
    total = amount(sum(item.bytes for item in found))
    table = Table("garbage", ("dataset", "what", "why", "size"), rows)
    if yes:
        collecting.collect(found)
        ends = [f"{total} freed in {asked.home}"]
    else:
        ends = [f"{total} in {asked.home}; nothing was deleted"]
        ends += ["next: mmfuse cache gc --yes"] if found else []
    console.show([table], as_json=asked.json, ends=ends)


app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("pack")(exchange.pack)
app.command("unpack")(exchange.unpack)
