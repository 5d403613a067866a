"""Hide features: apply a MissingPattern to a table; modality dropout in a training step."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from pipelines import counter_rng
from pipelines.features.missing import MissingPattern, Protocol
from pipelines.features.table import FeatureTable


@dataclass(frozen=True)
class HiddenTable:
    """A table with a missing pattern applied.

    Attributes:
        table: with fewer cells present.
        before: (N, K) bool, modalities that were present before.
        pattern: what was hidden.
        frames: of every stream whose frames were hidden, (N, T) bool before and after.
    """

    table: FeatureTable
    before: Tensor
    pattern: MissingPattern
    frames: tuple[tuple[Tensor, Tensor], ...] = ()

    def realised(self, split: str | None = None) -> float:
        """Realised missing rate: share of the present cells (of a split) that are hidden.

        For a pattern that hides frames alone, share of the present frames.
        """
        rows = slice(None) if split is None else self.table.split(split)
        after = by_modality(self.table.present, self.table.owners)
        pairs = self.frames or ((self.before, self.before & after),)
        there = sum(int(before[rows].sum()) for before, _ in pairs)
        return 1 - sum(int(left[rows].sum()) for _, left in pairs) / there if there else 0.0

    def remarks(self, split: str | None = None) -> tuple[str, ...]:
        """Notes on the realised rate (in a split): of frames, or where it is below the share."""
        realised, where = self.realised(split), f"{split or 'all'} rows"
        if self.frames:
            return (
                f"{self.pattern.label} hides {realised:.3f} of the frames of {where}: "
                "a sample's last frame stays",
            )
        if self.pattern.share - realised <= 0.005 or self.pattern.hidden:
            return ()
        return (
            f"missing rate {self.pattern.share:g} hides {realised:.3f} of the cells of {where}: "
            "a sample's last modality stays",
        )


def hide(table: FeatureTable, pattern: MissingPattern) -> HiddenTable:
    """Apply a missing pattern; the pattern is checked where it is made."""
    before = by_modality(table.present, table.owners)  # (N, K)
    keep = torch.ones_like(before)
    for name in pattern.hidden:
        keep[:, table.distinct.index(name)] = False
    if pattern.share:
        u = hashed_uniform(list(table.samples.ids), table.distinct, pattern.seed)
        there = (before & keep).cpu()  # where the numbers are: not every device has doubles
        keep &= _chosen(u, there, pattern.share, pattern.protocol).to(keep.device)
    hidden = replace(table, present=table.present & _by_stream(keep, table.owners))
    for name, share in pattern.frames:
        hidden = _fewer_frames(hidden, name, share, pattern.seed)
    if pattern.hidden or pattern.share:
        return HiddenTable(hidden, before, pattern)
    named = {name for name, share in pattern.frames if share}
    pairs = zip(table.features, table.modalities, strict=True)
    thinned = [name for name, owner in pairs if owner in named and name in table.frame_present]
    frames = tuple((table.frame_present[name], hidden.frame_present[name]) for name in thinned)
    return HiddenTable(hidden, before, pattern, frames)


def hashed_uniform(ids: Sequence[object], places: Sequence[str], seed: int) -> Tensor:
    """Uniform random numbers u(sample id, place, seed) in [0, 1), float64 (N, K), by hashing."""
    digests = [hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids]
    base = torch.from_numpy(np.frombuffer(b"".join(digests), np.int64).copy())  # (N,)
    columns = [counter_rng.key(base, seed, zlib.crc32(place.encode())) for place in places]
    # `key` has 63 random bits; a double holds 53.
    return torch.stack([(c >> 10).double() * 2.0**-53 for c in columns], 1)


def by_modality(present: Tensor, owners: Sequence[int]) -> Tensor:
    """(…, M) streams → (…, K) modalities: present where any stream of the modality is."""
    # Columns are taken one by one: a list as index would be copied to the device in every step.
    groups = [[m for m, o in enumerate(owners) if o == k] for k in range(max(owners) + 1)]
    columns = [[present[..., m] for m in group] for group in groups]
    return torch.stack([reduce(torch.logical_or, group) for group in columns], -1)


def _by_stream(kept: Tensor, owners: Sequence[int]) -> Tensor:
    """(…, K) modalities → (…, M) streams."""
    return torch.stack([kept[..., owner] for owner in owners], -1)


def keep_one_present(u: Tensor, present: Tensor, share: Tensor | float) -> Tensor:
    """Cells that stay when those with u < share are hidden, but never a row's last present one.

    The last one is the present cell with the largest u, the same at every share, so patterns
    nest: what stays at a larger share also stays at a smaller one.

    Args:
        u: (N, K) in [0, 1).
        present: (N, K) bool; an absent cell is never the one that stays.
        share: probability of hiding, a float or ().
    """
    largest = torch.where(present, u, -1.0).argmax(-1, keepdim=True)  # (N, 1)
    last = torch.arange(u.shape[-1], device=u.device) == largest
    return (u >= share) | last


def drop_modalities(present: Tensor, owners: Sequence[int], share: Tensor, key: Tensor) -> Tensor:
    """Modality dropout of one training step, (B, M) → (B, M); never a sample's last modality.

    Args:
        present: (B, M).
        owners: modality number of each stream.
        share: () probability of hiding a modality.
        key: () random key of this replica and step.
    """
    there = by_modality(present, owners)
    u = counter_rng.uniform(key, "drop rate", there.shape)
    return present & _by_stream(keep_one_present(u, there, share), owners)


def _chosen(u: Tensor, present: Tensor, share: float, protocol: Protocol) -> Tensor:
    if protocol == "bernoulli":
        return u >= share
    if protocol == "bernoulli_guard":
        return keep_one_present(u, present, share)
    others = present & ~keep_one_present(u, present, 1.0)  # all but one per row
    wanted = min(round(int(present.sum()) * share), int(others.sum()))
    order = torch.where(others, u, 2.0).flatten().argsort(stable=True)
    gone = torch.zeros(u.numel(), dtype=torch.bool, device=u.device)
    gone[order[:wanted]] = True
    return ~gone.view_as(u)


def _fewer_frames(table: FeatureTable, modality: str, share: float, seed: int) -> FeatureTable:
    frames: dict[str, Tensor] = dict(table.frame_present)
    for name, owner in zip(table.features, table.modalities, strict=True):
        if owner == modality and name in frames:
            there = frames[name]
            places = [f"{modality} frame {t}" for t in range(there.shape[1])]
            u = hashed_uniform(list(table.samples.ids), places, seed)
            frames[name] = there & keep_one_present(u, there.cpu(), share).to(there.device)
    return replace(table, frame_present=frames)
