"""Words of a category column: blanks stripped, equal decimals merged, sorted in one fixed order.

Labels, ids, groups and categories all go through `canonical_words`, so that two cells are the same
word everywhere or nowhere: equal after stripping blanks, or, where every word of the column is a
canonical decimal, equal in value (`1` and `1.0`). Any other word in the column, such as `007` or
`1e3`, and words stay words.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

import polars as pl

from pipelines.data.values.mixed_cells import words_of

_CANONICAL = re.compile(r"(0|-?[1-9][0-9]*|-?0(?=\.[0-9]*[1-9]))(\.[0-9]+)?", re.ASCII)


def canonical_words(column: pl.Series, *, by_value: bool | None = None) -> pl.Series:
    """A column as words: (N,) String, null where a cell is empty, blank or NaN.

    Args:
        column: words, numbers or booleans (`true`, `false`); of another type, its text.
        by_value: whether decimals of one value are one word; None: where all words are decimals.
    """
    words = words_of(column).str.strip_chars()
    words = words.set(words == "", None)
    if by_value is None:
        by_value = are_decimals(words)
    if by_value:
        pointed = words.filter(words.str.contains(".", literal=True)).unique().drop_nulls()
        shortest = {word: _shortest(word) for word in pointed if is_canonical_decimal(word)}
        if shortest:
            words = words.replace(shortest)
    return words


def are_decimals(words: pl.Series) -> bool:
    """Whether there are words and every one of them is a decimal in its usual form."""
    distinct = words.unique().drop_nulls()
    return bool(len(distinct)) and all(map(is_canonical_decimal, distinct))


def sort_words(words: Iterable[str]) -> list[str]:
    """Distinct words in an order that every process agrees on: decimals by value, else by text."""
    distinct = set(words)
    if distinct and all(map(is_canonical_decimal, distinct)):
        return sorted(distinct, key=lambda word: (Decimal(word), word))
    return sorted(distinct)


def look_alikes(words: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of words that differ only by case, Unicode form, blanks or signs without a width."""
    groups = defaultdict(list)
    for word in sorted(set(words)):
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
        seen = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
        groups[" ".join(seen.split())].append(word)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def is_canonical_decimal(word: str) -> bool:
    """Whether a word is a decimal in its usual form: `0`, `12`, `-3.50`; not `007`, `+1`, `-0`."""
    return _CANONICAL.fullmatch(word) is not None


def _shortest(word: str) -> str:
    """The decimal without zeros that say nothing: `1.50` → `1.5`, `2.0` → `2`."""
    whole, _, fraction = word.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
