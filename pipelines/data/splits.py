"""Train, val and test splits: parse split words, assign rows by shares, or make folds."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import SPLITS, Samples
from pipelines.data.values.mixed_cells import words_of

WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def parse_split_words(column: pl.Series, where: str) -> pl.Series:
    """Map a column of split words to train, val and test; missing cells are in no split ("").

    Args:
        column: in any case; also `dev`, `valid` and `validation` for val.
        where: the table, for the message.

    Raises:
        MmfuseError: for a word that is none of them.
    """
    words = words_of(column).str.strip_chars().str.to_lowercase().fill_null("")
    strange = sorted(set(words.unique()) - {*WORDS, ""})
    if strange:
        raise MmfuseError(
            f"{where}: unknown split {strange[:5]} in column {column.name!r}; "
            f"use train, val (or dev) and test; to split the rows anew, whatever it says: "
            f"--split 0.8/0.1/0.1"
        )
    return words.replace(WORDS).alias("split")


def parse_shares(text: str) -> tuple[float, float, float]:
    """Parse `0.8/0.1/0.1` as the shares of train, val and test.

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


def assign_splits(
    parts: tuple[float, float, float],
    *,
    seed: int,
    strata: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> NDArray[np.object_]:
    """(N,) split words by share, stratified, or with every group in one split.

    Of each stratum the first row drawn goes to train, so that no class is only in val or test.
    Groups are assigned largest first, each to the split that lacks most rows; strata are then not
    balanced, and the shares hold to within a group.

    Args:
        parts: shares of train, val and test.
        seed: the same seed splits the same rows alike.
        strata: (N,) classes to balance; ignored with groups.
        groups: (N,) what must stay together; None where a row stands alone.

    Raises:
        MmfuseError: for fewer than three groups.
    """
    generator = np.random.default_rng(seed)
    if groups is not None:
        return _assign_groups(parts, groups, generator)
    members = _members(strata or ())
    drawn = [generator.permutation(rows) for rows in members.values()]
    first = np.array([rows[0] for rows in drawn], np.int64)
    rest = np.concatenate([rows[1:] for rows in drawn])
    count = len(first) + len(rest)
    val, test = round(count * parts[1]), round(count * parts[2])
    splits = np.full(count, "train", object)
    splits[rest] = _spread((max(0, len(rest) - val - test), val, test))[: len(rest)]
    return splits


def _spread(counts: tuple[int, int, int]) -> NDArray[np.object_]:
    """Split words in the given counts, each evenly spaced over the whole."""
    words = np.repeat(np.array(SPLITS, object), counts)
    places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
    return words[np.argsort(places, kind="stable")]


def _assign_groups(
    parts: tuple[float, float, float], groups: Sequence[Hashable], generator: np.random.Generator
) -> NDArray[np.object_]:
    alone = [("a row alone", row) if group is None else group for row, group in enumerate(groups)]
    members = list(_members(alone).values())
    if len(members) < 3:
        raise MmfuseError(f"three splits need three groups at least; there are {len(members)}")
    order = sorted(generator.permutation(len(members)), key=lambda place: -len(members[place]))
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


def assign_folds(samples: Samples, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """(N,) the fold of each row; -1 for rows in no split.

    Groups are assigned whole, the largest first, each to the fold where it leaves the classes
    (or labels, or quarters of a value) most even; equals are ordered by the seed.

    Args:
        samples: the rows; without groups each row is its own group.
        folds: how many.
        seed: of the order.

    Raises:
        MmfuseError: if there are fewer groups than folds, or fewer than three folds.
    """
    if folds < 3:
        raise MmfuseError(f"folds must be at least 3 (train, validation, test), not {folds}")
    rows = np.flatnonzero(samples.splits != "")
    groups = samples.ids if samples.groups is None else samples.groups
    names, number = np.unique(groups[rows].astype(str), return_inverse=True)
    if len(names) < folds:
        raise MmfuseError(f"{folds} folds need as many groups, and there are {len(names)}")
    counts = np.zeros((len(names), _columns(samples, rows).shape[1]))
    np.add.at(counts, number, _columns(samples, rows))
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    totals, home = np.zeros((folds, counts.shape[1])), np.zeros(len(names), np.int64)
    for group in order:
        after = totals + counts[group]
        # The rise of the squared counts: small where this group's classes are rare so far.
        rise = (after**2 - totals**2).sum(1) + 1e-3 * totals.sum(1)
        home[group] = int(rise.argmin())
        totals[home[group]] += counts[group]
    found = np.full(len(samples), -1, np.int64)
    found[rows] = home[number]
    return found


def with_fold(samples: Samples, folds: int, fold: int, seed: int = 0) -> Samples:
    """The same rows with fold `fold` as test, the next one as val, and the others as train.

    Raises:
        MmfuseError: for an unknown fold, and as `assign_folds`.
    """
    if not 0 <= fold < folds:
        raise MmfuseError(f"there are folds 0 to {folds - 1}, not {fold}")
    where = assign_folds(samples, folds, seed)
    splits = np.full(len(samples), "train", object)
    splits[where == fold] = "test"
    splits[where == (fold + 1) % folds] = "val"
    splits[where < 0] = ""
    return replace(samples, splits=splits)


def _columns(samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, C + 1) what the folds balance: class counts and the number of rows."""
    targets: NDArray[Any] = samples.targets[rows]
    if samples.task.kind == "value":
        targets = np.searchsorted(np.quantile(targets, [0.25, 0.5, 0.75]), targets)
    if samples.task.kind != "labels":
        targets = np.eye(int(targets.max()) + 1)[targets.astype(np.int64)]
    return np.concatenate([targets, np.ones((len(rows), 1))], 1).astype(np.float64)
