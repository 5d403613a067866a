"""Guess what the columns of the user's own table are."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from cache.samples import Kind
from pipelines.data.columns import ModalitySpec, as_name, file_names, is_nested
from pipelines.data.file_names import kind_of_paths
from pipelines.data.formats.nested import is_media
from pipelines.data.targets import TARGETS
from pipelines.data.values.column_types import ColumnType, infer, read_column
from pipelines.data.values.mixed_cells import is_mixed, leaf_of, words_of
from pipelines.data.values.series import AXES, any_value, is_odd, number, row_of_numbers
from pipelines.media.file_kinds import HEAD, sniffed

_NAMES_ROWS = re.compile(r"(?i:(^|[_\-. ])id)$|(?<=[a-z])I[dD]$")  # `id`, `user_id`, `userId`
_MOST = 0.9  # share of the cells that decides what a column is
_LOOK = 200  # cells that a guess looks at, for speed
_SHOWN_NAMES = 8  # columns that one note names


@dataclass(frozen=True)
class ColumnGuess:
    """Guessed modalities of a table.

    Attributes:
        parts: the modalities.
        notes: one sentence for all columns of one kind and reason.
        types: how the tabular columns are written, by name.
    """

    parts: tuple[ModalitySpec, ...]
    notes: tuple[str, ...]
    types: Mapping[str, ColumnType]


def guess_modalities(
    frame: pl.DataFrame, taken: Sequence[str], decimal: str | None = None
) -> ColumnGuess:
    """Guess the kinds of all columns not in `taken`; tabular ones become one modality, `table`.

    File names go by their endings; lists of numbers are series; numbers, dates and words of few
    distinct values are tabular; other words are text, or code where lines and brackets abound.
    """
    parts: list[ModalitySpec] = []
    record: dict[str, ColumnType] = {}
    alike: dict[str, list[str]] = {}
    for column in frame:
        if column.name in taken:
            continue
        kind, reason, written = _reserved(column.name) or _kind(column, decimal)
        alike.setdefault(f"{kind or 'left out'} ({reason})", []).append(column.name)
        if kind == "tabular" and written is not None:
            record[column.name] = written
        elif kind:
            parts.append(ModalitySpec(_fresh(as_name(column.name), parts), kind, (column.name,)))
    if record:
        parts.append(ModalitySpec(_fresh("table", parts), "tabular", tuple(record)))
    notes = (f"{_listed(names)}: {what}" for what, names in alike.items())
    return ColumnGuess(tuple(parts), tuple(notes), record)


def _listed(names: Sequence[str]) -> str:
    """`a, b and 7 more`."""
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names) if more < 2 else f"{', '.join(names[:_SHOWN_NAMES])} and {more:,} more"


def _reserved(name: str) -> tuple[None, str, None] | None:
    """Why a column is left out for its name alone: it may leak the target."""
    if name.lower() in TARGETS:
        return None, "it is named like a target", None
    if name.lower().startswith("split"):
        return None, "it is named like a split", None
    return None


def _kind(column: pl.Series, decimal: str | None) -> tuple[Kind | None, str, ColumnType | None]:
    """Kind, reason, and of tabular columns how they are written."""
    values = column.drop_nulls()
    if not len(values):
        return None, "it is empty", None
    if is_nested(column):
        return *_kind_of_nested(values), None
    distinct = values.n_unique()
    if distinct == 1:
        return None, "it has one value only", None
    kind = infer(column, decimal=decimal)
    if kind.kind == "category" and (column.dtype == pl.String or is_mixed(column)):
        return *_kind_of_words(words_of(values), distinct, decimal), kind
    if kind.kind == "number" and distinct == len(column) and _numbers_rows(column, kind):
        return None, "it numbers the rows", None
    return "tabular", "yes and no" if column.dtype == pl.Boolean else str(kind), kind


def _numbers_rows(column: pl.Series, kind: ColumnType) -> bool:
    """Whether different whole numbers are names of the rows: by the column's, or all in a row."""
    named = _NAMES_ROWS.search(column.name) is not None
    if not named and not column.name.lower().endswith("id"):
        return False
    numbers = read_column(column, kind).values.drop_nulls()
    if not len(numbers) or not (numbers % 1 == 0).all():
        return False
    return named or numbers.max() - numbers.min() == len(numbers) - 1  # type: ignore[operator]


def _kind_of_nested(values: pl.Series) -> tuple[Kind | None, str]:
    if isinstance(values.dtype, pl.List | pl.Array):
        return _kind_of_lists(values)
    if values.dtype == pl.Binary:
        return _kind_of_bytes(values)
    if not is_media(values.dtype):
        return None, "nested"
    inline = values.struct.field("bytes").drop_nulls()
    if len(inline):
        return _kind_of_bytes(inline)
    names = file_names(values).drop_nulls()
    found = kind_of_paths(names.head(_LOOK)) if len(names) else None
    return found or (None, "media without bytes and names of files")


def _kind_of_lists(values: pl.Series) -> tuple[Kind | None, str]:
    leaf, depth = leaf_of(values.dtype)
    if depth > AXES:
        return None, "lists of lists of lists"
    if leaf.is_numeric():
        return "series", "lists of numbers"
    if leaf != pl.String:
        return None, "empty lists" if leaf == pl.Null else f"lists of {leaf.base_type()}"
    first = values.filter(values.list.len() > 0).head(_LOOK)
    odd = any_value(first, is_odd)
    numbers = int((any_value(first, lambda word: number(word).is_not_null()) & ~odd).sum())
    if numbers and numbers > _MOST * (numbers + int(odd.sum())):
        return "series", "lists of numbers"
    return None, "lists of words"


def _kind_of_words(
    values: pl.Series, distinct: int, decimal: str | None
) -> tuple[Kind | None, str]:
    first = values.head(_LOOK)
    if (found := kind_of_paths(first)) is not None:
        return found
    rows = sum(row_of_numbers(cell, decimal=decimal or ".") is not None for cell in first)
    if rows > _MOST * len(first):
        return "series", str(ColumnType("series", decimal or "."))
    words = float(first.str.count_matches(r"\S+").mean() or 0)  # type: ignore[arg-type]
    lined = first.str.contains("\n").mean() or 0
    marks = first.str.count_matches(r"[;{}()=\[\]]").sum() / int(first.str.len_chars().sum())
    if float(lined) > 0.5 and marks > 0.03:  # type: ignore[arg-type]
        return "code", "lines with many brackets"
    share = distinct / len(values)
    if (share > 0.01 and words >= 3) or share > 0.5:
        return "text", f"{words:.0f} words a cell"
    return "tabular", f"{distinct} different words"


def _kind_of_bytes(values: pl.Series) -> tuple[Kind | None, str]:
    heads = values.head(_LOOK).bin.head(HEAD)
    found = Counter(map(sniffed, heads))
    kind, count = found.most_common(1)[0]
    if kind is None:
        return None, "bytes of no known format"
    if count <= _MOST * len(heads):
        shown = ", ".join(f"{count} {kind or 'unknown'}" for kind, count in found.most_common())
        return None, f"bytes of several kinds: {shown}; --modality NAME=KIND:COLUMN says which"
    return kind, "encoded bytes"


def _fresh(word: str, parts: Sequence[ModalitySpec]) -> str:
    """The name, with a number appended where another modality has it already."""
    taken = {part.name for part in parts} | {"id", "split", "target", "group"}
    numbered = (f"{word}_{number}" for number in range(2, len(taken) + 3))
    return word if word not in taken else next(name for name in numbered if name not in taken)
