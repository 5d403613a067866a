"""Predictions as tables and files."""

import io
from pathlib import Path

from cache.storage.objects import user_errors
from pipelines.evaluation.predict import FACTS, Answer, Predictions, answer_of
from pipelines.reports.table import Cell, Column, Table, text

SUFFIXES = (".csv", ".parquet", ".jsonl")
SEEDS = Column("± seeds", ("std",))
NAMED = 12  # unused columns that a note names
FOLLOWED = 4  # labels whose probability without each modality is shown


def prediction_tables(found: Predictions, shown: int) -> list[Table]:
    """Tables of predictions with their probability, and of cells that failed.

    Args:
        found: the predictions.
        shown: how many the text shows.
    """
    each = zip(*(found.facts()[name] for name in FACTS), strict=True)
    rows: tuple[tuple[Cell, ...], ...] = tuple(each)
    notes = [*_unmatched(found), *found.notes, "± seeds: standard deviation over replicas"]
    columns = (
        Column("sample", ("id",)),
        Column("prediction", write=lambda cell: text(_joined(cell))),
        "probability",
        SEEDS,
        Column.words("seen", mark=" ", empty="nothing"),
    )
    title = f"predictions of {found.run.method}"
    made = [Table(title, columns, rows, tuple(notes), "predictions", limit=shown)]
    return [*made, *_failures(found)]


def sample_tables(found: Predictions, shown: int | None) -> list[Table]:
    """Tables of one sample: its classes with probabilities, and the answer without each modality.

    Args:
        found: predictions of one sample.
        shown: most probable classes to show; None: all.
    """
    task = found.run.task
    (answer,) = found.answers()
    title = f"prediction of {found.run.method}: {_words(answer)}"
    columns: tuple[Column | str, ...] = ("value", SEEDS)
    rows: tuple[tuple[Cell, ...], ...] = ()
    each = (found.outputs[0].tolist(), found.spread[0].tolist())
    if task.kind != "value":
        several = isinstance(answer, list)
        name = Column("label" if task.kind == "labels" else "class", ("class",))
        predicted = Column.flag("predicted" if several else "", "predicted")
        columns = (name, "probability", SEEDS, predicted)
        ranked = sorted(zip(task.names, *each, strict=True), key=lambda row: -row[1])
        chosen = answer if isinstance(answer, list) else [answer]
        rows = tuple((*row, row[0] in chosen) for row in ranked)
    elif answer is not None:
        rows = ((each[0][0], each[1][0]),)
    notes = (*_given(found), *found.notes, "± seeds: standard deviation over replicas")
    rows = rows if answer is not None else ()
    kind = "sample_value" if task.kind == "value" else "sample"
    made = [Table(title, columns, rows, notes, kind, limit=shown)]
    return [*made, *_without_each(found, answer), *_failures(found)]


def _without_each(found: Predictions, answer: Answer) -> list[Table]:
    """Table of the answer without each modality in turn; [] where only one was given."""
    if not found.without:
        return []
    task, rows = found.run.task, []
    followed = _followed(found, answer)
    heads: list[Column | str] = []
    if task.kind != "value":
        names = [f"p({task.names[place]})" for place in followed]
        fields = ["probability"] if len(names) == 1 else names
        heads = [Column(name, (own,)) for name, own in zip(names, fields, strict=True)]
    for name, outputs in found.without.items():
        changed: list[Cell] = [float(outputs[place]) for place in followed] if heads else []
        if len(followed) == 1:
            changed.append(float(outputs[followed[0]] - found.outputs[0][followed[0]]))
        rows.append((name, _cell(answer_of(task, outputs)), *changed))
    change = [Column.change("change")] if len(followed) == 1 else []
    columns = ("without", "prediction", *heads, *change)
    return [Table("without each modality in turn", columns, tuple(rows), name="without")]


def _followed(found: Predictions, answer: Answer) -> list[int]:
    """Outputs that are followed: the answer's, a few of many labels, or the most probable one."""
    task, outputs = found.run.task, found.outputs[0]
    if isinstance(answer, list) and answer:
        places = [task.names.index(name) for name in answer]
        return sorted(places, key=lambda place: -outputs[place])[:FOLLOWED]
    return [0 if task.kind == "value" else int(outputs.argmax())]


def _given(found: Predictions) -> list[str]:
    """Notes on the modalities that a sample has, and on those that it lacks."""
    there = {
        s.modality for s, seen in zip(found.run.streams, found.present[0], strict=True) if seen
    }
    has = [name for name in found.run.modalities if name in there]
    unread = {failure.modality for failure in found.failures} - there
    notes = [f"given: {', '.join(has) or 'nothing that can be read'}"]
    if found.lacking:
        notes.append(f"absent: {', '.join(found.lacking)}")
    if unread:
        notes.append(f"could not be read, counted as absent: {', '.join(sorted(unread))}")
    if len(has) == 1:
        notes.append(f"without {has[0]} nothing would be left, so no answer without it is shown")
    if found.unused:
        notes.append(f"told nothing in training, unused: {', '.join(found.unused)}")
    return notes


def _failures(found: Predictions) -> list[Table]:
    """Table of the cells that could not be read; [] where all could."""
    if not found.failures:
        return []
    title = "cells that could not be read, counted as absent"
    rows = tuple((one.id, one.modality, one.file or None, one.reason) for one in found.failures)
    heads = (Column("sample", ("id",)), "modality", "file", "reason")
    return [Table(title, heads, rows, name="failed_cells")]


def _words(answer: Answer) -> str:
    return "none" if answer is None else text(_cell(answer))


def _cell(answer: Answer) -> Cell:
    return (", ".join(answer) or "no label") if isinstance(answer, list) else answer


def _joined(answer: str | float | list[str]) -> str | float:
    return ", ".join(answer) if isinstance(answer, list) else answer


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

    table = found.to_polars()
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
