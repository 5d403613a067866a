"""Status of a stream: rows cached and left to encode, row counts, and why it is stale."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.feature_store import FeatureStore
from cache.format.digest_index import Digests, first_of_each, identity
from cache.format.generations import Generation, Shard, current_generation, read_generation
from cache.format.grid import Grid
from cache.format.streams import StreamInfo, StreamKey, StreamSpec
from cache.storage.objects import DamagedError
from cache.writing.journal import Failure, Journal, JournalEntry, Retry, is_retried
from cache.writing.reuse import (
    FailedBefore,
    KnownRows,
    failures_by_row,
    read_failures,
    related_generations,
)


@dataclass(frozen=True)
class Forecast:
    """How much of a stream is cached and how much is left to encode.

    Attributes:
        complete: whether readers see exactly these rows, with none pending.
        spec: of the stream as an earlier run recorded it, or None.
        known: rows whose vectors are in this home or in the journal; absent ones are not counted.
        failed: rows that failed before and are not retried.
        new: distinct inputs left to encode.
    """

    complete: bool
    spec: StreamSpec | None
    known: int
    failed: int
    new: int


def forecast(
    store: FeatureStore,
    key: StreamKey,
    spec: StreamSpec | None,
    inputs: Digests,
    absent: NDArray[np.bool_],
    *,
    retry_failed: Retry = False,
) -> Forecast:
    """What `store.writer` with the same arguments would find; nothing is written.

    Args:
        store: of the dataset.
        key: which stream.
        spec: what the encoder makes; None while a fitted encoder does not know its width, which is
            then taken from the stream if there is one.
        inputs: (N, 16) uint8 digests.
        absent: (N,) bool.
        retry_failed: whether what failed counts as new, or for which reasons.
    """
    name = identity(inputs, absent)
    own = _generations(store, key)
    same = [generation for generation in own if generation.identity == name]
    spec = own[0].spec if own else spec
    seen = current_generation(store.paths.stream(key.label))
    here = ~absent
    for generation in same:
        counts = _counts(generation)
        done = seen is not None and seen[0] == generation.number and generation.complete()
        if done and generation.described() and not _retried(generation, retry_failed):
            return Forecast(
                spec=generation.spec,
                complete=True,
                known=counts["ok"],
                failed=counts["failed"],
                new=0,
            )
    if spec is None:
        distinct = int((_leaders(inputs) & here).sum())
        return Forecast(complete=False, spec=None, known=0, failed=0, new=distinct)
    known = here & _known(store, key, spec, name, inputs)
    failures: list[tuple[int, Failure]] = []
    for generation in same:  # journalled by an interrupted run
        for entry in _journalled(generation):
            known[entry.rows] = True
            failures += entry.failures.items()
    unsettled = np.flatnonzero(here & ~known)
    before = FailedBefore(own).recall(inputs[unsettled])
    failures += [(int(unsettled[at]), failure) for at, failure in before.items()]
    failed = np.zeros(len(inputs), bool)
    failed[[row for row, failure in failures if not is_retried(failure, retry_failed)]] = True
    failed &= ~known
    new = here & ~known & ~failed & _leaders(inputs)
    return Forecast(
        complete=False,
        spec=own[0].spec if own else None,
        known=int(known.sum()),
        failed=int(failed.sum()),
        new=int(new.sum()),
    )


def _leaders(inputs: Digests) -> NDArray[np.bool_]:
    leaders: NDArray[np.bool_] = first_of_each(inputs) == np.arange(len(inputs))
    return leaders


def _generations(store: FeatureStore, key: StreamKey) -> list[Generation]:
    """The stream's generations, newest first, without damaged ones."""
    stream = store.paths.stream(key.label)
    found = []
    for number in reversed(stream.generations()):
        try:
            generation = read_generation(stream.generation(number))
        except DamagedError:
            continue
        if generation is not None and generation.key == key:
            found.append(generation)
    return found


def _counts(generation: Generation) -> dict[str, int]:
    commits = generation.intact().values()
    return {name: sum(c.counts[name] for c in commits) for name in ("ok", "absent", "failed")}


