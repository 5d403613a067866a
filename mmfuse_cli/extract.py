"""mmfuse extract: fill the cache with what frozen encoders make of a dataset."""

from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

Words = list[str] | None


def extract(
    context: typer.Context,
    dataset: Annotated[
        str | None, typer.Option(help="A name, NAME/TASK, a table's file, or a folder a class.")
    ] = None,
    encoder: Annotated[Words, typer.Option(help="NAME or NAME:MODEL; repeatable.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Local weights of the encoder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="What it computes in; auto: half on GPUs.")] = "auto",
    storage: Annotated[
        str, typer.Option(help="What is kept: float16, float32; auto: float16 of pretrained.")
    ] = "auto",
    sequence: Annotated[bool, typer.Option(help="A vector a frame instead of one.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read and prepare.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Encode at most this many inputs now.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad sample.")] = False,
    max_bad: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stop when more than this share fails.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Encode once more what failed.")] = False,
    reason: Annotated[
        Words, typer.Option(help="Only what failed for it: io, timeout …, transient; repeatable.")
    ] = None,
    rehash: Annotated[bool, typer.Option(help="Read every file again to know it.")] = False,
    plan: Annotated[
        bool, typer.Option(help="Show rows, disk, download, time; keep nothing.")
    ] = False,
    explain: Annotated[bool, typer.Option(help="Why a stream is stale; do nothing.")] = False,
    modality: Annotated[Words, typer.Option(help="Own data: poster=image; repeatable.")] = None,
    target: Annotated[str | None, typer.Option(help="Own data: the column to predict.")] = None,
    task: Annotated[str | None, typer.Option(help="Own data: classes, labels or value.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Own data: the column of ids.")] = None,
    split: Annotated[str | None, typer.Option(help="A column, or shares 0.8/0.1/0.1.")] = None,
    group: Annotated[str | None, typer.Option(help="Own data: kept on one side.")] = None,
    name: Annotated[str | None, typer.Option(help="Own data: what to call it.")] = None,
) -> None:
    """Run frozen encoders over a dataset, once, into the cache."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if reason and not retry_failed:
        raise mmfuse.MmfuseError("--reason says what --retry-failed tries again; give both")
    own = mmfuse.TableOptions(
        modalities=tuple(mmfuse.parse_modality(word) for word in modality or ()),
        target=target,
        task=arguments.one_of("task", task, ("classes", "labels", "value")),
        id=id_,
        split=split,
        group=group,
        name=name,
    )
    for one in encoder or ():  # a slip of the finger needs no dataset to be seen
        mmfuse.catalog.check("encoders", one if one.endswith(".py") else one.partition(":")[0])
    word = arguments.dataset(asked, dataset)
    opened = mmfuse.open_dataset(
        word, roots=asked.roots, table=own, note=console.note, home=asked.layout
    )
    if not encoder:
        raise mmfuse.extraction.no_encoder(opened)
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
                each, built, home=asked.layout, retry_failed=retry, rehash=rehash
            )
            for each in opened
        }
        if explain:
            table = mmfuse.extraction.explanation_table(plans, asked.layout)
        else:
            table = mmfuse.extraction.estimate_table(plans, home=asked.layout, options=options)
        without = " and ".join(["--plan"] * plan + ["--explain"] * explain)
        console.show([table], as_json=asked.json, ends=[f"next: the same without {without}"])
        return
    reports = mmfuse.extraction.ExtractionReports(asked.layout)
    for each in opened:
        found = mmfuse.extract(each, built, home=asked.layout, options=options, track=console.track)
        reports.add(each, found)
        if reports.interrupted:
            break
    names = [each.name for each in opened]
    kept = names[0] if opened[0].origin and len(names) == 1 else word  # its options too
    arguments.remember(asked.home, "extract", {"dataset": kept, "names": names})
    if reason and not reports.tried:
        console.note(f"nothing was tried again: no row failed for {' or '.join(reason)}")
    console.show(reports.tables(), as_json=asked.json, ends=reports.ends())
    if reports.interrupted or reports.failures:
        raise typer.Exit(130 if reports.interrupted else 1)
