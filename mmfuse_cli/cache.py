"""mmfuse cache verify, gc: check the cache's checksums, delete what is not used."""

from collections.abc import Sequence
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, console, exchange
from mmfuse_cli.examples import epilog

_HELP = "Verify, clean, export and import cached features."
app = typer.Typer(help=_HELP, rich_markup_mode=None, no_args_is_help=True, epilog=epilog("cache"))


@app.command(epilog=epilog("cache verify"))
def verify(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="Dataset or group; default: all.")] = None,
    repair: Annotated[
        bool, typer.Option(help="Discard damaged parts; extract encodes them again.")
    ] = False,
    recompute: Annotated[
        int, typer.Option(min=0, help="Also compare this many random rows a stream, encoded again.")
    ] = 0,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="With --recompute: the --encoder of extract; repeatable."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --recompute: the --weights of extract.")
    ] = None,
) -> None:
    """Check all cached data against checksums. Exit code 1 if some is damaged."""
    asked = arguments.settings(context)
    names = arguments.stored(asked, dataset) if dataset else None
    seen = mmfuse.verify(asked.layout, names, track=console.track)
    rows = tuple(
        (d.dataset, d.label or None, None if d.rows is None else (d.rows[0], d.rows[1] - 1),
         d.what, "damaged" if d.path.exists() else "missing", str(d.path))
        for d in seen.damages
    )  # fmt: skip
    span = mmfuse.Column(
        "rows", ("first_row", "last_row"), lambda cell: f"{cell[0]}–{cell[1]}", tuple
    )
    columns = ("dataset", "stream", span, "what", "state", "file")
    table = mmfuse.Table("damages", columns, rows, () if rows else ("none",), "damages")
    counted = (mmfuse.Column("streams", ("stream_count",)), mmfuse.Column.bytes("size"))
    sizes = ((seen.streams, seen.bytes),)
    checked = mmfuse.Table("checked", counted, sizes, name="checked")
    if not seen.damages:
        words = arguments.encoders(encoder)
        again = _recompute(asked, dataset, words, weights, recompute) if recompute else []
        tables = [table, checked, *([_recomputed_table(again)] if recompute else [])]
        console.show(tables, as_json=asked.json, ends=[f"cache in {asked.home}"])
        if any(one.differing for _, one in again):
            raise typer.Exit(1)
        return
    ends = ["next: mmfuse cache verify --repair, which names the extract commands"]
    if repair:
        mmfuse.repair(asked.layout, seen.damages)
        ends = [f"next: {command}" for command in mmfuse.extract_commands(seen.damages)]
    console.show([table, checked], as_json=asked.json, ends=ends)
    raise typer.Exit(1)


@app.command(epilog=epilog("cache gc"))
def gc(
    context: typer.Context,
    streams: Annotated[bool, typer.Option(help="Also older streams that no run uses.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; default: only show.")] = False,
) -> None:
    """Show unused files in the cache. With --yes, delete them."""
    asked = arguments.settings(context)
    found = mmfuse.plan_gc(asked.layout, streams=streams)
    rows = tuple((item.dataset, item.name, item.why, item.bytes) for item in found)
    total = mmfuse.bytes_text(sum(item.bytes for item in found))
    columns = ("dataset", "what", "why", mmfuse.Column.bytes("size"))
    table = mmfuse.Table("garbage", columns, rows, name="garbage")
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
    """Encode random rows of every stream again; results with their dataset.

    Raises:
        MmfuseError: without --encoder, or for a stream that these encoders did not make.
    """
    if not encoders:
        raise mmfuse.MmfuseError("--recompute needs --encoder, the same as for extract")
    found = []
    for name in arguments.stored(asked, dataset):
        (raw,) = mmfuse.open_dataset(name, roots=asked.roots, home=asked.layout)
        built = [mmfuse.build_encoder(word, weights=weights) for word in encoders]
        plans = mmfuse.complete_plans(raw, built, home=asked.layout)
        again = mmfuse.recompute(name, plans, home=asked.layout, count=count, track=console.track)
        found += [(name, one) for one in again]
    return found


def _recomputed_table(found: "Sequence[tuple[str, mmfuse.Recomputed]]") -> "mmfuse.Table":
    columns = (
        "dataset", "stream", mmfuse.Column("encoded again", ("rows",)),
        mmfuse.Column.number("worst cosine", "worst_cosine", ".6f"), "differ",
        mmfuse.Column.hidden("differing"),
    )  # fmt: skip
    rows = tuple(
        (name, one.key.label, len(one.rows), one.worst, len(one.differing), one.differing)
        for name, one in found
    )
    return mmfuse.Table("recomputed", columns, rows, name="recomputed")


for _name, _command in (
    ("export", exchange.export), ("import", exchange.import_),
    ("pack", exchange.pack), ("unpack", exchange.unpack),
):  # fmt: skip
    app.command(_name, epilog=epilog(f"cache {_name}"))(_command)
