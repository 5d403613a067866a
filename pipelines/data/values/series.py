"""Series: rows of numbers as words, and lists of numbers."""

import re
from collections.abc import Callable

import polars as pl

from pipelines.data.values.column_types import MISSING_WORDS
from pipelines.data.values.mixed_cells import each_leaf, leaf_of

AXES = 2  # of a series: times, and variables
_SEPARATED = re.compile(r"[,;\s]+")
_SEPARATED_BESIDE_COMMAS = re.compile(r"[;\s]+|,\s+")
_BLANK = re.compile(r"[;\s]")


def row_of_numbers(cell: str, least: int = 8, *, decimal: str = ".") -> list[float | None] | None:
    """Parse `1, 2.5, 3` or `[1 2.5 3]`, empty places missing; None for what is no such row.

    Args:
        cell: the text.
        least: numbers that a row has.
        decimal: `,` reads `1,5 2,5` as two numbers; what stands between them is then a blank or
            a semicolon, or a comma alone where there are none.
    """
    bare = cell.strip().strip("[]").strip()
    commas = decimal == "," and _BLANK.search(bare) is not None
    words = (_SEPARATED_BESIDE_COMMAS if commas else _SEPARATED).split(bare)
    if commas:
        words = [word.replace(",", ".") if "." not in word else word for word in words]
    try:
        row = [None if word in ("", "null") else float(word) for word in words]
    except ValueError:
        return None
    row = [None if number != number else number for number in row]  # noqa: PLR0124 - NaN is missing
    return row if len(row) >= least else None


def number(word: pl.Expr) -> pl.Expr:
    """A word as a number; null for what is none, or NaN."""
    return word.str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)


def is_odd(word: pl.Expr) -> pl.Expr:
    """Whether a word is no number and does not say "no value" either."""
    missing = word.str.strip_chars().str.to_lowercase().is_in(["", *MISSING_WORDS])
    return word.is_not_null() & number(word).is_null() & ~missing


def any_value(lists: pl.Series, test: Callable[[pl.Expr], pl.Expr]) -> pl.Series:
    """(N,) bool, lists at any depth in which a value passes a test."""
    found = each_leaf(lists, test)
    if leaf_of(lists.dtype)[1] > 1:
        found = found.list.eval(pl.element().list.any())
    return found.list.any().fill_null(value=False)
