"""Predictions as tables and files."""

import io
from pathlib import Path

from cache.storage.objects import user_errors
from pipelines.evaluation.predict import Predictions
from pipelines.reports.table import Cell, Table

SUFFIXES = (".csv", ".parquet", ".jsonl")
NAMED = 12  # unused columns that a note names


def prediction_tables(found: Predictions, shown: int) -> list[Table]:
    """Tables of the first predictions with their probability, and of cells that failed."""
    rows: list[tuple[Cell, ...]] = []
    task = found.run.task
    columns = [stream.name for stream in found.run.streams]
    for number, answer in enumerate(found.answers()[:shown]):
        there = [name for name, seen in zip(columns, found.present[number], strict=True) if seen]
        outputs, spread = found.outputs[number], found.spread[number]
        place = 0 if task.kind == "value" else int(outputs.argmax())
        label = ", ".join(answer) if isinstance(answer, list) else answer
        sure = None if answer is None or task.kind == "value" else float(outputs[place])
        seeds = None if answer is None else float(spread[place])
        rows.append((found.ids[number], label, sure, seeds, " ".join(there) or "nothing"))
    total = len(found.ids)
    notes = [f"{shown:,} of {total:,} shown"] if total > shown else []
    notes += [*_unmatched(found), *found.notes]
    notes.append("± seeds: standard deviation over replicas")
    heads = ("sample", "prediction", "probability", "± seeds", "seen")
    made = [Table(f"predictions of {found.run.method}", heads, tuple(rows), tuple(notes))]
    if found.failures:
        title = "cells that could not be read, counted as absent"
        made.append(Table(title, ("sample", "modality", "reason"), found.failures))
    return made


def _unmatched(found: Predictions) -> list[str]:
    """A note on columns that did not match; empty where all did."""
    parts = []
    if found.lacking:
        parts.append(f"no column for {', '.join(found.lacking)}, counted as absent")
    if found.unused:
        more = f" and {len(found.unused) - NAMED} more" if len(found.unused) > NAMED else ""
        parts.append(f"unused columns: {', '.join(found.unused[:NAMED])}{more}")
    return [f"in the input, {'; '.join(parts)}"] if parts else []


def write_predictions(found: Predictions, path: Path) -> None:
    """Write all predictions with every probability; label lists joined by commas in CSV.

    Ids and labels are written as they are, also those that a spreadsheet takes for a formula: the
    file is read by programs and joined by id.

    Args:
        found: the predictions.
        path: the file to make, ending in one of `SUFFIXES`.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours.
    """
    import polars as pl

    table = found.table()
    encoded = io.BytesIO()
    match path.suffix:
        case ".csv":
            lists = pl.col(pl.List(pl.String)).list.join(",")
            table.with_columns(lists).write_csv(encoded)
        case ".parquet":
            table.write_parquet(encoded)
        case _:
            table.write_ndjson(encoded)
    with user_errors(path):
        path.write_bytes(encoded.getbuffer())
