"""Folding: cross-validation splits that keep groups together and classes balanced."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Samples


def fold_of(samples: Samples, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """(N,) which fold each row is in; rows in no split are in fold -1.

    Groups are dealt out whole, the largest first, each to the fold where it leaves the classes
    (or labels, or quarters of a value) most even; equals are ordered by the seed.

    Args:
        samples: the rows; without groups each row is one of its own.
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


def folded(samples: Samples, folds: int, fold: int, seed: int = 0) -> Samples:
    """The same rows with fold `fold` as test, the next one as val, and the others as train.

    Raises:
        MmfuseError: for a fold that there is not, and as `fold_of`.
    """
    if not 0 <= fold < folds:
        raise MmfuseError(f"there are folds 0 to {folds - 1}, not {fold}")
    where = fold_of(samples, folds, seed)
    splits = np.full(len(samples), "train", object)
    splits[where == fold] = "test"
    splits[where == (fold + 1) % folds] = "val"
    splits[where < 0] = ""
    return replace(samples, splits=splits)


def _columns(samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, C + 1) what is to be even between folds: classes, and the number of rows."""
    targets: NDArray[Any] = samples.targets[rows]
    if samples.task.kind == "value":
        targets = np.searchsorted(np.quantile(targets, [0.25, 0.5, 0.75]), targets)
    if samples.task.kind != "labels":
        targets = np.eye(int(targets.max()) + 1)[targets.astype(np.int64)]
    return np.concatenate([targets, np.ones((len(rows), 1))], 1).astype(np.float64)
