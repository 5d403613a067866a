"""MissingPattern: which modalities or frames are hidden, by name or at random."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from cache.errors import MmfuseError, unknown

Protocol = Literal["bernoulli_guard", "bernoulli", "cpm_exact"]
PROTOCOLS: tuple[Protocol, ...] = ("bernoulli_guard", "bernoulli", "cpm_exact")


@dataclass(frozen=True)
class MissingPattern:
    """Modalities and frames to hide, the same for every method, metric and batch size.

    By name every stream of a modality is hidden, a sample's last one too. At random a cell
    (sample, modality) is hidden where u(sample id, modality, seed) < share, so patterns nest
    across shares, and a sample's last modality always stays (`bernoulli_guard`).

    Attributes:
        hidden: modalities hidden by name.
        share: missing rate η, the probability of hiding a cell.
        seed: random seed.
        protocol: `bernoulli` may hide a sample's last modality; `cpm_exact` hides an exact
            number of cells and leaves one per sample.
        frames: (modality, probability) for frames of its sequence streams; a row's last stays.
    """

    hidden: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    protocol: Protocol = "bernoulli_guard"
    frames: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Check probabilities and the protocol's name."""
        for rate in (self.share, *(share for _, share in self.frames)):
            if not 0 <= rate <= 1:
                raise MmfuseError(f"a missing rate is a probability from 0 to 1, not {rate}")
        if self.protocol not in PROTOCOLS:
            raise unknown("missing protocol", self.protocol, PROTOCOLS)

    @classmethod
    def parse(cls, word: str, modalities: Sequence[str]) -> list["MissingPattern"]:
        """Checked patterns of a `--missing` word: `audio`, `audio,text` together, or `all`.

        Args:
            word: names of modalities; `all` means `every` pattern of them.
            modalities: that have features.

        Raises:
            MmfuseError: as `check`, or for `all` beside names.
        """
        names = word.split(",")
        if names == ["all"]:
            return cls.every(modalities)
        if "all" in names:
            raise MmfuseError(f"--missing {word}: all stands alone; it hides each set in turn")
        pattern = cls.named(*names)
        pattern.check(modalities)
        return [pattern]

    @classmethod
    def named(cls, *modalities: str) -> "MissingPattern":
        """Hide every stream of these modalities, in every sample."""
        return cls(hidden=tuple(sorted(set(modalities))))

    @classmethod
    def rate(
        cls, share: float, seed: int = 0, protocol: Protocol = "bernoulli_guard"
    ) -> "MissingPattern":
        """Hide each cell with a probability."""
        return cls(share=share, seed=seed, protocol=protocol)

    @classmethod
    def of_frames(cls, modality: str, share: float, seed: int = 0) -> "MissingPattern":
        """Hide each frame of a modality's sequences with a probability."""
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
        """Name in tables and files, such as `without audio` or `rate 0.3`."""
        parts = [f"without {'+'.join(self.hidden)}"] if self.hidden else []
        if self.share:
            parts.append(f"rate {self.share:g}")
            parts += [self.protocol] if self.protocol != "bernoulli_guard" else []
        parts += [f"frames {name}={share:g}" for name, share in self.frames if share]
        parts += [f"seed {self.seed}"] if self.seed and (self.share or self.frames) else []
        return ", ".join(parts) or "complete"

    def check(self, modalities: Sequence[str], sequences: Collection[str] = ()) -> None:
        """Check that the pattern can be applied to data with these modalities.

        Args:
            modalities: that have features.
            sequences: those of them with frames.

        Raises:
            MmfuseError: for an unknown modality, naming what there is; if nothing would be left;
                for frames of a pooled modality.
        """
        for name in [*self.hidden, *(name for name, _ in self.frames)]:
            if name not in modalities:
                have = ", ".join(modalities)
                raise MmfuseError(f"no modality {name!r} among the features; there is: {have}")
        if set(self.hidden) >= set(modalities):
            raise MmfuseError(f"{self.label} leaves nothing; keep at least one modality")
        for name, _ in self.frames:
            if name not in sequences:
                raise MmfuseError(f"{name} has no frames to hide; extract it with --sequence")
