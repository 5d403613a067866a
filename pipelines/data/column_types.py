"""Types of a table's columns: numbers, dates or categories, and how their cells are written.

`infer` judges a whole column once, when features are extracted; `read_column` reads any cells by a
type, so that a cell means the same in every table. A cell that does not fit is missing, and
`ColumnReading` says which.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from pipelines.data.category_words import are_decimals, canonical_words

MISSING_WORDS = (
    "na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "-", "--", "–", "—", "?", "??", ".",
    "missing", "unknown", "k.a.", "#value!", "#div/0!",
)  # fmt: skip
"""Words (in small letters) that say "no value" in a column of numbers or dates."""
_FEW = 20  # as many different numbers beside other words may still be a column of categories
_MOSTLY = 0.9  # share of the cells from which a column is numbers whatever its other words are
_UNITS = "%‰$€£¥₹"
_CODES = ("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR")
_SPACES = " \u00a0\u202f\u2009"  # blank, no-break blanks and the thin blank group digits too
_GROUPINGS = {",": ",", ".": ".", " ": f"[{_SPACES}]", "'": "['’]"}
_PAIRS = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"))
_DATES = (
    ("iso date", "%Y-%m-%d", r"^\d{4}-\d{1,2}-\d{1,2}$"),
    ("dd.mm.yyyy", "%d.%m.%Y", r"^\d{1,2}\.\d{1,2}\.\d{4}$"),
    ("dd/mm/yyyy", "%d/%m/%Y", r"^\d{1,2}/\d{1,2}/\d{4}$"),
    ("mm/dd/yyyy", "%m/%d/%Y", r"^\d{1,2}/\d{1,2}/\d{4}$"),
    ("yyyy/mm/dd", "%Y/%m/%d", r"^\d{4}/\d{1,2}/\d{1,2}$"),
    ("dd-mm-yyyy", "%d-%m-%Y", r"^\d{1,2}-\d{1,2}-\d{4}$"),
)
_TIME = r"[T ](\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)$"
_ISO = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?$"


@dataclass(frozen=True)
class ColumnType:
    """What the cells of a column are and how they are written.

    Attributes:
        kind: number, date or category.
        decimal: the mark before the fraction of a number, `.` or `,`.
        grouping: the mark between thousands, or "".
        unit: what stands before or after every number: `%`, a currency sign or code, or "".
        date: name of the date format, such as `dd.mm.yyyy`; "" for other kinds.
        by_value: of categories, whether all are decimals, so that `1` and `1.0` are one.
    """

    kind: Literal["number", "date", "category"]
    decimal: str = "."
    grouping: str = ""
    unit: str = ""
    date: str = ""
    by_value: bool = False

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
        return f"dates ({self.date})" if self.kind == "date" else "categories"


@dataclass(frozen=True)
class ColumnReading:
    """Cells as a type reads them.

    Attributes:
        values: (N,) Float64, Date, Datetime in UTC, or String; null where missing.
        unfit: (N,) bool, cells that hold something which is no value of the type.
    """

    values: pl.Series
    unfit: pl.Series

    def describe_unfit(self, cells: pl.Series, ids: pl.Series | None = None) -> str:
        """`3 of 300 cells are no number and count as missing, such as 'NA' in row s7`; "" if none.

        Args:
            cells: (N,) as they were before they were read.
            ids: (N,) names of the rows; else they are numbered from 0.
        """
        count = int(self.unfit.sum())
        if not count:
            return ""
        first = int(self.unfit.arg_max() or 0)
        row = first if ids is None else ids[first]
        what = {pl.Float64: "number", pl.String: "word"}.get(type(self.values.dtype), "date")
        verb, counted = ("is", "counts") if count == 1 else ("are", "count")
        example = f"{str(cells[first])[:40]!r} in row {row}"
        return (
            f"{count} of {len(cells)} cells {verb} no {what} and {counted} as missing, "
            f"such as {example}"
        )


def infer(column: pl.Series, *, decimal: str | None = None) -> ColumnType:
    """The type of a column, by all its cells; one odd cell does not change it.

    A column most of whose cells are numbers (or dates), written one way, is numbers (or dates).
    Beside words that mean "no value", a column of few different numbers and other words is
    categories: `1, 2, 3, A`.

    Args:
        column: words as a file has them, or values that are typed already.
        decimal: the decimal mark of the file where that is known; it settles `1,234`.
    """
    if column.dtype.is_numeric():
        return ColumnType("number")
    if column.dtype in (pl.Date, pl.Datetime):
        return ColumnType("date", date="iso date")
    if column.dtype != pl.String:
        return _category(column)
    if decimal != "," and _plain_numbers(column) is not None:
        return ColumnType("number")
    counts = _stripped(column).drop_nulls().value_counts(sort=True)
    words, times = counts[column.name], counts["count"]
    is_word = ~words.str.to_lowercase().is_in(MISSING_WORDS)
    words, times = words.filter(is_word), times.filter(is_word)
    found = None
    if len(words):
        found = _best_number(words, times, decimal) or _best_date(words, times)
    return found or _category(column)


def _plain_numbers(column: pl.Series) -> pl.Series | None:
    """(N,) Float64 where every cell is a plain number or null: most columns, in one step."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() != column.null_count() or numbers.null_count() == len(numbers):
        return None
    odd = numbers.is_nan().any() or column.str.contains("_", literal=True).any()
    return None if odd else numbers


