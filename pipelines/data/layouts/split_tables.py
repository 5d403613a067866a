"""Tables of one dataset, a split each, as one table."""

from collections.abc import Sequence

import polars as pl

from pipelines.data import splits
from pipelines.data.tables import Note
from pipelines.data.targets import TARGETS


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
    whole = pl.concat(named, how="diagonal_relaxed")
    if any(not word for word, _ in tables) or "split" not in whole.columns:
        return whole
    labelled = {splits.WORDS[word] for word, frame in tables if _has_targets(frame, target)}
    if {"train", "test"} <= labelled:
        return whole
    lacking = " and ".join(word for word in ("train", "test") if word not in labelled)
    tell(f"no {lacking} rows with a target among the files: all rows are split anew")
    return whole.drop("split")


def _has_targets(frame: pl.DataFrame, target: str | None) -> bool:
    """Whether any row has a target; where its column is not known, one named like a target."""
    names = [c for c in frame.columns if c == target or (target is None and c.lower() in TARGETS)]
    return any(frame[name].null_count() < len(frame) for name in names)
