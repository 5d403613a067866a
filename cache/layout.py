"""The only file that knows paths: where features, their records and runs live under one home."""

import re
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmfuseError

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(what: str, name: str) -> str:
    """The name itself, if every part between slashes is safe as a path part on any system.

    Raises:
        MmfuseError: for empty parts, `..`, spaces or separators.
    """
    if not all(_WORD.fullmatch(part) for part in name.split("/")):
        raise MmfuseError(f"{what} {name!r} must be letters, digits, '.', '_' and '-' only")
    return name


@dataclass(frozen=True)
class Home:
    """A folder of artifacts: $MMFUSE_HOME, --home DIR, or ./artifacts."""

    root: Path

    def features(self, dataset: str) -> Path:
        """The Zarr group of a dataset's streams; Zarr nodes only."""
        return self.root / "features" / f"{check_name('dataset', dataset)}.zarr"

    def meta(self, dataset: str) -> Path:
        """What is kept beside the Zarr group: snapshots, commits, claims, journal, failures."""
        return self.root / "features" / f"{check_name('dataset', dataset)}.meta"

    def digests(self, dataset: str) -> Path:
        """The memory of the digests of a dataset's files."""
        return self.meta(dataset) / "digests.parquet"

    @property
    def ceilings(self) -> Path:
        """Batch sizes that fitted into memory, an encoder and a device each, as JSON."""
        return self.root / "features" / "ceilings.json"

    def datasets(self) -> list[str]:
        """Names of the datasets that have a store here, sorted."""
        top = self.root / "features"
        found = (p.relative_to(top).as_posix() for p in top.rglob("*.zarr") if p.is_dir())
        return sorted(name.removesuffix(".zarr") for name in found)

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def last(self) -> Path:
        """What the last successful commands named, as JSON."""
        return self.root / "last.json"
