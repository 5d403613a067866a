"""Terminal output: tables, progress, notes and errors; the only file that imports rich.

What is printed may hold words of the data; control characters in them are written out.
"""

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import typer

import mmfuse

Item = TypeVar("Item")
_EVERY = 10.0  # seconds between progress lines where there is no terminal to redraw
_DELAY = 2.0  # seconds after which a step has a bar
_WINDOW = 30.0  # seconds that a rate looks back
_WIDE, _NARROW, _LABEL = 40, 6, 12  # widths: of a bar, at most and at least; of a label, at least


def error(message: str) -> None:
    """Print an error on stderr, in place of any bars; its own line ends stay."""
    clear()
    typer.echo(mmfuse.printable(message, lines=True), err=True)


def note(sentence: str) -> None:
    """Print one line on stderr, above any bars."""
    sentence = mmfuse.printable(sentence)
    if _BARS.say(sentence):
        return
    typer.echo(typer.style(sentence, dim=True) if sys.stderr.isatty() else sentence, err=True)


def show(tables: "Sequence[mmfuse.Table]", *, as_json: bool, ends: Sequence[str] = ()) -> None:
    """Print tables (or JSON) on stdout, in place of any bars; then the closing lines on stderr."""
    clear()
    if as_json:
        document = {"tables": [table.document() for table in tables], "notes": list(ends)}
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
    if _is_drawn():
        with _BARS.bar(mmfuse.printable(label), total) as bar:
            for item in items:
                yield item
                bar.done += 1
        return
    printed = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - printed > _EVERY:
            printed = time.monotonic()
            note(f"{label}: {done:,} of {total:,}" if total else f"{label}: {done:,}")


@contextmanager
def epochs(label: str) -> "Iterator[Callable[[mmfuse.Epoch], None]]":
    """While it lasts, a bar that counts epochs; gives the callback that takes each of them.

    Without a terminal it is a line every 10 s. The time left is an upper bound: training may stop
    early.
    """
    if _is_drawn():
        with _BARS.bar(mmfuse.printable(label)) as bar:
            yield partial(_count_epoch, bar, bar.label)
        return
    printed = time.monotonic()

    def say(epoch: "mmfuse.Epoch") -> None:
        nonlocal printed
        if time.monotonic() - printed > _EVERY:
            printed = time.monotonic()
            score = f", validation {value}" if (value := _validation(epoch)) else ""
            note(f"{label}: {epoch.stage} {epoch.number}/{epoch.of}{score}")

    yield say


@contextmanager
def counted(label: str, sentence: str) -> Iterator[Callable[[int, int], None]]:
    """While it lasts, a bar moved by the callback it gives, called with `done` and `total`.

    Args:
        label: of the bar.
        sentence: a line for each call without a terminal, with {done} and {total}.
    """
    if not _is_drawn():
        yield lambda done, total: note(sentence.format(done=done, total=total))
        return
    with _BARS.bar(mmfuse.printable(label)) as bar:

        def move(done: int, total: int) -> None:
            if bar.total is None:
                bar.start(done, total)
            bar.done = done

        yield move


@contextmanager
def step(label: str) -> Iterator[None]:
    """While it lasts, a bar of what cannot be counted; nothing without a terminal."""
    with _BARS.bar(mmfuse.printable(label)) if _is_drawn() else nullcontext():
        yield


def clear() -> None:
    """End all bars: the line of the terminal is empty, without a `^C`, and its cursor is back."""
    _BARS.clear()
    if _is_drawn():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _count_epoch(bar: "_Bar", label: str, epoch: "mmfuse.Epoch") -> None:
    if epoch.number == epoch.of or not any(epoch.active):  # the last one of its stage
        bar.stop(label)
        return
    if bar.total is None:
        bar.start(epoch.number, epoch.of)
        bar.label = label if epoch.stage == "fit" else f"{label}: {epoch.stage}"
        bar.unit, bar.at_most = " epochs", "at most "
    bar.done, bar.aside = epoch.number, f"val {value}" if (value := _validation(epoch)) else ""


