"""mmfuse cache verify, gc: is the cache as it was written, and what of it can go."""

from collections.abc import Sequence
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, exchange

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
    from mmfuse_cli import console

    asked = arguments.settings(context)
    names = arguments.stored(asked, dataset) if dataset else None
    seen = mmfuse.verify(asked.layout, names, track=console.track)
    rows = tuple(
        (d.dataset, d.label or "-", "-" if d.rows is None else f"{d.rows[0]}–{d.rows[1] - 1}",
         d.what, "damaged" if d.path.exists() else "missing", str(d.path))
        for d in seen.damages
    )  # fmt: skip
    checked = f"{mmfuse.count_of(seen.streams, 'stream')}, {mmfuse.bytes_text(seen.bytes)} checked"
    columns = ("dataset", "stream", "rows", "what", "state", "file")
    table = mmfuse.Table("damages", columns, rows, () if rows else (f"none: {checked}",))
    if not seen.damages:
        again = _recompute(asked, dataset, encoder or [], weights, recompute) if recompute else []
        tables = [table, _recomputed_table(again)] if recompute else [table]
        console.show(tables, as_json=asked.json, ends=[f"cache in {asked.home}"])
        if any(one.differing for _, one in again):
            raise typer.Exit(1)
        return
    ends = [checked]
    if repair:
        mmfuse.repair(asked.layout, seen.damages)
        ends += [f"next: {command}" for command in mmfuse.extract_commands(seen.damages)]
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
    from mmfuse_cli import console

    asked = arguments.settings(context)
    found = mmfuse.plan_gc(asked.layout, streams=streams)
    rows = tuple(
        (item.dataset, item.name, item.why, mmfuse.bytes_text(item.bytes)) for item in found
    )
    total = mmfuse.bytes_text(sum(item.bytes for item in found))
    table = mmfuse.Table("garbage", ("dataset", "what", "why", "size"), rows)
    if yes:
        mmfuse.collect_garbage(found)
        ends = [f"{total} freed in {asked.home}"]
    else:
        ends = [f"{total} in {asked.home}; nothing was deleted"]
        ends += ["next: mmfuse cache gc --yes"] if found else []
    console.show([table], as_json=asked.json, ends=ends)


def _recompute(
    asked: arguments.Settings,
    dataset: str | None,
    encoders: Sequence[str],
    weights: str | None,
    count: int,
) -> "list[tuple[str, mmfuse.Recomputed]]":
    """Random rows of every stream, encoded once more; by dataset.

    Raises:
        MmfuseError: without --encoder, or for a stream that these words did not make.
    """
    if not encoders:
        raise mmfuse.MmfuseError("--recompute needs --encoder, the same words as extract was told")
    found = []
    for name in arguments.stored(asked, dataset):
        (raw,) = mmfuse.open_dataset(name, roots=asked.roots, home=asked.layout)
        built = [mmfuse.build_encoder(word, weights=weights) for word in encoders]
        plans = mmfuse.complete_plans(raw, built, home=asked.layout)
        found += [
            (name, one) for one in mmfuse.recompute(name, plans, home=asked.layout, count=count)
        ]
    return found


def _recomputed_table(found: "Sequence[tuple[str, mmfuse.Recomputed]]") -> "mmfuse.Table":
    columns = ("dataset", "stream", "encoded again", "worst cosine", "differ")
    rows = tuple(
        (name, one.key.label, len(one.rows), f"{one.worst:.6f}", len(one.differing))
        for name, one in found
    )
    return mmfuse.Table("recomputed", columns, rows)


app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("pack")(exchange.pack)
app.command("unpack")(exchange.unpack)
