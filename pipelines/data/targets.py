"""Encode a target column as classes, label sets or values; strata for stratified splits."""

import re
from collections.abc import Callable
from typing import Literal

import numpy as np
import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import Task

KINDS = ("classes", "labels", "value")
TARGETS = ("target", "label", "labels", "class", "y")  # column names that mean the target
EVENLY = {
    "classes": "each class evenly",
    "labels": "the rarest label of a row evenly",
    "value": "each tenth of the values evenly",
}
"""What `strata` balances, for messages."""
_SEPARATOR = re.compile(r"\s*[|;]\s*")  # between the labels of one cell
_MAX_CLASSES = 20  # at most this many distinct whole numbers count as classes


def encode_target(
    column: pl.Series,
    wanted: str | None,
    where: str,
    tell: Callable[[str], None],
    ids: pl.Series | None = None,
) -> tuple[pl.Series, Task]:
    """Encode a column as `target` (class numbers, lists of label numbers, or floats); its task.

    A list, or words joined by `|` or `;`, are labels; fractions, or more than 20 whole numbers, a
    value; all else classes. Names are sorted, whole numbers by size. A row without labels (an empty
    cell or list) has none of them; in the other tasks every row has a target.

    Args:
        column: as the table has it.
        wanted: `classes`, `labels` or `value`, instead of guessing.
        where: the table, for messages.
        tell: called with a sentence on how the target was read.
        ids: (N,) of the rows, for messages.

    Raises:
        MmfuseError: for missing targets, one class only, or values that are not numbers.
    """
    name = column.name
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if wanted not in (None, *KINDS):
        raise unknown("kind of task", wanted or "", KINDS)
    kind = wanted or _guess_kind(column.drop_nulls())
    if column.null_count() and (kind != "labels" or column.is_null().all()):
        first = "" if ids is None else f", such as {ids.filter(column.is_null())[0]}"
        raise MmfuseError(f"{where}: {column.null_count()} rows have no {name!r} to predict{first}")
    if kind == "value":
        values = column.cast(pl.Float64, strict=False)
        if values.null_count() or not values.is_finite().all():
            raise MmfuseError(
                f"{where}: {name!r} holds cells that are not numbers; it cannot be a value"
            )
        target, task = values, Task("value", (name,))
    elif kind == "labels":
        target, task = _labels(column)
    else:
        target, task = _classes(column, where)
    one = target.n_unique() < 2 if kind != "labels" else not task.names
    if one or (kind == "classes" and len(task.names) < 2):
        raise MmfuseError(
            f"{where}: every row has the same {name!r} ({column[0]}); there is nothing to predict"
        )
    if kind == "labels" and (none := int((target.list.len() == 0).sum())):
        tell(f"target {name}: {none} rows have no label at all")
    size = "one number" if kind == "value" else f"{len(task.names)} {kind}"
    tell(f"target {name}: {size}")
    return target.alias("target"), task


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


def _guess_kind(column: pl.Series) -> Literal["classes", "labels", "value"]:
    if isinstance(column.dtype, pl.List | pl.Array):
        return "labels"
    if column.dtype == pl.String and column.str.contains(r"[|;]").any():
        return "labels"
    numbers = column.cast(pl.Float64, strict=False)
    if column.dtype == pl.Boolean or numbers.null_count():
        return "classes"
    whole = (numbers % 1 == 0).all()
    return "classes" if whole and numbers.n_unique() <= _MAX_CLASSES else "value"


def _labels(column: pl.Series) -> tuple[pl.Series, Task]:
    if isinstance(column.dtype, pl.List | pl.Array):
        rows = [
            [str(label) for label in cell or () if label is not None] for cell in column.to_list()
        ]
    else:
        words = column.cast(pl.String)
        rows = [
            [label for label in _SEPARATOR.split((cell or "").strip()) if label] for cell in words
        ]
    names = _sorted({label for labels in rows for label in labels})
    numbers = {name: number for number, name in enumerate(names)}
    encoded = [sorted({numbers[label] for label in labels}) for labels in rows]
    return pl.Series("target", encoded, pl.List(pl.Int64)), Task("labels", tuple(names))


def _classes(column: pl.Series, where: str) -> tuple[pl.Series, Task]:
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise MmfuseError(f"{where}: {column.name!r} holds {column.dtype}, which cannot be classes")
    words = column.cast(pl.String)
    if column.dtype.is_float():  # 1.0 is class 1
        words = words.str.replace(r"\.0$", "")
    names = _sorted(set(words))
    numbers = {name: number for number, name in enumerate(names)}
    encoded = words.replace_strict(numbers, return_dtype=pl.Int64)
    return encoded, Task("classes", tuple(names))


def _sorted(names: set[str]) -> list[str]:
    whole = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=int) if whole else sorted(names)
