"""Table: rows of cells under columns, as text, as HTML and as JSON records; drawn elsewhere."""

import html
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


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
Cell = Any
"""What a column can write: a word, a number, a `Spread`, several of them in a tuple, or None."""


@dataclass(frozen=True)
class Column:
    """A column of a table: how its cells are written as text, and what they are in records.

    Attributes:
        heading: above the text; "" for a column that stands in records alone.
        fields: names in records; default: the heading in snake case.
        write: a cell as text; None is written as `empty`.
        split: a cell as one plain value for each field; in records None is null in all of them.
        empty: text of None.
    """

    heading: str
    fields: tuple[str, ...] = ()
    write: Callable[[Any], str] = lambda cell: text(cell)
    split: Callable[[Any], tuple[object, ...]] = lambda cell: (cell,)
    empty: str = "-"

    def __post_init__(self) -> None:
        """Name the field."""
        if not self.fields:
            word = re.sub(r"[^a-z0-9]+", "_", self.heading.lower()).strip("_")
            object.__setattr__(self, "fields", (word or "column",))

    @classmethod
    def hidden(cls, field: str) -> "Column":
        """Stands in records alone."""
        return cls("", (field,))

    @classmethod
    def spread(cls, heading: str, field: str = "") -> "Column":
        """A `Spread`: mean, standard deviation (null of a single value), and all values."""
        field = field or heading
        return cls(
            heading,
            (f"{field}_mean", f"{field}_std", f"{field}_values"),
            str,
            lambda cell: (cell.mean, cell.std if len(cell.values) > 1 else None, cell.values),
        )

    @classmethod
    def pair(cls, heading: str, first: str, second: str) -> "Column":
        """Two words, such as `synthetic × weight-free`."""
        return cls(heading, (first, second), " × ".join, tuple)

    @classmethod
    def change(cls, heading: str, empty: str = "-") -> "Column":
        """A difference: `+0.045`."""
        return cls(heading, write=lambda cell: decimal(cell, "+"), empty=empty)

    @classmethod
    def interval(cls, heading: str, field: str = "interval") -> "Column":
        """(low, high): `-0.123 … +0.045`."""
        fields = (f"{field}_low", f"{field}_high")
        return cls(heading, fields, lambda cell: interval(*cell), tuple)

    @classmethod
    def number(cls, heading: str, field: str, form: str) -> "Column":
        """A number in a format such as `.6f` or `,.0f`."""
        return cls(heading, (field,), lambda cell: format(cell, form))

    @classmethod
    def bytes(cls, heading: str, field: str = "bytes", empty: str = "-") -> "Column":
        """A number of bytes."""
        return cls(heading, (field,), bytes_text, empty=empty)

    @classmethod
    def milliseconds(cls, heading: str, field: str) -> "Column":
        """Seconds, written as milliseconds."""
        return cls(heading, (field,), lambda cell: f"{cell * 1e3:.2f}")

    @classmethod
    def time(cls, heading: str, field: str) -> "Column":
        """An ISO time, written to the minute."""
        return cls(heading, (field,), lambda cell: cell[:16].replace("T", " "))

    @classmethod
    def flag(cls, heading: str, field: str, yes: str = "yes", no: str = "no") -> "Column":
        """True or False as two words."""
        return cls(heading, (field,), lambda cell: yes if cell else no)

    @classmethod
    def words(cls, heading: str, field: str = "", mark: str = ", ", empty: str = "-") -> "Column":
        """Several words, joined by a mark."""
        return cls(
            heading,
            (field or heading,),
            lambda cell: mark.join(cell) if cell else empty,
            lambda cell: (cell,),
            empty,
        )

    @classmethod
    def reasons(cls, heading: str) -> "Column":
        """Counts by reason: `3 (2 truncated, 1 empty)`."""
        return cls(
            heading,
            (heading, f"{heading}_reasons"),
            counts_text,
            lambda cell: (
                sum(cell.values()),
                [{"reason": reason, "count": count} for reason, count in sorted(cell.items())],
            ),
        )

    def text(self, cell: Cell) -> str:
        """The cell as text."""
        return self.empty if _is_missing(cell) else self.write(cell)

    def values(self, cell: Cell) -> dict[str, object]:
        """The cell by field, of numbers, words, lists and None."""
        found = (None,) * len(self.fields) if cell is None else self.split(cell)
        return {name: _plain(value) for name, value in zip(self.fields, found, strict=True)}


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of cells under columns, as text and as records; the one class that knows both.

    Attributes:
        title: one line above it.
        columns: what its cells are; a word is a plain column with that heading.
        rows: one cell a column.
        notes: sentences below it.
        name: a fixed word for programs that read the records.
        across: headings of a column whose words become headings of the text, and of the column
            whose cells then stand below them; records have one row a cell all the same.
        limit: how many rows the text shows; records have all.
    """

    title: str
    columns: tuple[Column | str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    name: str = ""
    across: tuple[str, str] | None = None
    limit: int | None = None

    @cached_property
    def headings(self) -> list[str]:
        """What stands above the columns of the text."""
        return self._text[0]

    def texts(self) -> list[list[str]]:
        """The rows as text, one cell a heading."""
        return self._text[1][: self.limit]

    @property
    def sentences(self) -> list[str]:
        """The notes, after one on the rows that the text leaves out."""
        total, shown = len(self._text[1]), len(self.texts())
        return [*([f"{shown:,} of {total:,} shown"] if shown < total else []), *self.notes]

    def numeric(self) -> list[bool]:
        """Whether each column of the text has only numbers or empty cells, to be aligned right."""
        rows = self.texts()
        return [all(map(_NUMBER.fullmatch, column)) for column in zip(*rows, strict=True)] or [
            True
        ] * len(self.headings)

    @cached_property
    def fields(self) -> list[str]:
        """Names of the fields of every record."""
        return [name for column in self._columns for name in column.fields]

    def records(self) -> list[dict[str, object]]:
        """The rows as JSON values by field: numbers are numbers, and NaN is null."""
        return [
            {
                name: value
                for column, cell in zip(self._columns, row, strict=True)
                for name, value in column.values(cell).items()
            }
            for row in self.rows
        ]

    def document(self) -> dict[str, object]:
        """The whole table as JSON values."""
        notes = list(self.notes)
        return {"name": self.name, "title": self.title, "rows": self.records(), "notes": notes}

    def to_polars(self) -> "pl.DataFrame":
        """The rows as a data frame, with the same fields as `records`."""
        import polars as pl

        rows = self.records()
        if not rows:
            return pl.DataFrame({name: [] for name in self.fields})
        return pl.DataFrame(rows, infer_schema_length=None)

    def __repr__(self) -> str:
        size = f"{count_of(len(self.rows), 'row')}, {count_of(len(self.fields), 'field')}"
        return f"<Table {printable(self.name or self.title)}: {size}>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """Title, text and notes as HTML, words of the data escaped."""
        kinds = ["" if numeric else ' class="word"' for numeric in self.numeric()]
        heads = zip(kinds, self.headings, strict=True)
        head = "".join(f"<th{kind}>{html_text(word)}</th>" for kind, word in heads)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{kind}>{html_text(word)}</td>" for kind, word in zip(kinds, row, strict=True)
            )
            + "</tr>"
            for row in self.texts()
        )
        notes = "".join(f'<p class="note">{html_text(note)}</p>' for note in self.sentences)
        drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<h2>{html_text(self.title)}</h2><div class="wide">{drawn}</div>{notes}'

    @cached_property
    def _columns(self) -> list[Column]:
        return [Column(each) if isinstance(each, str) else each for each in self.columns]

    @cached_property
    def _text(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of the text, without those that stand in records alone."""
        places = [place for place, column in enumerate(self._columns) if column.heading]
        headings = [self._columns[place].heading for place in places]
        rows = [[self._columns[p].text(row[p]) for p in places] for row in self.rows]
        return (headings, rows) if self.across is None else _pivoted(headings, rows, *self.across)


