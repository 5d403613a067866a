"""Table: rows of cells under named columns, as text and as JSON; drawn elsewhere."""

import html
import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """One value a replica, shown as mean ± sample standard deviation.

    Attributes:
        values: one value a replica; NaN where it is undefined.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over replicas; NaN when there is none or one of them is NaN."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation (R - 1); 0 for a single replica."""
        if len(self.values) < 2:
            return 0.0
        mean = self.mean
        squares = math.fsum((value - mean) ** 2 for value in self.values)
        return math.sqrt(squares / (len(self.values) - 1))

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        if len(self.values) == 1 or (self.std == 0 and len(set(self.values)) == 1):
            return decimal(self.mean)
        return f"{decimal(self.mean)} ± {decimal(self.std)}"


_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)  # control characters, line separators, changes of direction, halves of surrogate pairs
_SCIENTIFIC = 1e6  # from here on numbers are written with a power of ten
_PLAIN = r"[\d.,]+(e\+\d+)?"
_NUMBER = re.compile(rf"-|[<+-]?{_PLAIN}( ± {_PLAIN})?( %)?( … [+-]?{_PLAIN})?")
Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns, independent of where it is drawn.

    Attributes:
        title: one line above it.
        columns: their names, also the keys of `records`.
        rows: one cell a column; None is shown as "-".
        notes: sentences below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def texts(self) -> list[list[str]]:
        """Every cell as text."""
        return [[text(cell) for cell in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Whether each column has only numbers or empty cells, to be aligned right."""
        texts = self.texts()
        return [
            all(_NUMBER.fullmatch(row[place]) for row in texts)
            for place in range(len(self.columns))
        ]

    def records(self) -> dict[str, object]:
        """The table as JSON: a spread has all its values, NaN becomes null."""
        rows = [
            {name: _plain(cell) for name, cell in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def text(cell: Cell) -> str:
    """A cell as text: 12,345 for counts, 0.123 for numbers, "-" for None."""
    match cell:
        case None:
            return "-"
        case bool() | str() | Spread():
            return str(cell)
        case int():
            return f"{cell:,}"
        case _ if math.isnan(cell):
            return "-"
        case _:
            small = 0 < abs(cell) < 0.0005
            return "<0.0001" if 0 < cell < 0.00005 else f"{cell:.4f}" if small else decimal(cell)


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with control characters written out (`\x1b`), so that no terminal obeys them.

    Args:
        text: with words of the data in it: labels, ids, file names.
        lines: whether line ends stay.
    """
    return _CONTROL.sub(
        lambda found: (
            found[0] if lines and found[0] == "\n" else found[0].encode("unicode_escape").decode()
        ),
        text,
    )


def html_text(text: str) -> str:
    """The text escaped for HTML, control characters written out."""
    return html.escape(printable(text))


def printable_json(document: str) -> str:
    r"""A JSON document with the control characters that JSON allows written as `\u009b`."""
    return _CONTROL.sub(
        lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", document
    )


def decimal(value: float, sign: str = "") -> str:
    """Format with three decimals, or from a million on in scientific notation: `1.235e+06`."""
    return f"{value:{sign}.3f}" if abs(value) < _SCIENTIFIC else f"{value:{sign}.4g}"


def interval(low: float, high: float) -> str:
    """Format an interval: `-0.123 … +0.045`."""
    return f"{decimal(low, '+')} … {decimal(high, '+')}"


def counts_text(reasons: dict[str, int]) -> str:
    """Format counts by reason, most frequent first: `3 (2 truncated, 1 empty)`, or `0`."""
    total = sum(reasons.values())
    if not total:
        return "0"
    parts = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return f"{total:,} ({', '.join(f'{count:,} {reason}' for reason, count in parts)})"


def count_of(count: int, noun: str) -> str:
    """Format a count with its noun: `1 run`, `2 runs`, `1,797 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bytes_text(size: float) -> str:
    """Format bytes in powers of ten: `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _plain(cell: Cell) -> object:
    match cell:
        case Spread():
            values = [_number(value) for value in cell.values]
            return {"mean": _number(cell.mean), "std": _number(cell.std), "values": values}
        case float():
            return _number(cell)
        case _:
            return cell


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
