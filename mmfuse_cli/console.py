"""Terminal output: tables, progress, notes and errors; the only file that imports rich.

What is printed may hold words of the data; control characters in them are written out.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import typer

import mmfuse

Item = TypeVar("Item")
_EVERY = 10.0  # seconds between progress lines where there is no terminal to redraw


def error(message: str) -> None:
    """Print an error on stderr; its own line ends stay."""
    typer.echo(mmfuse.printable(message, lines=True), err=True)


def note(sentence: str) -> None:
    """Print one line on stderr."""
    sentence = mmfuse.printable(sentence)
    typer.echo(typer.style(sentence, dim=True) if sys.stderr.isatty() else sentence, err=True)


def show(tables: "Sequence[mmfuse.Table]", *, as_json: bool, ends: Sequence[str] = ()) -> None:
    """Print tables (or JSON) on stdout, then the closing lines on stderr."""
    if as_json:
        document = {"tables": [table.records() for table in tables], "notes": list(ends)}
        text = json.dumps(document, ensure_ascii=False, indent=1)
        typer.echo(mmfuse.printable_json(text))
        return
    for number, table in enumerate(tables):
        if number:
            typer.echo("")
        _draw(table)
    sys.stdout.flush()
    for sentence in ends:
        note(sentence)


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items with progress on stderr: a bar, or a line every 10 s without a terminal."""
    label = mmfuse.printable(label)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield from progress.track(items, total=total, description=label)
        return
    printed = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - printed > _EVERY:
            printed = time.monotonic()
            note(f"{label}: {done:,} of {total:,}" if total else f"{label}: {done:,}")


def epochs(label: str) -> "Callable[[mmfuse.Epoch], None]":
    """Callback that shows each epoch: one line redrawn, or one every 10 s without a terminal."""
    label, printed = mmfuse.printable(label), time.monotonic()

    def show_epoch(epoch: "mmfuse.Epoch") -> None:
        nonlocal printed
        done = epoch.number == epoch.of or not any(epoch.active)
        values = [value for value in epoch.scores if value == value]  # noqa: PLR0124 - not NaN
        score = f", validation {sum(values) / len(values):.3f}" if values else ""
        line = f"{label}: {epoch.stage} {epoch.number}/{epoch.of}{score}"
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K" if done else f"\r\x1b[K{line[: _width() - 1]}")
            sys.stderr.flush()
        elif time.monotonic() - printed > _EVERY:
            printed = time.monotonic()
            note(line)

    return show_epoch


def _draw(table: "mmfuse.Table") -> None:
    columns = [mmfuse.printable(name) for name in table.columns]
    texts = [[mmfuse.printable(cell) for cell in row] for row in table.texts()]
    shown = [*([columns] if columns else []), *texts]
    widths = [max(len(row[k]) for row in shown) for k in range(len(table.columns))]
    wide = sum(widths) + 2 * (len(widths) - 1)
    room = _room()
    if table.title:
        _line(mmfuse.printable(table.title), bold=True)
    if room is not None and wide > room:
        _stack(columns, texts)
    else:
        right = table.numeric()
        _line(_aligned(columns, widths, right), bold=True)
        for row in texts:
            _line(_aligned(row, widths, right))
    for sentence in table.notes:
        typer.echo(mmfuse.printable(sentence))


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()


def _stack(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table too wide for the terminal as one block of lines a row."""
    indent = max(map(len, columns[1:]), default=0)
    for row in rows:
        _line(row[0], bold=True)
        for name, cell in zip(columns[1:], row[1:], strict=True):
            typer.echo(f"  {name.ljust(indent)}  {cell}")


def _room() -> int | None:
    """Width of a line in characters; None without a limit (a pipe, a file)."""
    if sys.stdout.isatty():
        return _width()
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() else None


def _width() -> int:
    """Width of the terminal in characters."""
    from rich.console import Console

    return Console().width


def _line(text: str, *, bold: bool = False) -> None:
    typer.echo(typer.style(text, bold=True) if bold and sys.stdout.isatty() else text)
