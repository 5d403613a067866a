"""Ranges: what numbers of a plan, and options that mean the same in every method, may be."""

import math
from collections.abc import Callable

from cache.errors import MmfuseError

Fits = Callable[[float], bool]
Range = tuple[str, Fits]  # NaN fits none of them

COUNT: Range = ("at least 1", lambda value: value >= 1)
NONE_OR_MORE: Range = ("at least 0", lambda value: 0 <= value < math.inf)
POSITIVE: Range = ("above 0", lambda value: 0 < value < math.inf)
CHANCE: Range = ("from 0 to below 1", lambda value: 0 <= value < 1)

PLAN: dict[str, Range] = {
    "epochs": COUNT,
    "batch_size": COUNT,
    "learning_rate": POSITIVE,
    "weight_decay": NONE_OR_MORE,
    "momentum": CHANCE,
    "clip": ("above 0, or none", lambda value: value > 0),
    "plateau_patience": NONE_OR_MORE,
    "plateau_factor": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "step_every": COUNT,
    "patience": ("at least 1, or none", COUNT[1]),
    "min_delta": NONE_OR_MORE,
    "drop_rate": CHANCE,
    "missing_rate": CHANCE,
    "folds": (
        "0, or at least 3 (train, validation, test)",
        lambda value: value == 0 or value >= 3,
    ),
}
"""Of the fields of a plan."""

OPTIONS: dict[str, Range] = {
    "width": COUNT,
    "hidden": COUNT,
    "translator_hidden": COUNT,
    "heads": COUNT,
    "rank": COUNT,
    "hardest": COUNT,
    "layers": NONE_OR_MORE,
    "dropout": CHANCE,
    "layer_dropout": CHANCE,
    "temperature": POSITIVE,
    "align_learning_rate": POSITIVE,
    "align_batch_size": COUNT,
    "align_patience": COUNT,
    "complete_rows": NONE_OR_MORE,
}
"""Of the options of methods: a name here means the same wherever it is met."""


def check_range(name: str, value: object) -> None:
    """Refuse a number that a plan's field or a method's option cannot be; None and words pass.

    Raises:
        MmfuseError: naming it, what it may be, and what it is.
    """
    known = PLAN.get(name) or OPTIONS.get(name)
    if known is None or isinstance(value, bool) or not isinstance(value, int | float):
        return
    said, fits = known
    if not fits(value):
        raise MmfuseError(f"{name} must be {said}, not {value}")
