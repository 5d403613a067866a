"""Types of a table's columns: numbers, dates or categories, and how their cells are written.

`infer` judges a whole column once, when features are extracted; `read_column` reads any cells by a
type, so that a cell means the same in every table. A cell that does not fit is missing, and
`ColumnReading` says which.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipelines.data.values import dates
from pipelines.data.values.category_words import are_decimals, canonical_words
from pipelines.data.values.mixed_cells import datetimes_of, is_mixed, numbers_of, words_of

MISSING_WORDS = (
    "na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "-", "--", "–", "—", "?", "??", ".",
    "missing", "unknown", "k.a.", "#value!", "#div/0!",
)  # fmt: skip
"""Words (in small letters) that say "no value" in a column of numbers or dates."""
_FEW = 20  # as many different numbers beside other words may still be a column of categories
_MOSTLY = 0.9  # share of the cells from which a column is numbers whatever its other words are
_CLEAR = 0.05  # share of the marked cells that must show which mark is the decimal one
_SIGNS = ("R$", "US$", "A$", "C$", "HK$", "NZ$", *"%‰$€£¥₹₩₽₺₴₪₫฿₦")
_UNITS = "".join(dict.fromkeys("".join(_SIGNS)))
_CODES = (
    "USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "AUD", "CAD", "NZD", "HKD", "SGD", "SEK",
    "NOK", "DKK", "PLN", "CZK", "HUF", "RON", "TRY", "RUB", "KRW", "BRL", "MXN", "ZAR", "THB",
    "zł", "kr", "Kč", "Ft", "lei",
)  # fmt: skip
_WHAT = {pl.Float64: "number", pl.String: "word", pl.List: "row of numbers"}
_IP = r"^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$"
_SHAPES = 200  # ways of writing a number, digits aside, among which units are looked for
_DECIDED = 64  # columns by which a decimal mark leads when no further ones are looked at
_TRUTHS = ("true", "false")
_SPACES = " \u00a0\u202f\u2009"  # blank, no-break blanks and the thin blank group digits too
_GROUPINGS = {",": ",", ".": ".", " ": f"[{_SPACES}]", "'": "['’]"}
_PAIRS = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"))


@dataclass(frozen=True)
class ColumnType:
    """What the cells of a column are and how they are written.

    Attributes:
        kind: number, date or category; or series, numbers in a row.
        decimal: the mark before the fraction of a number, `.` or `,`.
        grouping: the mark between thousands, or "".
        unit: what stands before or after every number: `%`, a currency sign or code, or "".
        date: name of the date format, such as `dd.mm.yyyy`; "" for other kinds.
        by_value: of categories, whether all are decimals, so that `1` and `1.0` are one.
        logical: of categories, whether some are yes or no, so that `TRUE` and `true` are one.
    """

    kind: Literal["number", "date", "category", "series"]
    decimal: str = "."
    grouping: str = ""
    unit: str = ""
    date: str = ""
    by_value: bool = False
    logical: bool = False

    def record(self) -> dict[str, str | bool]:
        """As JSON, without what is at its default."""
        plain = ColumnType(self.kind)
        changed = {k: v for k, v in vars(self).items() if v != getattr(plain, k)}
        return {"kind": self.kind, **changed}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "ColumnType":
        """Inverse of `record`."""
        return cls(**record)

    def __str__(self) -> str:
        if self.kind == "number":
            marks = [f"decimal {self.decimal!r}"] if self.decimal != "." else []
            marks += [f"thousands {self.grouping!r}"] if self.grouping else []
            marks += [f"in {self.unit}"] if self.unit else []
            return "numbers" + (f" ({', '.join(marks)})" if marks else "")
        if self.kind == "series":
            return "numbers in a row" + (" (decimal ',')" if self.decimal == "," else "")
        return f"dates ({self.date})" if self.kind == "date" else "categories"


@dataclass(frozen=True)
class ColumnReading:
    """Cells as a type reads them.

    Attributes:
        values: (N,) Float64, Date, Datetime in UTC, or String; null where missing.
        unfit: (N,) bool, cells that hold something which is no value of the type.
        fractions: (N,) bool, percentages that are stored as numbers, 0.12 for 12 %.
    """

    values: pl.Series
    unfit: pl.Series
    fractions: pl.Series | None = None

    def describe_unfit(self, cells: pl.Series, ids: pl.Series | None = None) -> str:
        """`3 of 300 cells are no number and count as missing, such as 'NA' in row s7`; "" if none.

        Args:
            cells: (N,) as they were before they were read.
            ids: (N,) names of the rows; else they are numbered from 0.
        """
        said = []
        if count := int(self.unfit.sum()):
            what = _WHAT.get(type(self.values.dtype), "date")
            verb, counted = ("is", "counts") if count == 1 else ("are", "count")
            said.append(
                f"{count} of {len(cells)} cells {verb} no {what} and {counted} as missing, "
                f"such as {_example(self.unfit, cells, ids)}"
            )
        if self.fractions is not None and (count := int(self.fractions.sum())):
            verb = "is a stored number" if count == 1 else "are stored numbers"
            said.append(
                f"{count} of {len(cells)} cells {verb}, such as "
                f"{_example(self.fractions, cells, ids)}; up to 1 they are fractions, 0.12 is 12 %"
            )
        return "; ".join(said)


def infer(column: pl.Series, *, decimal: str | None = None) -> ColumnType:
    """The type of a column, by all its cells; one odd cell does not change it.

    A column most of whose cells are numbers (or dates), written one way, is numbers (or dates).
    Beside words that mean "no value", a column of few different numbers and other words is
    categories: `1, 2, 3, A`.

    Args:
        column: words as a file has them, or values that are typed already; both may be mixed.
        decimal: the decimal mark of the file where that is known; it settles `1,234`.
    """
    if column.dtype.is_numeric():
        return ColumnType("number")
    if column.dtype in (pl.Date, pl.Datetime):
        return ColumnType("date", date="iso date")
    mixed = is_mixed(column)
    if column.dtype != pl.String and not mixed:
        return _category(column)
    if not mixed and _plain_numbers(column, decimal or ".") is not None:
        return ColumnType("number", decimal or ".")
    text = _stripped(_unstored_words(column) if mixed else column)
    counts = text.drop_nulls().value_counts(sort=True)
    words, times = counts[column.name], counts["count"]
    is_word = ~words.str.to_lowercase().is_in(MISSING_WORDS)
    words, times = words.filter(is_word), times.filter(is_word)
    none = pl.Series(dtype=pl.Float64)
    numbers = numbers_of(column).drop_nulls() if mixed else none
    datetimes = datetimes_of(column).drop_nulls() if mixed else none
    found = None
    if len(words) and 2 * times.filter(words.str.contains(_IP)).sum() > times.sum():
        return _category(column)  # `192.168.178.100` is no number with points between thousands
    if len(words) or len(numbers) or len(datetimes):
        total = int(times.sum()) + len(numbers) + len(datetimes)
        found = _best_number(words, times, decimal, numbers, total)
        found = found or _best_date(words, times, len(datetimes), total)
    return found or _category(column)


def _plain_numbers(column: pl.Series, mark: str = ".") -> pl.Series | None:
    """(N,) Float64 where every cell is a plain number or null: most columns, in one step."""
    if mark == ",":
        if column.str.contains(".", literal=True).any():
            return None
        column = column.str.replace(",", ".", literal=True)
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() != column.null_count() or numbers.null_count() == len(numbers):
        return None
    odd = not numbers.is_finite().all() or column.str.contains("_", literal=True).any()
    return None if odd else numbers


def _category(column: pl.Series) -> ColumnType:
    words = canonical_words(column, by_value=False)
    logical = bool(words.str.to_lowercase().is_in(_TRUTHS).any())
    return ColumnType("category", by_value=are_decimals(words), logical=logical)


def read_column(column: pl.Series, kind: ColumnType) -> ColumnReading:
    """Cells of any table as values of a type that was inferred before, each by itself.

    Args:
        column: words, or values that are typed already; both may be mixed.
        kind: the type.
    """
    if kind.kind == "category":
        words = canonical_words(column, by_value=kind.by_value)
        if kind.logical:
            lowered = words.str.to_lowercase()
            truth = lowered.is_in(_TRUTHS)
            words = pl.select(pl.when(truth).then(lowered).otherwise(words)).to_series()
        words = words.alias(column.name)
        return ColumnReading(words, pl.Series(column.name, [False]).new_from_index(0, len(column)))
    text, mixed = column.dtype == pl.String, is_mixed(column)
    plain = None
    if text and kind == ColumnType("number", kind.decimal):
        plain = _plain_numbers(column, kind.decimal)
    if plain is not None:
        return ColumnReading(plain, pl.Series([False]).new_from_index(0, len(column)))
    there = (_stripped(words_of(column)) if text or mixed else column).is_not_null()
    if mixed:
        cells = _stripped(_unstored_words(column))
    elif text:
        cells = _stripped(column)
    if kind.kind == "number":
        values = _numbers(cells, kind, lenient=True) if text or mixed else _typed_numbers(column)
        if mixed:
            values = _finite(numbers_of(column)).fill_null(values)
        if kind.unit == "%" and not text:
            return _of_fractions(column, values, there)
    else:
        values = dates.datetimes(cells, kind.date) if text or mixed else dates.typed_dates(column)
        if mixed:
            values = dates.one_type([datetimes_of(column), values])
    return ColumnReading(values.alias(column.name), (there & values.is_null()).alias(column.name))


def _of_fractions(column: pl.Series, values: pl.Series, there: pl.Series) -> ColumnReading:
    """Percentages some of which are stored as numbers, as Excel stores `12 %` as 0.12.

    A stored number up to 1 is a fraction, a larger one is taken as it is; both are reported.
    """
    stored = numbers_of(column).is_not_null() if is_mixed(column) else values.is_not_null()
    stored = stored & values.is_not_null()
    scaled = values.set(stored & (values.abs() <= 1), None).fill_null((values * 100).round(10))
    unfit = (there & scaled.is_null()).alias(column.name)
    return ColumnReading(scaled.alias(column.name), unfit, stored)


def _example(chosen: pl.Series, cells: pl.Series, ids: pl.Series | None) -> str:
    first = int(chosen.arg_max() or 0)
    return f"{_shown(cells, first)!r} in row {first if ids is None else ids[first]}"


def _unstored_words(column: pl.Series) -> pl.Series:
    """(N,) the words of a mixed column; null for cells that were stored as numbers or dates."""
    stored = numbers_of(column).is_not_null() | datetimes_of(column).is_not_null()
    return words_of(column).set(stored, None)


def _shown(cells: pl.Series, row: int) -> str:
    """A cell as messages show it."""
    if cells.dtype.is_nested() and not is_mixed(cells):
        return str(cells[row])[:40]
    return str(words_of(cells.slice(row, 1))[0])[:40]


def decimal_mark(columns: Iterable[pl.Series], separator: str = ",") -> str | None:
    """The decimal mark of a file, where its columns of numbers or its separator settle it.

    `1,5` and `1.234,5` can only have a decimal comma, `1.5` and `1,234.5` only a decimal point;
    `1,234` may be either. Columns that show a mark are counted; where as many show a comma as a
    point, or none shows any, a file of cells separated by `;` has commas, and any other is unknown.
    """
    votes: Counter[str] = Counter()
    for column in columns:
        if column.dtype != pl.String:
            continue
        cells = _stripped(column).drop_nulls()
        if cells.cast(pl.Float64, strict=False).null_count():
            looks = cells.str.contains(r"^[^\d]{0,5}\d[\d.,'’\s]*[^\d]{0,5}$")
            words = cells.str.to_lowercase().is_in(MISSING_WORDS)
            if 2 * looks.sum() <= len(cells) - int(words.sum()):
                continue
        mark = _mark_of(cells, pl.Series([1]).new_from_index(0, len(cells)))
        votes.update([mark] if mark else [])
        if abs(votes[","] - votes["."]) >= _DECIDED:
            break
    if votes[","] != votes["."]:
        return max(votes, key=votes.__getitem__)
    return "," if separator == ";" else None


def _mark_of(words: pl.Series, times: pl.Series) -> str | None:
    """The decimal mark that the cells of a column show; one odd cell among many shows nothing."""
    cells = words.str.strip_chars(_UNITS + _SPACES + "+-()")
    seen = {}
    for mark, other in ((",", "."), (".", ",")):
        marked = cells.str.contains(mark, literal=True)
        shows = int(times.filter(_is_decisive(cells, mark, other)).sum()) if marked.any() else 0
        enough = shows >= _CLEAR * int(times.filter(marked).sum())
        seen[mark] = shows if enough else 0
    if seen[","] == seen["."]:
        return None
    return max(seen, key=seen.__getitem__)


def _is_decisive(cells: pl.Series, mark: str, other: str) -> pl.Series:
    """(N,) bool, cells that can only be a number with this decimal mark."""
    m, o = re.escape(mark), re.escape(other)
    shape = rf"^(0\d*|\d{{4,}}){m}\d+$|^\d+{m}(\d{{1,2}}|\d{{4,}})$|^\d{{1,3}}({o}\d{{3}})+{m}\d+$"
    return cells.str.contains(shape)


def _stripped(column: pl.Series) -> pl.Series:
    stripped = column.str.strip_chars()
    return stripped.set(stripped == "", None)


def _best_number(
    words: pl.Series, times: pl.Series, decimal: str | None, stored: pl.Series, total: int
) -> ColumnType | None:
    """The way of writing numbers that reads most cells, if it reads enough of them.

    Args:
        words: distinct cells that are words.
        times: how often each occurs.
        decimal: the decimal mark of the file.
        stored: cells that were stored as numbers.
        total: cells that are not missing.
    """
    found, read = ColumnType("number"), 0
    if decimal != ",":  # as most columns are written
        read = _read_count(words, times, found)
    if read < int(times.sum()):
        mark = _mark_of(words, times) or decimal or "."
        ways = [
            ColumnType("number", point, grouping, unit)
            for unit in (*_units_of(words), "")
            for point, grouping in _PAIRS
        ]
        # The other mark, where the column or the file shows one, must read many more cells.
        for own in (True, False):
            for way in ways:
                if (way.decimal == mark) is own and read < int(times.sum()):
                    count = _read_count(words, times, way)
                    if count > read and (own or _MOSTLY * count > read):
                        found, read = way, count
    read += len(stored)
    if read == 0:
        return None
    distinct = pl.concat([_numbers(words, found), stored]).n_unique()
    enough = read >= _MOSTLY * total or (read > 0.5 * total and distinct > _FEW)
    return found if enough else None


def _read_count(words: pl.Series, times: pl.Series, kind: ColumnType) -> int:
    return int(times.filter(_numbers(words, kind).is_not_null()).sum())


def _units_of(words: pl.Series) -> list[str]:
    """Signs and codes that stand before or after the digits of at least half of the cells."""
    some = words.filter(words.str.contains(r"\d"))
    if not len(some) or not some.str.contains(r"[^\d\s.,'’+()−-]").any():
        return []
    shapes = some.str.replace_all(r"\d+", "0").value_counts(sort=True).head(_SHAPES)
    return [
        unit
        for unit in (*_SIGNS, *_CODES)
        if 2 * sum(count for cell, count in zip(*shapes, strict=True) if _holds(cell, unit))
        > len(some)
    ]


def _holds(cell: str, unit: str) -> bool:
    """Whether a sign is in a cell, or a code that no other letter touches."""
    at = cell.find(unit)
    if at < 0 or not unit[0].isalpha():
        return at >= 0
    around = cell[max(at - 1, 0) : at] + cell[at + len(unit) : at + len(unit) + 1]
    return not any(map(str.isalpha, around))


def _numbers(words: pl.Series, kind: ColumnType, *, lenient: bool = False) -> pl.Series:
    """(N,) Float64, null for what is no number written this way.

    Args:
        words: stripped cells.
        kind: the way.
        lenient: whether `1,234.5` is read too where no mark between thousands was seen.
    """
    cells = words.str.replace_all("−", "-", literal=True)
    cells = cells.str.replace(r"^\(\s*(.*\d.*)\)$", "-$1")  # as bookkeepers write what is negative
    if kind.unit:
        unit = re.escape(kind.unit)
        bare = cells.str.replace(rf"^([+-]?)\s*{unit}\s*", "$1").str.replace(rf"\s*{unit}$", "")
        without = (bare == cells) & ~cells.str.contains(r"^[+-]?0+([.,]0+)?$")
        cells = bare.set(without, None)  # a number without the unit may be in another one
    written = _without_grouping(cells, kind) if kind.grouping or lenient else cells
    if kind.decimal != ".":
        point = written.str.contains(".", literal=True)
        written = written.set(point, None).str.replace(kind.decimal, ".", literal=True)
    written = written.set(written.str.contains("_", literal=True), None)  # polars reads "1_000"
    return _finite(written.cast(pl.Float64, strict=False))


def _without_grouping(cells: pl.Series, kind: ColumnType) -> pl.Series:
    """Cells without the marks between thousands, where they stand between thousands."""
    mark = re.escape(kind.decimal)
    other = kind.grouping or ("," if kind.decimal == "." else ".")
    group = _GROUPINGS[other] if len(_GROUPINGS[other]) > 1 else re.escape(other)
    # Without a mark between thousands in the column, one is clear only before a fraction.
    fraction = rf"({mark}\d+)?" if kind.grouping else rf"{mark}\d+"
    grouped = cells.str.contains(rf"^[+-]?\d{{1,3}}({group}\d{{3}})+{fraction}$")
    if not grouped.any():
        return cells
    bare = cells.str.replace_all(group, "")
    return pl.select(pl.when(grouped).then(bare).otherwise(cells)).to_series()


def _typed_numbers(column: pl.Series) -> pl.Series:
    if not column.dtype.is_numeric():  # yes and no are no numbers
        return pl.Series(column.name, [None], pl.Float64).new_from_index(0, len(column))
    return _finite(column.cast(pl.Float64, strict=False))


def _finite(numbers: pl.Series) -> pl.Series:
    return numbers.set(~numbers.is_finite(), None)


def _best_date(words: pl.Series, times: pl.Series, stored: int, total: int) -> ColumnType | None:
    best, read = "iso date" if stored else "", 0
    for name in ("iso", *(name for name, _, _ in dates.FORMS)):
        count = int(times.filter(dates.datetimes_in_form(words, name).is_not_null()).sum())
        if count > read:
            best, read = name, count
    return ColumnType("date", date=best) if best and read + stored >= _MOSTLY * total else None
