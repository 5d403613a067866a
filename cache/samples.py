"""Samples: ids, splits, targets and groups of a dataset's rows; modalities and the task."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "text", "audio", "video", "code", "tabular", "series", "layout"]
KINDS: tuple[Kind, ...] = (
    "image", "text", "audio", "video", "code", "tabular", "series", "layout",
)  # fmt: skip
SPLITS = ("train", "val", "test")
UNLABELLED = -1
"""Class number of a row without a target; it is in no split."""


@dataclass(frozen=True)
class Modality:
    """A named column of a dataset; its name is used on the command line and in paths."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Task:
    """The prediction task.

    `classes`: one of C, cross-entropy; `labels`: any of C, each on its own; `value`: one number.
    `names` are the class or label names in logit order; for `value`, the name of the target.
    """

    kind: Literal["classes", "labels", "value"]
    names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Width C of the logits; 1 for `value`."""
        return 1 if self.kind == "value" else len(self.names)


@dataclass(frozen=True)
class Samples:
    """The rows of a dataset as stage 2 sees them, in the dataset's order.

    Attributes:
        ids: (N,) unique strings, object dtype.
        splits: (N,) of `train`, `val`, `test` or "" (in no split), object dtype.
        targets: (N,) int64 class numbers, (N, C) float32 zeros and ones for `labels`,
            (N,) float64 for `value`. Rows without one are in no split, and have -1, zeros or NaN.
        groups: (N,) strings; rows of one group stay in one fold; or None.
        task: what is predicted.
        modalities: every modality of the dataset, encoded or not.
        source: `real` or `synthetic` data.
    """

    ids: NDArray[np.object_]
    splits: NDArray[np.object_]
    targets: NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]
    groups: NDArray[np.object_] | None
    task: Task
    modalities: tuple[Modality, ...]
    source: Literal["real", "synthetic"]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "Samples":
        """The samples of some rows, in that order."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(
            self,
            ids=self.ids[rows],
            splits=self.splits[rows],
            targets=self.targets[rows],
            groups=groups,
        )