def _validation(epoch: "mmfuse.Epoch") -> str:
    """Mean validation score of the replicas that still train; "" where there is none."""
    values = [value for value in epoch.scores if value == value]  # noqa: PLR0124 - not NaN
    return f"{sum(values) / len(values):.3f}" if values else ""


def _is_drawn() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


class _Bar:
    """One line of progress.

    Attributes:
        label: what is done.
        total: number of items; None while it is unknown.
        done: items so far.
        unit: behind the counts.
        aside: shown beside the rate.
        at_most: before the time left, where that is an upper bound.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done = label, total, 0
        self.unit = self.aside = self.at_most = ""
        self.began = time.monotonic()
        self._seen: deque[tuple[float, int]] = deque(
            [(self.began, 0)]
        )  # (when, done), the last 30 s

    def start(self, done: int, total: int) -> None:
        """Count from here on; the rate is that of the items after `done`."""
        self.done, self.total = done, total
        self._seen = deque([(time.monotonic(), done)])

    def stop(self, label: str) -> None:
        """Count no more; what comes next cannot be counted."""
        self.label, self.total, self.done = label, None, 0
        self.unit = self.aside = self.at_most = ""
        self._seen = deque([(time.monotonic(), 0)])

    def parts(self) -> tuple[str, str, str, str]:
        """Counts, rate, what is aside, and the time left or, without a total, spent; or ""."""
        now, done, total = time.monotonic(), self.done, self.total
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (done - before) / max(now - since, 1e-9)
        if not total:
            return f"{done:,}" if done else "", "", "", _clock(now - self.began)
        whole = f"{total:,}"
        counts = f"{done:>{len(whole)},}/{whole}{self.unit}"
        if done == before:
            return counts, "", self.aside, ""
        left = _clock(max(0, total - done) / rate)
        return counts, _rate(rate), self.aside, f"{self.at_most}{left} left"


class _Bars:
    """All bars of this process, one below the other, drawn by one display on stderr.

    A bar is drawn once it has lasted `_DELAY` seconds, so that short steps never flicker.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: list[_Bar] = []
        self._live: Any = None

    @contextmanager
    def bar(self, label: str, total: int | None = None) -> Iterator[_Bar]:
        """A bar, below those that there are."""
        bar = _Bar(label, total)
        timer = threading.Timer(_DELAY, self._show, [bar])
        timer.daemon = True
        with self._lock:
            self._bars.append(bar)
        timer.start()
        try:
            yield bar
        finally:
            timer.cancel()
            self._remove(bar)

    def say(self, sentence: str) -> bool:
        """Print a line above the bars; whether there are any."""
        with self._lock:
            if self._live is not None:
                self._live.console.print(
                    sentence, style="dim", markup=False, highlight=False, soft_wrap=True
                )
            return self._live is not None

    def clear(self) -> None:
        """Remove all bars."""
        with self._lock:
            self._bars.clear()
            self._stop()

    def _show(self, bar: _Bar) -> None:
        from rich.console import Console
        from rich.live import Live

        with self._lock:
            if bar in self._bars and self._live is None:
                self._live = Live(
                    console=Console(stderr=True),
                    get_renderable=self._render,
                    refresh_per_second=4,
                    transient=True,
                    redirect_stdout=False,  # it may be a pipe
                )
                self._live.start(refresh=True)

    def _remove(self, bar: _Bar) -> None:
        with self._lock:
            self._bars = [other for other in self._bars if other is not bar]
            if not any(map(self._is_old, self._bars)):
                self._stop()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _is_old(self, bar: _Bar) -> bool:
        return time.monotonic() - bar.began >= _DELAY

    def _render(self) -> Any:  # noqa: ANN401 - of rich
        from rich.text import Text

        bars = [bar for bar in self._bars if self._is_old(bar)]
        inner = [bar for bar in bars if bar.total != 1 or bar is bars[-1]]
        lines = _lines(inner, self._live.console) if self._live is not None else []
        return Text("\n".join(lines), no_wrap=True, overflow="crop", end="")


