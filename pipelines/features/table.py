"""FeatureTable and Batch: cached features as tensors on the device, and mini-batches of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.samples import Samples


@dataclass(frozen=True)
class Batch:
    """A mini-batch: some rows of every stream, on the device; checked where it is made.

    Attributes:
        features: by stream, (B, D), or (B, T, D) for a sequence stream; what is behind
            `present` or `frame_present` False is undefined and may be NaN.
        present: (B, M) bool, columns in the order of `features`.
        frame_present: by sequence stream, (B, T) bool.
        targets: (B,) int64 classes, (B, C) float labels, or (B,) float values in units of the
            train rows (mean 0, standard deviation 1).
        rows: (B,) int64 row numbers of the dataset.
        numbers: () int64 random key of this replica and step; see `pipelines.counter_rng`.
    """

    features: Mapping[str, Tensor]
    present: Tensor
    frame_present: Mapping[str, Tensor]
    targets: Tensor
    rows: Tensor
    numbers: Tensor

    def only(self, names: Sequence[str]) -> "Batch":
        """The same rows with these streams, in this order."""
        order = list(self.features)
        return replace(
            self,
            features={name: self.features[name] for name in names},
            present=self.present[:, [order.index(name) for name in names]],
            frame_present={n: f for n, f in self.frame_present.items() if n in names},
        )


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation that standardise `value` targets, and scale outputs back."""

    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class FeatureTable:
    """Features of every stream of a dataset, row for row, with targets and splits.

    Attributes:
        features: by stream in order, (N, D) or (N, T, D), float32 or as stored in float16.
        frame_present: by sequence stream, (N, T) bool.
        present: (N, M) bool.
        modalities: (M) the modality of each stream, in order.
        samples: ids, splits, targets and task of the N rows.
        rows: (N,) int64 row numbers in the dataset.
        scale: of `value` targets.
    """

    features: Mapping[str, Tensor]
    frame_present: Mapping[str, Tensor]
    present: Tensor
    modalities: tuple[str, ...]
    samples: Samples
    rows: Tensor
    scale: Scale = Scale()

    def __len__(self) -> int:
        return len(self.present)

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.present.device

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """For each stream, the index of its modality in `distinct`."""
        return tuple(self.distinct.index(m) for m in self.modalities)

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Modalities that have a stream, in order of first appearance."""
        return tuple(dict.fromkeys(self.modalities))

    @cached_property
    def targets(self) -> Tensor:
        """Targets on the device, as in `Batch`."""
        if self.samples.task.kind == "value":
            scaled = (self.samples.targets - self.scale.mean) / self.scale.deviation
            return torch.as_tensor(scaled, dtype=torch.float32, device=self.device)
        return torch.as_tensor(self.samples.targets, device=self.device)

    @cached_property
    def complete(self) -> Tensor:
        """(N,) bool, which rows have every stream, and of sequences at least one frame."""
        there = self.present.all(1)
        for frames in self.frame_present.values():
            there = there & frames.any(1)
        return there

    def split(self, name: str) -> NDArray[np.int64]:
        """Positions of the rows of a split."""
        return np.flatnonzero(self.samples.splits == name)

    def take(self, index: NDArray[np.int64]) -> "FeatureTable":
        """These rows only: a copy, or a view where they follow each other."""
        if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
            return self.window(int(index[0]), int(index[-1]) + 1)
        at = torch.as_tensor(index, device=self.device)
        return replace(
            self,
            features={n: x.index_select(0, at) for n, x in self.features.items()},
            frame_present={n: x.index_select(0, at) for n, x in self.frame_present.items()},
            present=self.present.index_select(0, at),
            samples=self.samples.take(index),
            rows=self.rows.index_select(0, at),
        )

    def window(self, start: int, stop: int) -> "FeatureTable":
        """A view of the rows from start to stop; features are not copied."""
        index = np.arange(start, stop)
        return replace(
            self,
            features={n: x[start:stop] for n, x in self.features.items()},
            frame_present={n: x[start:stop] for n, x in self.frame_present.items()},
            present=self.present[start:stop],
            samples=self.samples.take(index),
            rows=self.rows[start:stop],
        )


def shuffled_batches(order: Tensor, complete: Tensor, size: int, least: int) -> list[Tensor]:
    """Shuffled mini-batches of an epoch, (R, B) positions each, every row at least once.

    With `least`, complete rows are spread evenly over the batches, and a batch whose share of them
    is smaller is filled up with others of them, which then come more than once per epoch. Its
    number of complete rows is the same in every replica, and no row is twice in a batch.

    Args:
        order: (R, N) every position once, each replica in its own order.
        complete: by position (P,) bool, which rows are complete.
        size: rows of a batch before it is filled up.
        least: complete rows that a batch has, or all there are; 0 = leave the order as it is.
    """
    parts = batch_bounds(order.shape[1], size)
    if not least:
        return [order[:, start:stop] for start, stop in parts]
    count, whole = order.shape[1], int(complete[order[0]].sum())
    first = order.gather(1, torch.argsort((~complete[order]).to(torch.uint8), stable=True))
    complete_rows, others = first[:, :whole], first[:, whole:]
    batches = []
    for start, stop in parts:
        begin, end = whole * start // count, whole * stop // count
        taken = max(end - begin, min(least, whole))
        chosen = [(begin + i) % whole for i in range(taken)]
        rest = others[:, start - begin : stop - end]
        batches.append(torch.cat([complete_rows[:, chosen], rest], 1))
    return batches


def gather(table: FeatureTable, index: Tensor, numbers: Tensor) -> Batch:
    """Gather R mini-batches: every field of the Batch has a leading axis R.

    Args:
        table: all rows.
        index: (R, B) int64 positions in the table.
        numbers: (R,) random keys.
    """
    flat, shape = index.flatten(), index.shape

    def take(x: Tensor) -> Tensor:
        return x.index_select(0, flat).view(*shape, *x.shape[1:])

    return Batch(
        features={n: at_least_single(take(x)) for n, x in table.features.items()},
        present=take(table.present),
        frame_present={n: take(x) for n, x in table.frame_present.items()},
        targets=take(table.targets),
        rows=take(table.rows),
        numbers=numbers,
    )


def at_least_single(values: Tensor) -> Tensor:
    """The values in float32 where they are stored in half precision; exact."""
    return values.float() if values.dtype == torch.float16 else values


def batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Start and end of each batch of an epoch; a trailing batch of one joins its predecessor."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))
