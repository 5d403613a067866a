"""Encode a target column as classes, label sets or values; strata for stratified splits."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

import numpy as np
import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import Task
from pipelines.data.values.category_words import (
    canonical_words,
    is_canonical_decimal,
    look_alikes,
    sort_words,
)
from pipelines.data.values.column_types import MISSING_WORDS, ColumnType, infer, read_column
from pipelines.data.values.mixed_cells import is_mixed, words_of

KINDS = ("classes", "labels", "value")
TARGETS = ("target", "label", "labels", "class", "y")  # column names that mean the target
EVENLY = {
    "classes": "each class evenly",
    "labels": "the rarest label of a row evenly",
    "value": "each tenth of the values evenly",
}
"""What `strata` balances, for messages."""
_SEPARATOR = re.compile(r"\s*[|;]\s*")  # between the labels of one cell
_JOINED = r"[^|;\s][^|;]*[|;].*[^|;\s]"  # a cell of two labels or more
_MAX_CLASSES = 20  # at most this many distinct whole numbers count as classes


def encode_target(
    column: pl.Series,
    wanted: str | None,
    where: str,
    tell: Callable[[str], None],
    ids: pl.Series | None = None,
    *,
    decimal: str | None = None,
) -> tuple[pl.Series, Task]:
    """Encode a column as `target` (class numbers, lists of label numbers, or floats); its task.

    Lists, and words joined by `|` or `;` whose parts recombine, are labels; numbers
    with fractions, or more than 20 whole ones, a value; all else classes. A row without labels (an
    empty cell or list) has none of them; in the other tasks every row has a target.

    Args:
        column: as the table has it.
        wanted: `classes`, `labels` or `value`, instead of guessing.
        where: the table, for messages.
        tell: called with sentences on how the target was read.
        ids: (N,) of the rows, for messages.
        decimal: the decimal mark of the file, where it is known.

    Raises:
        MmfuseError: for missing targets, one class only, or values that are not numbers.
    """
    name = column.name
    if wanted not in (None, *KINDS):
        raise unknown("kind of task", wanted or "", KINDS)
    kind = wanted or _guess_kind(column.drop_nulls(), decimal)
    if column.null_count() and (kind != "labels" or column.is_null().all()):
        first = "" if ids is None else f", such as {ids.filter(column.is_null())[0]}"
        raise MmfuseError(f"{where}: {column.null_count()} rows have no {name!r} to predict{first}")
    written = ""
    if kind == "value":
        target, written = _values(column, where, decimal, ids)
        task = Task("value", (name,))
    elif kind == "labels":
        target, task = _labels(column)
    else:
        target, task = _classes(column, where)
    one = target.n_unique() < 2 if kind != "labels" else not task.names
    if one or (kind == "classes" and len(task.names) < 2):
        raise MmfuseError(
            f"{where}: every row has the same {name!r} ({str(column[0])[:60]}); "
            "there is nothing to predict"
        )
    if kind == "labels" and (none := int((target.list.len() == 0).sum())):
        tell(f"target {name}: {none} rows have no label at all")
    tell(f"target {name}: {_describe(target, task, column, wanted)}{written}")
    if kind == "classes" and (odd := [n for n in task.names if n.lower() in MISSING_WORDS]):
        shown = ", ".join(map(repr, odd[:3]))
        verb = "is a class" if len(odd) == 1 else "are classes"
        tell(f"target {name}: {shown} {verb}; leave the cell empty where there is no label")
    for alike in look_alikes(task.names)[:3]:
        shown = ", ".join(map(repr, alike[:3]))
        tell(f"target {name}: {shown} differ only by case, blanks, Unicode form or unseen signs")
    return target.alias("target"), task


def is_multi_label(column: pl.Series) -> bool:
    """Whether cells are sets of labels: lists, or joined words whose parts recombine.

    Of joined words, half of the rows have several labels, or a tenth of them and the labels of
    nearly all of these occur in other cells too: `drama|war` beside `war` and `drama`. `Mac; iOS`
    among `Linux` and `Windows`, or in one row, is a class.
    """
    if isinstance(column.dtype, pl.List | pl.Array):
        return True
    if column.dtype != pl.String:
        return False
    cells = column.drop_nulls()
    joined = cells.str.contains(_JOINED)
    if 10 * joined.sum() < len(cells) or not joined.any():
        return False
    each = [set(_split_labels(cell)) for cell in cells.unique()]
    counts = Counter(label for labels in each for label in labels)
    if len(counts) > len(each):
        return False
    if 2 * joined.sum() >= len(cells):
        return any(counts[label] > 1 for labels in each if len(labels) > 1 for label in labels)
    again = cells.filter(joined).map_elements(
        lambda cell: all(counts[label] > 1 for label in set(_split_labels(cell))),
        return_dtype=pl.Boolean,
    )
    return bool(again.mean() >= 0.9)  # type: ignore[operator]


def odd_among_numbers(column: pl.Series, wanted: str | None, decimal: str | None) -> pl.Series:
    """(N,) bool, cells that are no number among numbers to predict: they are no target.

    All False where the target is classes: a word among few whole numbers is a class too.

    Args:
        column: the target.
        wanted: the kind of task, where the user says so.
        decimal: the decimal mark of the file.
    """
    none = pl.Series([False]).new_from_index(0, len(column))
    if wanted == "classes" or not (column.dtype == pl.String or is_mixed(column)):
        return none
    kind = infer(column, decimal=decimal)
    if kind.kind != "number":
        return none
    reading = read_column(column, kind)
    few = wanted is None and _are_few_classes(reading.values.drop_nulls())
    return none if few else reading.unfit


def strata(target: pl.Series, task: Task) -> list[int]:
    """(N,) strata for splitting: the class, the rarest label, or the decile of the value."""
    if task.kind == "classes":
        return target.to_list()
    if task.kind == "value":
        ranks = target.rank("ordinal").to_numpy()
        return [int(place) for place in (ranks - 1) * 10 // len(target)]
    counts = np.zeros(len(task.names) + 1)
    rows = target.to_list()
    for labels in rows:
        counts[labels] += 1
    return [min(labels, key=lambda label: counts[label], default=-1) for labels in rows]


def _describe(target: pl.Series, task: Task, column: pl.Series, wanted: str | None) -> str:
    """What the target was read as, and the option that reads it another way."""
    if task.kind == "value":
        return "one number" + ("" if wanted else "; --task classes makes each value a class")
    if task.kind == "labels":
        return f"{len(task.names)} labels"
    others = []
    if wanted is None and all(map(is_canonical_decimal, task.names)):
        others.append("--task value reads it as a number")
    if wanted is None and column.dtype == pl.String and column.str.contains(r"[|;]").any():
        others.append("--task labels splits cells at | and ;")
    return "; ".join([f"{len(task.names)} classes of {len(target)} rows", *others])


def _guess_kind(column: pl.Series, decimal: str | None) -> Literal["classes", "labels", "value"]:
    if is_multi_label(column):
        return "labels"
    kind = infer(column, decimal=decimal)
    if kind.kind != "number":
        return "classes"
    reading = read_column(column, kind)
    # A word among few numbers is a class of its own, and so are digits that no float can hold.
    if reading.unfit.any():
        return "classes"
    return "classes" if _are_few_classes(reading.values) else "value"


def _are_few_classes(numbers: pl.Series) -> bool:
    whole = (numbers % 1 == 0).all()
    return whole and numbers.n_unique() <= _MAX_CLASSES


def _values(
    column: pl.Series, where: str, decimal: str | None, ids: pl.Series | None
) -> tuple[pl.Series, str]:
    """The numbers, and how they are written where that is not plain, as the end of a sentence."""
    kind = infer(column, decimal=decimal)
    if kind.kind != "number":
        kind = ColumnType("number", decimal or ".")
    reading = read_column(column, kind)
    if reading.unfit.any():
        odd = re.sub(r" and counts? as missing", "", reading.describe_unfit(column, ids))
        raise MmfuseError(f"{where}: {column.name!r} cannot be a number to predict: {odd}")
    if kind == ColumnType("number"):
        return reading.values, ""
    first = column.drop_nulls()[0]
    shown = f"; read as {kind}: {first!r} is {reading.values.drop_nulls()[0]:g}"
    other = "." if kind.decimal == "," else ","
    clear = kind.grouping not in (".", ",")
    return reading.values, shown + ("" if clear else f"; else --decimal {other}")


def _labels(column: pl.Series) -> tuple[pl.Series, Task]:
    if isinstance(column.dtype, pl.List | pl.Array):
        cells = [[] if cell is None else list(cell) for cell in column.to_list()]
        sets = [[str(label) for label in cell if label is not None] for cell in cells]
    else:
        sets = [_split_labels(cell or "") for cell in words_of(column)]
    flat = pl.Series("labels", [label for labels in sets for label in labels], pl.String)
    words = iter(canonical_words(flat).to_list())
    rows = [[word for word in (next(words) for _ in labels) if word] for labels in sets]
    names = sort_words(word for row in rows for word in row)
    numbers = {name: number for number, name in enumerate(names)}
    encoded = [sorted({numbers[word] for word in row}) for row in rows]
    return pl.Series("target", encoded, pl.List(pl.Int64)), Task("labels", tuple(names))


def _split_labels(cell: str) -> list[str]:
    return [label for label in _SEPARATOR.split(cell.strip()) if label]


def _classes(column: pl.Series, where: str) -> tuple[pl.Series, Task]:
    if column.dtype == pl.Binary or (column.dtype.is_nested() and not is_mixed(column)):
        raise MmfuseError(f"{where}: {column.name!r} holds {column.dtype}, which cannot be classes")
    words = canonical_words(column)
    names = sort_words(words)
    numbers = {name: number for number, name in enumerate(names)}
    encoded = words.replace_strict(numbers, return_dtype=pl.Int64)
    return encoded, Task("classes", tuple(names))