def _category(column: pl.Series) -> ColumnType:
    return ColumnType("category", by_value=are_decimals(canonical_words(column, by_value=False)))


def read_column(column: pl.Series, kind: ColumnType) -> ColumnReading:
    """Cells of any table as values of a type that was inferred before, each by itself.

    Args:
        column: words, or values that are typed already.
        kind: the type.
    """
    if kind.kind == "category":
        words = canonical_words(column, by_value=kind.by_value)
        return ColumnReading(words, pl.Series(column.name, [False]).new_from_index(0, len(column)))
    text = column.dtype == pl.String
    if text and kind == ColumnType("number") and (plain := _plain_numbers(column)) is not None:
        return ColumnReading(plain, pl.repeat(False, len(column), eager=True))  # noqa: FBT003
    there = _stripped(column).is_not_null() if text else column.is_not_null()
    if kind.kind == "number":
        values = _numbers(_stripped(column), kind, lenient=True) if text else _typed_numbers(column)
    else:
        values = _moments(_stripped(column), kind.date) if text else _typed_dates(column)
    return ColumnReading(values.alias(column.name), (there & values.is_null()).alias(column.name))


def decimal_mark(columns: Iterable[pl.Series], separator: str = ",") -> str | None:
    """The decimal mark of a file, where its cells or its separator settle it; else None.

    `1,5` and `1.234,5` can only have a decimal comma, `1.5` and `1,234.5` only a decimal point;
    `1,234` may be either. Where no cell tells, a file of cells separated by `;` has commas.
    """
    comma = point = False
    for column in columns:
        if column.dtype != pl.String:
            continue
        cells = column.drop_nulls().str.strip_chars(_UNITS + _SPACES + "+-")
        point = point or _is_decisive(cells, ".", ",")
        if not comma and cells.cast(pl.Float64, strict=False).null_count():
            comma = _is_decisive(cells, ",", ".")
        if comma and point:
            return None
    if comma or point:
        return "," if comma else "."
    return "," if separator == ";" else None


def _is_decisive(cells: pl.Series, mark: str, other: str) -> bool:
    """Whether a cell can only be a number with this decimal mark."""
    m, o = re.escape(mark), re.escape(other)
    shape = rf"^(0\d*|\d{{4,}}){m}\d+$|^\d+{m}(\d{{1,2}}|\d{{4,}})$|^\d{{1,3}}({o}\d{{3}})+{m}\d+$"
    return bool(cells.str.contains(shape).any())


def _stripped(column: pl.Series) -> pl.Series:
    stripped = column.str.strip_chars()
    return stripped.set(stripped == "", None)


def _best_number(words: pl.Series, times: pl.Series, decimal: str | None) -> ColumnType | None:
    """The way of writing numbers that reads most cells, if it reads enough of them."""
    total = int(times.sum())
    found, read = ColumnType("number"), 0
    if decimal != ",":  # as most columns are written
        read = _read_count(words, times, found)
    if read < total:
        pairs = sorted(_PAIRS, key=lambda pair: pair[0] != (decimal or "."))
        for unit in ("", *_units_of(words)):
            for mark, grouping in pairs:
                kind = ColumnType("number", mark, grouping, unit)
                count = _read_count(words, times, kind)
                if count > read:
                    found, read = kind, count
    if read == 0:
        return None
    distinct = int(_numbers(words, found).n_unique())
    enough = read >= _MOSTLY * total or (read > 0.5 * total and distinct > _FEW)
    return found if enough else None


def _read_count(words: pl.Series, times: pl.Series, kind: ColumnType) -> int:
    return int(times.filter(_numbers(words, kind).is_not_null()).sum())