def _lines(bars: Sequence[_Bar], console: Any) -> list[str]:  # noqa: ANN401 - of rich
    """Bars as lines that fit the terminal, their columns below each other.

    On a narrow one the drawn bar goes first, then numbers, and the label is cut. A `^C` that the
    terminal writes behind a line fits too.
    """
    from rich.cells import cell_len, set_cell_size

    room = console.width - 4
    tails = _tails([bar.parts() for bar in bars], room - _LABEL - 2)
    tail = max(map(len, tails), default=0)
    names = [
        bar.label.replace("\u200d", "").replace("\ufe0f", "") for bar in bars
    ]  # no joined emoji
    label = min(max(map(cell_len, names), default=0), max(_LABEL, room - tail - _NARROW - 4))
    width = min(_WIDE, room - tail - label - 4)
    plain = "utf" not in (console.encoding or "").lower()
    lines = []
    for bar, name, end in zip(bars, names, tails, strict=True):
        if cell_len(name) > label:
            name = set_cell_size(name, label - 1).rstrip() + ("." if plain else "…")
        drawn = _drawn(bar, width, plain=plain) if width >= _NARROW else ""
        lines.append("  ".join(filter(None, (set_cell_size(name, label), drawn, end))))
    return [set_cell_size(line, max(0, room)).rstrip() for line in lines]


def _tails(parts: Sequence[tuple[str, str, str, str]], room: int) -> list[str]:
    """What stands behind the bars: as much as has room, else without what is aside, and so on."""
    found: list[str] = []
    for kept in ((0, 1, 2, 3), (0, 1, 3), (0, 3), (0,)):
        found = ["  ".join(each[k] for k in kept if each[k]) for each in parts]
        if max(map(len, found), default=0) <= room:
            break
    return found


def _drawn(bar: _Bar, width: int, *, plain: bool) -> str:
    full, rest = ("#", "-") if plain else ("━", "─")
    if bar.total:
        done = min(width, width * bar.done // bar.total)
        return full * done + rest * (width - done)
    at = int(4 * (time.monotonic() - bar.began)) % (width - 2)  # something moves
    return rest * at + full * 3 + rest * (width - 3 - at)


def _rate(rate: float) -> str:
    """Items a second, or a minute where they are slow."""
    if rate < 0.1:
        return f"{60 * rate:.1f}/min"
    return f"{rate:.1f}/s" if rate < 100 else f"{rate:,.0f}/s"


def _clock(seconds: float) -> str:
    """Format a duration: `0:05`, `12:34`, `1:02:03`, `3 days`."""
    whole = round(seconds)
    if whole >= 48 * 3600:
        return f"{whole / 86400:.0f} days"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


_BARS = _Bars()


def _draw(table: "mmfuse.Table") -> None:
    columns = [mmfuse.printable(name) for name in table.headings]
    texts = [[mmfuse.printable(cell) for cell in row] for row in table.texts()]
    shown = [*([columns] if columns else []), *texts]
    widths = [max(_columns_of(row[k]) for row in shown) for k in range(len(columns))]
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
    for sentence in table.sentences:
        typer.echo(mmfuse.printable(sentence))


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, to_right in zip(cells, widths, right, strict=True):
        blanks = " " * (width - _columns_of(cell))
        padded.append(blanks + cell if to_right else cell + blanks)
    return "  ".join(padded).rstrip()


def _columns_of(text: str) -> int:
    """Columns that a text takes on a terminal: Chinese letters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _stack(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table too wide for the terminal as one block of lines a row."""
    indent = max(map(_columns_of, columns[1:]), default=0)
    for row in rows:
        _line(row[0], bold=True)
        for name, cell in zip(columns[1:], row[1:], strict=True):
            typer.echo(f"  {name}{' ' * (indent - _columns_of(name))}  {cell}")


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
