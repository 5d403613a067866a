"""Paths of every file under a home: features, their records, runs. No other file builds them."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from urllib.parse import quote

from cache.errors import MmfuseError

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST = 120  # of a path part: file systems take 255 bytes, endings and numbers included
_PART = re.compile(r"[A-Za-z0-9%~_][A-Za-z0-9%~._-]*")  # what `path_part` returns
_LONGEST_PART = 200
_MODALITY = re.compile(r"(?!%[0-9A-Fa-f]{2})[^/,=:@\\.-](?:(?!%[0-9A-Fa-f]{2})[^/,=:@\\])*")


def check_name(what: str, name: str) -> str:
    """The name itself, if every part between slashes is safe as a path part on any system.

    Raises:
        MmfuseError: for empty parts, `..`, spaces or separators, and for parts that are too long.
    """
    if any(len(part) > _LONGEST for part in name.split("/")):
        raise MmfuseError(f"{what} {name[:40]!r}… is too long: at most {_LONGEST} letters")
    if not all(_WORD.fullmatch(part) for part in name.split("/")):
        raise MmfuseError(f"{what} {name!r} must be letters, digits, '.', '_' and '-' only")
    return name


def check_modality_name(name: str) -> str:
    r"""The name itself, if it can name a modality: any letters and signs but `/ , = : @ \`.

    Raises:
        MmfuseError: for those, control characters, blanks at an end, a dot or a dash in front, and
            for more than 120 letters.
    """
    if len(name) > _LONGEST:
        raise MmfuseError(f"modality {name[:40]!r}… is too long: at most {_LONGEST} letters")
    if not _MODALITY.fullmatch(name) or name != name.strip() or not name.isprintable():
        raise MmfuseError(
            f"a modality cannot be called {name!r}: no / , = : @ \\, no control characters, no "
            f"blanks at its ends, no dot or dash in front"
        )
    return name


def path_part(name: str) -> str:
    """A modality's name as a part of a path: itself where it is safe, else percent-encoded.

    Names too long for a file system end in a digest. What this returns, it returns unchanged.
    """
    if _PART.fullmatch(name) and len(name) <= _LONGEST_PART:
        return name
    part = quote(name, safe="")
    if len(part) <= _LONGEST_PART:
        return part
    return (
        f"{part[: _LONGEST_PART - 17]}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    )


@dataclass(frozen=True, init=False)
class Home:
    """A folder of artifacts: $MMFUSE_HOME, --home DIR, or ./artifacts.

    Args:
        root: its path.
    """

    root: Path

    def __init__(self, root: str | PathLike[str] = "artifacts") -> None:
        object.__setattr__(self, "root", Path(root))

    @classmethod
    def of(cls, home: "Home | str | PathLike[str] | None") -> "Home":
        """The home that a path means; ./artifacts for None."""
        if home is None:
            return cls()
        return home if isinstance(home, Home) else cls(home)

    def features(self, dataset: str) -> Path:
        """The Zarr group of a dataset's streams; Zarr nodes only."""
        return self.root / "features" / f"{check_name('dataset', dataset)}.zarr"

    def meta(self, dataset: str) -> Path:
        """Everything beside the Zarr group: snapshots, commits, leases, journal, failures."""
        return self.root / "features" / f"{check_name('dataset', dataset)}.meta"

    def digests(self, dataset: str) -> Path:
        """Remembered digests of a dataset's files, as parquet."""
        return self.meta(dataset) / "digests.parquet"

    @property
    def ceilings(self) -> Path:
        """Largest batch cost that fitted into memory, by encoder and device, as JSON."""
        return self.root / "features" / "ceilings.json"

    def datasets(self) -> list[str]:
        """Names of the datasets that have a store here, sorted."""
        top = self.root / "features"
        return sorted({p.relative_to(top).with_suffix("").as_posix() for p in _stores(top)})

    @property
    def weights(self) -> Path:
        """Remembered digests of weights files, and probe vectors, as JSON."""
        return self.root / "features" / "weights.json"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def deleted_runs(self) -> Path:
        """Folders of deleted runs, until garbage collection removes them."""
        return self.runs / ".deleted"


def _stores(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.endswith(".zarr"):
            yield path
        elif path.name.endswith(".meta"):
            if (path / "store.json").exists():  # so that `verify` reports a deleted group
                yield path
        elif path.is_dir():
            yield from _stores(path)


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of a dataset's store: its Zarr group, and its records beside it."""

    zarr: Path
    meta: Path

    @classmethod
    def of(cls, home: Home, dataset: str) -> "DatasetPaths":
        """The paths of a dataset's store."""
        return cls(home.features(dataset), home.meta(dataset))

    @property
    def store(self) -> Path:
        """The store's record, with its schema version."""
        return self.meta / "store.json"

    @property
    def origin(self) -> Path:
        """The source of the rows, where that is the user's own data."""
        return self.meta / "origin.json"

    @property
    def scratch(self) -> Path:
        """Temporary files before their rename; those of killed processes are removed later."""
        return self.meta / "scratch"

    @property
    def snapshots(self) -> Path:
        """Snapshots of the samples: <id>.parquet and <id>.json."""
        return self.meta / "snapshots"

    @property
    def baselines(self) -> Path:
        """Linear models that were fitted on features, as JSON."""
        return self.meta / "baselines"

    @property
    def streams(self) -> Path:
        """One folder an encoder, one a modality below it."""
        return self.meta / "streams"

    def stream(self, label: str) -> "StreamPaths":
        """The paths of the stream `clip-1a2b3c4d/image`."""
        encoder, _, modality = label.partition("/")
        return StreamPaths(self, f"{encoder}/{path_part(modality)}")


@dataclass(frozen=True)
class StreamPaths:
    """Paths of one stream, generation by generation.

    Attributes:
        dataset: paths of the dataset's store.
        label: `clip-1a2b3c4d/image`, the modality as `path_part` writes it.
    """

    dataset: DatasetPaths
    label: str

    @property
    def meta(self) -> Path:
        """Everything of the stream that is not Zarr."""
        return self.dataset.streams / self.label

    @property
    def current(self) -> Path:
        """The pointer: which generation and snapshot readers see."""
        return self.meta / "current.json"

    @property
    def latency(self) -> Path:
        """Seconds per new sample, measured when the stream was last extracted."""
        return self.meta / "latency.json"

    @property
    def report(self) -> Path:
        """Report of the last run that encoded any row: rows, failures, seconds, bottleneck."""
        return self.meta / "report.json"

    @property
    def fitted(self) -> Path:
        """State that a fitted encoder learned from the training rows."""
        return self.meta / "fitted.json"

    def generations(self) -> list[int]:
        """Numbers of the generations that have a folder, sorted."""
        if not self.meta.is_dir():
            return []
        return sorted(int(p.name) for p in self.meta.iterdir() if p.name.isdecimal())

    def generation(self, number: int) -> "GenerationPaths":
        """The paths of one generation."""
        return GenerationPaths(self, number)


@dataclass(frozen=True)
class GenerationPaths:
    """Paths of one generation of a stream."""

    stream: StreamPaths
    number: int

    @property
    def group(self) -> Path:
        """The Zarr group: `clip-1a2b3c4d/image`, later generations `…/image@2`."""
        suffix = "" if self.number == 1 else f"@{self.number}"
        return self.stream.dataset.zarr / f"{self.stream.label}{suffix}"

    @property
    def meta(self) -> Path:
        """Everything of the generation that is not Zarr."""
        return self.stream.meta / str(self.number)

    @property
    def record(self) -> Path:
        """The generation's record; immutable."""
        return self.meta / "stream.json"

    @property
    def nodes(self) -> Path:
        """Digests of the Zarr metadata that the generation needs."""
        return self.meta / "nodes.json"

    @property
    def commits(self) -> Path:
        """One immutable object per finished shard."""
        return self.meta / "commits"

    @property
    def claims(self) -> Path:
        """Leases: which process writes which shard."""
        return self.meta / "claims"

    @property
    def journal(self) -> Path:
        """Rows that were encoded but not committed yet."""
        return self.meta / "journal"

    @property
    def seal(self) -> Path:
        """Of a sequence stream: the digests of its assembled arrays."""
        return self.meta / "seal.json"

    @property
    def seal_copy(self) -> Path:
        """A copy of the seal, so that one damaged bit cannot lose a whole stream."""
        return self.meta / "seal.copy.json"

    @property
    def parts(self) -> Path:
        """Of a sequence stream: the frames of each shard, until they are assembled."""
        return self.meta / "parts"

    def commit(self, shard: int) -> Path:
        """The commit object of a shard."""
        return self.commits / f"{shard:05d}.json"

    def part(self, shard: int) -> Path:
        """The frames of a shard."""
        return self.parts / f"{shard:05d}.npz"

    def object(self, name: str, shard: int) -> Path:
        """An object that a commit names: values, present, state, inputs, part or failures."""
        if name == "part":
            return self.part(shard)
        return self.failures(shard) if name == "failures" else self.block(name, shard)

    def failures(self, shard: int | None = None) -> Path:
        """The failures of one shard, or of the whole stream."""
        if shard is None:
            return self.meta / "failures.parquet"
        return self.meta / "failures" / f"{shard:05d}.parquet"

    def block(self, array: str, number: int) -> Path:
        """The object of an array's shard (values: two axes) or chunk, by Zarr's default keys."""
        key = f"c/{number}/0" if array in {"values", "inputs"} else f"c/{number}"
        return self.group / array / key