def _units_of(words: pl.Series) -> list[str]:
    """Signs and codes that stand before or after the digits of at least half of the cells."""
    digits = words.str.contains(r"\d")
    some = words.filter(digits)
    if not len(some):
        return []
    signs = [sign for sign in _UNITS if some.str.contains(sign, literal=True).sum() * 2 > len(some)]
    codes = [code for code in _CODES if some.str.contains(rf"\b{code}\b").sum() * 2 > len(some)]
    return signs + codes


def _numbers(words: pl.Series, kind: ColumnType, *, lenient: bool = False) -> pl.Series:
    """(N,) Float64, null for what is no number written this way.

    Args:
        words: stripped cells.
        kind: the way.
        lenient: whether `1,234.5` is read too where no mark between thousands was seen.
    """
    cells = words.str.replace_all("−", "-", literal=True)
    if kind.unit:
        unit = re.escape(kind.unit)
        bare = cells.str.replace(rf"^([+-]?)\s*{unit}\s*", "$1").str.replace(rf"\s*{unit}$", "")
        without = (bare == cells) & ~cells.str.contains(r"^[+-]?0+([.,]0+)?$")
        cells = bare.set(without, None)  # a number without the unit may be in another one
    written = _without_grouping(cells, kind) if kind.grouping or lenient else cells
    if kind.decimal != ".":
        point = written.str.contains(".", literal=True)
        written = written.set(point, None).str.replace(kind.decimal, ".", literal=True)
    # polars reads "1_000" and "infinity"; the second is a number, the first is none
    written = written.set(written.str.contains("_", literal=True), None)
    numbers = written.cast(pl.Float64, strict=False)
    return numbers.set(numbers.is_nan(), None)


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
    if column.dtype == pl.Boolean:
        return column.cast(pl.Float64)
    if not column.dtype.is_numeric():
        return pl.Series(column.name, [None], pl.Float64).new_from_index(0, len(column))
    numbers = column.cast(pl.Float64, strict=False)
    return numbers.set(numbers.is_nan(), None)


def _best_date(words: pl.Series, times: pl.Series) -> ColumnType | None:
    total = int(times.sum())
    best, read = "", 0
    for name in ("iso", *(name for name, _, _ in _DATES)):
        count = int(times.filter(_moments(words, name).is_not_null()).sum())
        if count > read:
            best, read = name, count
    return ColumnType("date", date=best) if read >= _MOSTLY * total else None


def _moments(words: pl.Series, name: str) -> pl.Series:
    """(N,) Date, or Datetime in UTC where cells have a time; null for what is no such date."""
    if name == "iso":
        return _iso_moments(words)
    _, form, shape = next(each for each in _DATES if each[0] == name)
    timed = words.str.contains(_TIME)
    if timed.any():
        day = words.str.replace(_TIME, "")
        clock = words.str.extract(_TIME)
        days = day.set(~day.str.contains(shape), None).str.to_datetime(form, strict=False)
        seconds = _seconds(clock.fill_null("0:00"))
        return days.dt.replace_time_zone("UTC") + seconds
    return words.set(~words.str.contains(shape), None).str.to_date(form, strict=False)


def _seconds(clock: pl.Series) -> pl.Series:
    parts = clock.str.split(":").list
    hours, minutes = (parts.get(n).cast(pl.Float64, strict=False) for n in (0, 1))
    rest = parts.get(2, null_on_oob=True).cast(pl.Float64, strict=False).fill_null(0.0)
    sound = (hours < 24) & (minutes < 60) & (rest < 60)
    total = (hours * 3600 + minutes * 60 + rest).set(~sound, None)
    return (total * 1_000_000).cast(pl.Int64).cast(pl.Duration("us"))


def _iso_moments(words: pl.Series) -> pl.Series:
    cells = words.set(~words.str.contains(_ISO), None)
    cells = cells.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    cells = cells.str.replace(r"T(\d{2}:\d{2})($|[+-])", "T${1}:00$2")
    zoned = cells.str.contains(r"[+-]\d{2}:?\d{2}$")
    cells = pl.select(
        pl.when(pl.Series(zoned)).then(pl.Series(cells)).otherwise(pl.Series(cells) + "+00:00")
    ).to_series()
    return cells.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_zone="UTC")


def _typed_dates(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Date:
        return column
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is None:
            return column.dt.replace_time_zone("UTC")
        return column.dt.convert_time_zone("UTC")
    return pl.Series(column.name, [None], pl.Date).new_from_index(0, len(column))
