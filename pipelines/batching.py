"""Batch: what a head is given, some rows of every stream with what is present of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some rows of every stream, on the device; checked where it is made, then trusted.

    Attributes:
        features: by stream, (B, D), or (B, T, D) for a sequence stream; what is behind
            `present` or `frame_present` False is undefined and may be NaN.
        present: (B, M) bool, columns in the order of `features`.
        frame_present: by sequence stream, (B, T) bool.
        targets: (B,) int64 classes, (B, C) float labels, or (B,) float values in units of the
            train rows (mean 0, standard deviation 1).
        rows: (B,) int64 row numbers of the dataset.
        numbers: () int64 key of this replica and step; see `pipelines.numbers`.
    """

    features: Mapping[str, Tensor]
    present: Tensor
    frame_present: Mapping[str, Tensor]
    targets: Tensor
    rows: Tensor
    numbers: Tensor