def _pivoted(
    headings: list[str], rows: list[list[str]], words: str, cells: str
) -> tuple[list[str], list[list[str]]]:
    """One row for all rows that differ in two columns alone: `words` become headings of `cells`."""
    word, cell = headings.index(words), headings.index(cells)
    spread_out = list(dict.fromkeys(row[word] for row in rows))
    start = min(word, cell)
    found: dict[tuple[int, tuple[str, ...]], dict[str, str]] = {}
    for row in rows:
        rest = tuple(text for place, text in enumerate(row) if place not in (word, cell))
        number = 0  # of rows that read alike, such as two runs of one method
        while row[word] in found.get((number, rest), {}):
            number += 1
        found.setdefault((number, rest), {})[row[word]] = row[cell]
    kept = [name for name in headings if name not in (words, cells)]
    return (
        [*kept[:start], *spread_out, *kept[start:]],
        [
            [*rest[:start], *(inner.get(name, "-") for name in spread_out), *rest[start:]]
            for (_, rest), inner in found.items()
        ],
    )


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


def _is_missing(cell: Cell) -> bool:
    """None, NaN, or a tuple with NaN in it."""
    parts = cell if isinstance(cell, tuple) else (cell,)
    return cell is None or any(isinstance(part, float) and math.isnan(part) for part in parts)


def _plain(value: Any) -> object:  # noqa: ANN401
    """The value as JSON can hold it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case _:
            return value