def _known(
    store: FeatureStore, key: StreamKey, spec: StreamSpec, name: str, inputs: Digests
) -> NDArray[np.bool_]:
    """(N,) whether this home holds a vector of each input."""
    stream = store.paths.stream(key.label)
    paths = stream.generation(max([0, *stream.generations()]) + 1)
    rows = len(inputs)
    grid = Grid.plan(rows, spec.width, spec.dtype)
    imagined = Generation(paths, key, spec, rows, name, None, grid)
    others = [other for other in related_generations(store.home, imagined) if other.commits()]
    return KnownRows(others).has(inputs)


def _retried(generation: Generation, retry: Retry) -> bool:
    """Whether any failure of a generation is retried."""
    if not retry:
        return False
    failures = failures_by_row(read_failures(generation))
    return any(is_retried(failure, retry) for failure in failures.values())


def _journalled(generation: Generation) -> list[JournalEntry]:
    """Journal entries of uncommitted shards, left by an interrupted run."""
    done = generation.commits()
    left = [shard for shard in generation.shards if shard.number not in done]
    return [entry for shard in left for entry in _journal(generation, shard).read()]


@dataclass(frozen=True)
class RowCounts:
    """How far a generation is: rows by what became of them, journal included."""

    ok: int
    absent: int
    failed: dict[str, int]  # by reason, the most frequent first
    pending: int
    truncated: int  # of those that are ok, cut to the encoder's length


def row_counts(generation: Generation, absent: NDArray[np.bool_]) -> RowCounts:
    """Row counts of a generation, journalled rows included.

    Args:
        generation: of a stream.
        absent: (N,) bool, its absent rows.
    """
    done = generation.commits().values()
    ok = sum(commit.counts["ok"] for commit in done)
    cut = sum(int(commit.truncated or "0", 16).bit_count() for commit in done)
    reasons = Counter(read_failures(generation)["reason"].to_list())
    for entry in _journalled(generation):
        ok += len(entry.rows)
        cut += int(entry.truncated.sum())
        reasons.update(failure.reason for failure in entry.failures.values())
    gone = int(absent.sum())
    pending = generation.rows - ok - gone - reasons.total()
    return RowCounts(ok, gone, dict(reasons.most_common()), pending, cut)


def _journal(generation: Generation, shard: Shard) -> Journal:
    return Journal(generation.paths.journal, shard.number, generation.paths.stream.dataset.scratch)


@dataclass(frozen=True)
class FieldDifference:
    """A fingerprint field whose values differ; `None` where a side lacks it."""

    field: str
    stored: object
    asked: object


@dataclass(frozen=True)
class Explanation:
    """How a requested stream differs from the nearest cached one.

    Attributes:
        key: the requested stream.
        nearest: the cached stream that differs least, or None where there is none to compare.
        differences: the fields that differ; empty if the stream is cached.
    """

    key: StreamKey
    nearest: StreamInfo | None
    differences: tuple[FieldDifference, ...]

    def __str__(self) -> str:
        if self.nearest is None:
            return f"{self.key.name}: nothing of {self.key.encoder} is cached for this dataset"
        if not self.differences:
            state = "is cached" if self.nearest.complete else "is begun, not complete"
            return f"{self.key.label} {state}"
        words = "; ".join(f"{d.field}: {d.stored!r} → {d.asked!r}" for d in self.differences)
        return f"{self.key.label} differs from {self.nearest.key.label} in {words}"


def explain(store: FeatureStore, key: StreamKey, fields: Mapping[str, object]) -> Explanation:
    """Compare a requested stream with the nearest cached one of the same encoder.

    Args:
        store: of the dataset.
        key: the requested stream.
        fields: its fingerprint's fields.
    """
    streams = [info for info in store.streams() if info.key.encoder == key.encoder]
    if not streams:
        return Explanation(key, None, ())
    nearest = min(
        streams,
        key=lambda info: (
            info.key.modality != key.modality,
            len(differences(info.fields, fields)),
            info.key.label,
        ),
    )
    found = differences(nearest.fields, fields)
    if nearest.key.modality != key.modality:
        found = (FieldDifference("modality", nearest.key.modality, key.modality), *found)
    return Explanation(key, nearest, found)


def differences(
    stored: Mapping[str, object], asked: Mapping[str, object]
) -> tuple[FieldDifference, ...]:
    """Fields that are not equal, by name; fields inside fields as `outer.inner`."""
    left, right = _flat(stored), _flat(asked)
    return tuple(
        FieldDifference(name, left.get(name), right.get(name))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name) or (name in left) != (name in right)
    )


def _flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found
