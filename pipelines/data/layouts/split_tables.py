"""Tables of one dataset, a split each, as one table."""

import contextlib
from collections.abc import Sequence

import polars as pl

from pipelines.data import splits
from pipelines.data.tables import Note
from pipelines.data.targets import TARGETS
from pipelines.data.values.mixed_cells import (
    column_of,
    datetimes_of,
    is_mixed,
    numbers_of,
    words_of,
)

_RELATED = (
    lambda dtype: dtype.is_numeric(),
    lambda dtype: dtype.is_temporal(),
    lambda dtype: dtype in (pl.String, pl.Categorical, pl.Enum),
    lambda dtype: isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_numeric(),
)
"""Types of files that one type holds without changing what a cell is."""


def joined(
    tables: Sequence[tuple[str, pl.DataFrame]], target: str | None, tell: Note
) -> pl.DataFrame:
    """All rows, with a column `split`; without it where train or test have no row with a target.

    Args:
        tables: split word and table; "" where the table has its own splits or none.
        target: the column to predict, if it is known.
        tell: called with one sentence where the splits are not used.
    """
    named = [
        frame if not word or "split" in frame.columns else frame.with_columns(split=pl.lit(word))
        for word, frame in tables
    ]
    kinds = [splits.WORDS.get(word) for word, _ in tables]
    first = named[kinds.index("train") if "train" in kinds else 0]
    whole = _stacked([_same_names(first, frame, tell) for frame in named], tell)
    if any(not word for word, _ in tables) or "split" not in whole.columns:
        return whole
    labelled = {splits.WORDS[word] for word, frame in tables if _has_targets(frame, target)}
    if {"train", "test"} <= labelled:
        return whole
    lacking = " and ".join(word for word in ("train", "test") if word not in labelled)
    tell(f"no {lacking} rows with a target among the files: all rows are split anew")
    return whole.drop("split")


def _same_names(first: pl.DataFrame, frame: pl.DataFrame, tell: Note) -> pl.DataFrame:
    """The table with names as the first one has them, where they differ by case or blanks."""
    known = {name.strip().lower(): name for name in first.columns}
    if len(known) < first.width:
        return frame
    names = {n: known.get(n.strip().lower(), n) for n in frame.columns}
    changed = {name: word for name, word in names.items() if name != word}
    if not changed or len(set(names.values())) < len(names):
        return frame
    tell(
        "; ".join(f"column {name!r} of another file is {word!r}" for name, word in changed.items())
    )
    return frame.rename(changed)


def _stacked(frames: Sequence[pl.DataFrame], tell: Note) -> pl.DataFrame:
    """All rows; cells keep the type they were stored with where files differ in it."""
    names = dict.fromkeys(name for frame in frames for name in frame.columns)
    columns = []
    for name in names:
        parts = [frame.get_column(name, default=None) for frame in frames]
        there = [part for part in parts if part is not None]
        lacking = sum(len(f) for f, part in zip(frames, parts, strict=True) if part is None)
        if lacking and name != "split":
            rows = sum(map(len, frames))
            tell(f"column {name!r} is not in every file: missing in {lacking} of {rows} rows")
        whole = [
            pl.Series(name, [None], pl.Null).new_from_index(0, len(frame)) if part is None else part
            for frame, part in zip(frames, parts, strict=True)
        ]
        columns.append(_column(name, whole, there, tell))
    return pl.DataFrame(columns)


def _column(
    name: str, parts: Sequence[pl.Series], there: Sequence[pl.Series], tell: Note
) -> pl.Series:
    types = {part.dtype for part in there if part.dtype != pl.Null}
    if len(types) < 2 or any(all(map(same, types)) for same in _RELATED):
        frames = [part.alias(name).to_frame() for part in parts]
        with contextlib.suppress(pl.exceptions.PolarsError):  # such as dates beside durations
            return pl.concat(frames, how="vertical_relaxed").to_series()
    return column_of(name, [cell for part in parts for cell in _cells(part)], tell)


def _cells(column: pl.Series) -> list[object]:
    """Python values; of a mixed column as they were stored."""
    if not is_mixed(column):
        return column.to_list()
    stored = zip(numbers_of(column), datetimes_of(column), words_of(column), strict=True)
    return [next((cell for cell in each if cell is not None), None) for each in stored]


def _has_targets(frame: pl.DataFrame, target: str | None) -> bool:
    """Whether any row has a target; where its column is not known, one named like a target."""
    names = [c for c in frame.columns if c == target or (target is None and c.lower() in TARGETS)]
    return any(frame[name].null_count() < len(frame) for name in names)
