"""MissingPattern: which modalities or frames are hidden, by name or by chance."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cache.errors import MmfuseError, unknown
from pipelines import numbers
from pipelines.batching import FeatureTable

Protocol = Literal["bernoulli_guard", "bernoulli", "cpm_exact"]
PROTOCOLS: tuple[Protocol, ...] = ("bernoulli_guard", "bernoulli", "cpm_exact")


@dataclass(frozen=True)
class MissingPattern:
    """What is hidden of a table, the same for every method, metric and batch size.

    By name every stream of a modality is hidden, a sample's last one too. By chance a cell
    (sample, modality) is hidden where u(sample id, modality, seed) < share, so patterns nest
    across shares, and a sample's last modality always stays (`bernoulli_guard`).

    Attributes:
        hidden: modalities hidden by name.
        share: chance η of hiding a cell.
        seed: of the chance.
        protocol: `bernoulli` may take a sample's last modality; `cpm_exact` hides an exact
            number of cells and keeps one a sample.
        frames: (modality, chance) for frames of its sequence streams; a row's last frame stays.
    """

    hidden: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    protocol: Protocol = "bernoulli_guard"
    frames: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Check chances and the protocol's name."""
        for chance in (self.share, *(c for _, c in self.frames)):
            if not 0 <= chance <= 1:
                raise MmfuseError(f"a missing rate is a chance from 0 to 1, not {chance}")
        if self.protocol not in PROTOCOLS:
            raise unknown("missing protocol", self.protocol, PROTOCOLS)

    @classmethod
    def complete(cls) -> "MissingPattern":
        """Nothing hidden beyond what is truly absent."""
        return cls()

    @classmethod
    def named(cls, *modalities: str) -> "MissingPattern":
        """Every stream of these modalities hidden, in every sample."""
        return cls(hidden=tuple(sorted(set(modalities))))

    @classmethod
    def rate(
        cls, share: float, seed: int = 0, protocol: Protocol = "bernoulli_guard"
    ) -> "MissingPattern":
        """Each cell hidden with a chance."""
        return cls(share=share, seed=seed, protocol=protocol)

    @classmethod
    def of_frames(cls, modality: str, share: float, seed: int = 0) -> "MissingPattern":
        """Each frame of a modality's sequences hidden with a chance."""
        return cls(frames=((modality, share),), seed=seed)

    @classmethod
    def every(
        cls, modalities: Sequence[str], *, most: int = 1024, seed: int = 0
    ) -> list["MissingPattern"]:
        """One pattern for every non-empty set of modalities that stays, the complete one first.

        Above 10 modalities: the complete one, each alone, each hidden, and sampled sets, `most`
        in all.
        """
        names = sorted(set(modalities))
        if len(names) <= 10:
            sizes = range(len(names))
            return [cls.named(*gone) for size in sizes for gone in combinations(names, size)]
        sets = [(), *((n,) for n in names), *(tuple(m for m in names if m != n) for n in names)]
        found = dict.fromkeys(frozenset(gone) for gone in sets)
        generator = np.random.default_rng(seed)
        while len(found) < most:
            gone = generator.random(len(names)) < generator.random()
            if not gone.all():
                found.setdefault(frozenset(np.array(names)[gone].tolist()))
        return [cls.named(*gone) for gone in list(found)[:most]]

    @property
    def label(self) -> str:
        """What tables and files call it, such as `without audio` or `rate 0.3`."""
        parts = [f"without {'+'.join(self.hidden)}"] if self.hidden else []
        if self.share:
            parts.append(f"rate {self.share:g}")
            parts += [self.protocol] if self.protocol != "bernoulli_guard" else []
        parts += [f"frames {name}={share:g}" for name, share in self.frames if share]
        parts += [f"seed {self.seed}"] if self.seed and (self.share or self.frames) else []
        return ", ".join(parts) or "complete"

    def check(self, table: FeatureTable) -> None:
        """Raise MmfuseError for a modality that the table does not have, naming what it has."""
        named = [*self.hidden, *(name for name, _ in self.frames)]
        for name in named:
            if name not in table.distinct:
                have = ", ".join(table.distinct)
                raise MmfuseError(f"no modality {name!r} among the features; there is: {have}")
        if set(self.hidden) >= set(table.distinct):
            raise MmfuseError("every modality is hidden; leave at least one")
        for name, _ in self.frames:
            streams = zip(table.features, table.modalities, strict=True)
            if not any(m == name and n in table.frame_present for n, m in streams):
                message = f"{name} has no frames to hide; extract it with --sequence"
                raise MmfuseError(message)

    def apply(self, table: FeatureTable) -> "Hidden":
        """The table with less present.

        Raises:
            MmfuseError: for a modality the table does not have.
        """
        self.check(table)
        before = by_modality(table.present, table.owners)  # (N, K)
        keep = torch.ones_like(before)
        for name in self.hidden:
            keep[:, table.distinct.index(name)] = False
        if self.share:
            u = chances(list(table.samples.ids), table.distinct, self.seed).to(table.device)
            keep &= _chosen(u, before & keep, self.share, self.protocol)
        after = before & keep
        cells = int(before.sum())
        realised = 1 - int(after.sum()) / cells if cells else 0.0
        notes: tuple[str, ...] = ()
        if self.share - realised > 0.005 and not self.hidden:
            stays = "a sample's last modality stays"
            notes = (f"missing rate {self.share:g} hides {realised:.3f} of the cells: {stays}",)
        less = replace(table, present=table.present & keep[:, list(table.owners)])
        for name, share in self.frames:
            less = _fewer_frames(less, name, share, self.seed)
        return Hidden(less, realised, notes)


