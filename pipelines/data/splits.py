"""Splits: the words for train, val and test, and how rows are dealt to them by a stored seed."""

from collections.abc import Hashable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from pipelines.data.dataset import SPLITS

WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def named(column: pl.Series, where: str) -> pl.Series:
    """A column of split words in our three; missing cells mean "in no split".

    Args:
        column: any case, `dev`, `valid` and `validation` for val.
        where: the table, for the message.

    Raises:
        MmfuseError: for a word that is none of them.
    """
    words = column.cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
    strange = sorted(set(words.unique()) - {*WORDS, ""})
    if strange:
        raise MmfuseError(
            f"{where}: unknown split {strange[:5]} in column {column.name!r}; "
            f"use train, val (or dev) and test"
        )
    return words.replace(WORDS).alias("split")


def shares(text: str) -> tuple[float, float, float]:
    """`0.8/0.1/0.1` → the three shares of train, val and test.

    Raises:
        MmfuseError: unless there are three positive numbers that sum to one.
    """
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not min(numbers) > 0 or not abs(sum(numbers) - 1) < 1e-6:
        raise MmfuseError(
            f"--split {text!r} is neither a column of the table nor three shares of "
            f"train/val/test that sum to 1, such as 0.8/0.1/0.1"
        )
    return numbers[0], numbers[1], numbers[2]


def deal(
    parts: tuple[float, float, float],
    *,
    seed: int,
    strata: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> NDArray[np.object_]:
    """(N,) split words by share: every stratum dealt evenly, or every group on one side.

    Of each stratum the first row drawn goes to train, so that no class is met first in the test
    split. Groups are dealt largest first, each to the split that lacks most rows; strata are then
    not balanced, and the shares hold to within a group.

    Args:
        parts: shares of train, val and test.
        seed: the same seed deals the same rows alike.
        strata: (N,) classes to balance; ignored with groups.
        groups: (N,) what must stay together; None where a row stands alone.

    Raises:
        MmfuseError: for fewer than three groups.
    """
    numbers = np.random.default_rng(seed)
    if groups is not None:
        return _deal_groups(parts, groups, numbers)
    members = _members(strata or ())
    drawn = [numbers.permutation(rows) for rows in members.values()]
    first = np.array([rows[0] for rows in drawn], np.int64)
    rest = np.concatenate([rows[1:] for rows in drawn])
    count = len(first) + len(rest)
    val, test = round(count * parts[1]), round(count * parts[2])
    splits = np.full(count, "train", object)
    splits[rest] = _spread((max(0, len(rest) - val - test), val, test))[: len(rest)]
    return splits


def _spread(counts: tuple[int, int, int]) -> NDArray[np.object_]:
    """Split words, each as often as asked and each evenly spaced over the whole."""
    words = np.repeat(np.array(SPLITS, object), counts)
    places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
    return words[np.argsort(places, kind="stable")]


def _deal_groups(
    parts: tuple[float, float, float], groups: Sequence[Hashable], numbers: np.random.Generator
) -> NDArray[np.object_]:
    alone = [("a row alone", row) if group is None else group for row, group in enumerate(groups)]
    members = list(_members(alone).values())
    if len(members) < 3:
        raise MmfuseError(f"three splits need three groups at least; there are {len(members)}")
    order = sorted(numbers.permutation(len(members)), key=lambda place: -len(members[place]))
    lacking = np.array(parts) * len(groups)
    splits = np.empty(len(groups), object)
    for place in order:
        side = int(np.argmax(lacking))
        splits[members[place]] = SPLITS[side]
        lacking[side] -= len(members[place])
    return splits


def _members(labels: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Row numbers by label, in order of first appearance."""
    found: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        found.setdefault(label, []).append(row)
    return found
