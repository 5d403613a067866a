"""mmfuse extract: encode a dataset with frozen encoders into the cache."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, memory

Words = list[str] | None


def extract(
    context: typer.Context,
    named: arguments.Named = None,
    dataset: arguments.NewDataset = None,
    encoder: Annotated[
        Words, typer.Option(help="NAME, NAME:MODEL, NAME/random or FILE; repeatable.")
    ] = None,
    weights: arguments.Weights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Compute dtype; auto: half on GPUs.")] = "auto",
    storage: Annotated[
        str, typer.Option(help="Stored dtype: float16, float32; auto: float16 of pretrained.")
    ] = "auto",
    sequence: Annotated[bool, typer.Option(help="Store one vector a frame.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read and prepare; default: by measured times."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Inputs to encode in this run; default: all.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first sample that fails.")] = False,
    max_bad: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stop when more than this share fails.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try failed inputs again.")] = False,
    reason: Annotated[
        Words,
        typer.Option(help="With --retry-failed: only this reason: io, timeout, …; repeatable."),
    ] = None,
    rehash: Annotated[bool, typer.Option(help="Read unchanged files again.")] = False,
    plan: Annotated[bool, typer.Option(help="Only show rows, disk, time.")] = False,
    explain: Annotated[bool, typer.Option(help="Only show why streams are stale.")] = False,
    modality: arguments.Modality = None,
    target: arguments.Target = None,
    task: arguments.TaskKind = None,
    id_: arguments.Ids = None,
    split: arguments.Split = None,
    group: arguments.Group = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
    sheet: arguments.Sheet = None,
    root: arguments.Root = None,
    keep_unlabelled: Annotated[
        bool, typer.Option(help="Own data: rows without a target get features too.")
    ] = False,
    name: arguments.Name = None,
) -> None:
    """Encode a dataset with frozen encoders into the feature cache."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if reason and not retry_failed:
        raise mmfuse.MmfuseError("--reason limits what --retry-failed tries again; give both")
    own = arguments.own_data(context)
    encoder = arguments.encoders(encoder)  # mistyped names are reported before anything is opened
    word = arguments.dataset(asked, arguments.either(named, dataset))
    with console.step(f"read {word}"):
        opened = mmfuse.open_dataset(
            word, roots=asked.roots, table=own, note=console.note, home=asked.layout
        )
    if not encoder:
        raise mmfuse.extraction.no_encoder(opened)
    if not (plan or explain):
        memory.request_streams(asked.home, opened, encoder)
    built = [
        mmfuse.build_encoder(
            typed,
            weights=str(weights) if weights else None,
            device=device,
            dtype=dtype,
            sequence=sequence,
            storage=storage,
            memory=asked.layout.weights,
        )
        for typed in encoder
    ]
    if not (plan or explain):
        memory.request_streams(asked.home, opened, encoder, built)
    serving = mmfuse.serving_encoders(opened, built)
    retry = tuple(reason) if reason else retry_failed
    options = mmfuse.ExtractOptions(
        workers=workers,
        strict=strict,
        limit=limit,
        max_bad=max_bad,
        retry_failed=retry,
        rehash=rehash,
    )
    if plan or explain:
        plans = {
            each.name: mmfuse.plan(
                each,
                serving[each.name],
                home=asked.layout,
                retry_failed=retry,
                rehash=rehash,
                track=console.track,
            )
            for each in opened
        }
        if explain:
            table = mmfuse.extraction.explanation_table(plans, asked.layout)
        else:
            table = mmfuse.extraction.estimate_table(
                plans, home=asked.layout, options=options, track=console.track
            )
        without = " and ".join(["--plan"] * plan + ["--explain"] * explain)
        console.show([table], as_json=asked.json, ends=[f"next: the same without {without}"])
        return
    reports = mmfuse.extraction.ExtractionReports(asked.layout)
    for each in opened:
        found = mmfuse.extract(
            each, serving[each.name], home=asked.layout, options=options, track=console.track
        )
        reports.add(each, found)
        if reports.interrupted:
            break
    names = [each.name for each in opened]
    stored = names[0] if opened[0].origin and len(names) == 1 else word  # with its options
    memory.remember(asked.home, "extract", {"dataset": stored, "names": names})
    memory.settle_requests(asked.home, reports.complete)
    if reason and not reports.tried:
        console.note(reports.not_retried(reason))
    console.show(reports.tables(), as_json=asked.json, ends=reports.ends(stored))
    if reports.interrupted or reports.failures:
        raise typer.Exit(130 if reports.interrupted else 1)