@dataclass(frozen=True)
class Hidden:
    """A table after hiding, the share of its present cells that was hidden, and remarks."""

    table: FeatureTable
    realised: float
    notes: tuple[str, ...] = ()


def chances(ids: Sequence[object], places: Sequence[str], seed: int) -> Tensor:
    """u(sample id, place, seed) in [0, 1), float64 (N, K): a function of its words alone."""
    prints = [hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids]
    base = torch.from_numpy(np.frombuffer(b"".join(prints), np.int64).copy())  # (N,)
    columns = [numbers.key(base, seed, zlib.crc32(place.encode())) for place in places]
    # `key` has 63 random bits; a double holds 53.
    return torch.stack([(c >> 10).double() * 2.0**-53 for c in columns], 1)


def by_modality(present: Tensor, owners: Sequence[int]) -> Tensor:
    """(…, M) streams → (…, K) modalities: present where any of its streams is."""
    groups = [[m for m, o in enumerate(owners) if o == k] for k in range(max(owners) + 1)]
    return torch.stack([present[..., group].any(-1) for group in groups], -1)


def guarded(u: Tensor, present: Tensor, share: Tensor | float) -> Tensor:
    """What stays when cells with u < share are hidden, but never a row's last present one.

    The last one is the present cell of the largest u, the same at every share, so what stays at
    a larger share also stays at a smaller one.

    Args:
        u: (N, K) in [0, 1).
        present: (N, K) bool; what is absent is never the one that stays.
        share: chance, a number or ().
    """
    largest = torch.where(present, u, -1.0).argmax(-1, keepdim=True)  # (N, 1)
    last = torch.arange(u.shape[-1], device=u.device) == largest
    return (u >= share) | last


def drop(present: Tensor, owners: Sequence[int], share: Tensor, key: Tensor) -> Tensor:
    """Fresh augmentation of one step: (B, M) present → (B, M), never a sample's last modality.

    Args:
        present: (B, M).
        owners: modality number of each stream.
        share: () chance.
        key: () of this replica and step.
    """
    there = by_modality(present, owners)
    u = numbers.uniform(key, "drop rate", there.shape)
    return present & guarded(u, there, share)[:, list(owners)]


def _chosen(u: Tensor, present: Tensor, share: float, protocol: Protocol) -> Tensor:
    if protocol == "bernoulli":
        return u >= share
    if protocol == "bernoulli_guard":
        return guarded(u, present, share)
    others = present & ~guarded(u, present, 1.0)  # all but one a row
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
            u = chances(list(table.samples.ids), places, seed).to(table.device)
            frames[name] = there & guarded(u, there, share)
    return replace(table, frame_present=frames)
