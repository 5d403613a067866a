"""mmfuse predict: a run's predictions for new raw samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

SHOWN = 20  # rows on the screen; all of them go to --output
TOP = 5  # classes of one sample on the screen


def predict(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Option(help="Run id or prefix; default: the best run of the last train.")
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Table with the modalities, or the columns they were made of in training.",
        ),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            help="A cell of one sample, NAME=VALUE: text=WORDS, image=FILE, a column; repeatable."
        ),
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled", help="The rows without a target that extract --keep-unlabelled kept."
        ),
    ] = False,
    encoding: arguments.Encoding = None,
    sheet: arguments.Sheet = None,
    root: arguments.Root = None,
    output: Annotated[
        Path | None, typer.Option(help="File for all predictions: .csv, .parquet or .jsonl.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:MODEL or file of an encoder that the run does not record; repeatable."
        ),
    ] = None,
    weights: arguments.Weights = None,
    device: arguments.Device = "auto",
) -> None:
    """Predict labels of new raw samples. Any modality may be absent."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    if output is not None:
        arguments.check_output("--output", output, mmfuse.predictions.SUFFIXES)
    runs = arguments.runs(asked, [run] if run else None)
    if len(trained := dict.fromkeys(each.dataset for each in runs)) > 1:
        raise mmfuse.MmfuseError(
            f"the last train's runs are of {', '.join(trained)}; say which: "
            f"--run {' or '.join(_best(runs, name) for name in trained)}"
        )
    record = mmfuse.best_of(runs)
    if (input_ is not None) + bool(sample) + unlabelled != 1:
        names = ", ".join(record.modalities)
        raise mmfuse.MmfuseError(
            f"say which: --input FILE with {names}, --sample NAME=VALUE for one sample, or "
            f"--unlabelled for the rows of {record.dataset} without a target"
        )
    if unlabelled:
        found = mmfuse.predict_unlabelled(asked.layout, record, device=device, track=console.track)
    else:
        found = mmfuse.predict(
            asked.layout,
            record,
            arguments.pairs("--sample", sample) if input_ is None else input_,
            roots=asked.roots,
            table=arguments.own_data(context),
            encoders=_built(asked, encoder, weights, device),
            weights=str(weights) if weights else None,
            device=device,
            track=console.track,
        )
    ends = [f"run {record.id}"]
    if output is not None:
        mmfuse.predictions.write_predictions(found, output)
        ends.append(f"{mmfuse.count_of(len(found.ids), 'prediction')} in {output}")
    elif not sample:
        ends.append("next: --output FILE.csv writes all predictions with every probability")
    else:
        ends.append("next: --input FILE predicts every row of a table")
    if sample:
        tables = mmfuse.predictions.sample_tables(found, None if asked.json else TOP)
    else:
        tables = mmfuse.predictions.prediction_tables(found, SHOWN)
    console.show(tables, as_json=asked.json, ends=ends)
    if found.failures:
        raise typer.Exit(1)


def _built(
    asked: arguments.Settings, encoders: list[str] | None, weights: Path | None, device: str
) -> "list[mmfuse.Encoder]":
    """The encoders that were named."""
    return [
        mmfuse.build_encoder(
            word,
            weights=str(weights) if weights else None,
            device=device,
            memory=asked.layout.weights,
        )
        for word in arguments.encoders(encoders)
    ]


def _best(runs: "Sequence[mmfuse.RunRecord]", dataset: str) -> str:
    """Id of the best run of a dataset."""
    return mmfuse.best_of([run for run in runs if run.dataset == dataset]).id
