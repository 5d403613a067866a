"""Table: rows of cells under named columns, for people and for machines; drawn elsewhere."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """One number a replica; written as mean ± sample standard deviation.

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


_MANY = 1e6  # from here on digits say no more than their number
_PLAIN = r"[\d.,]+(e\+\d+)?"
_NUMBER = re.compile(rf"-|[<+-]?{_PLAIN}( ± {_PLAIN})?( %)?( … [+-]?{_PLAIN})?")
Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; knows nothing of where it is drawn.

    Attributes:
        title: one line above it.
        columns: their names, also the keys of `records`.
        rows: one cell a column; None is drawn as "-".
        notes: sentences below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def texts(self) -> list[list[str]]:
        """Every cell as it is read by people."""
        return [[text(cell) for cell in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Of each column, whether every cell reads as a number or as nothing: aligned right."""
        texts = self.texts()
        return [
            all(_NUMBER.fullmatch(row[place]) for row in texts)
            for place in range(len(self.columns))
        ]

    def records(self) -> dict[str, object]:
        """The same as JSON: a spread keeps all its values, NaN becomes null."""
        rows = [
            {name: _plain(cell) for name, cell in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def text(cell: Cell) -> str:
    """A cell as people read it: 12,345 for counts, 0.123 for numbers, "-" for nothing."""
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


def decimal(value: float, sign: str = "") -> str:
    """Three decimals, or four digits and a power of ten from a million on: `1.235e+06`."""
    return f"{value:{sign}.3f}" if abs(value) < _MANY else f"{value:{sign}.4g}"


def interval(low: float, high: float) -> str:
    """`-0.123 … +0.045`."""
    return f"{decimal(low, '+')} … {decimal(high, '+')}"


def counts_text(reasons: dict[str, int]) -> str:
    """`3 (2 truncated, 1 empty)`, most frequent first; `0` when there is nothing."""
    total = sum(reasons.values())
    if not total:
        return "0"
    parts = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return f"{total:,} ({', '.join(f'{count:,} {reason}' for reason, count in parts)})"


def count_of(count: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,797 rows`: a count and what is counted."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bytes_text(size: float) -> str:
    """Bytes as people read them, in powers of ten: `1.4 MB`."""
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
