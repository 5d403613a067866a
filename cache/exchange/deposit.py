"""Writing existing vectors as a stream, with the same writer as encoded ones."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.digest_index import Digests
from cache.format.streams import ABSENT, FAILED, OK, StreamInfo, StreamKey, StreamSpec
from cache.progress import Track, untracked
from cache.samples import Samples
from cache.writing.journal import Failure
from cache.writing.reuse import failures_by_row
from cache.writing.writer import ShardClaim


class Sliceable(Protocol):
    """Rows that are read a slice at a time, such as an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""

    def __getitem__(self, part: slice, /) -> NDArray[Any]:
        """The rows of a slice."""


@dataclass(frozen=True)
class StreamContent:
    """All rows of a stream to write.

    Attributes:
        inputs: (N, 16) digests.
        state: (N,) 1 ok, 2 absent, 3 failed.
        values: (N, D), or (sum T, D) of a sequence stream; slices of it are written one by one,
            so it may be memory-mapped or made when it is sliced.
        offsets: (N + 1,) of a sequence stream, else None.
        failures: row, reason, detail, transient.
    """

    inputs: Digests
    state: NDArray[np.uint8]
    values: "Sliceable"
    offsets: NDArray[np.int64] | None
    failures: pl.DataFrame


def deposit(
    store: FeatureStore,
    key: StreamKey,
    spec: StreamSpec,
    samples: Samples,
    content: StreamContent,
    *,
    track: Track = untracked,
) -> StreamInfo:
    """Write a stream and publish it; an existing one is left unchanged.

    Args:
        store: of the dataset.
        key: which stream.
        spec: what it holds.
        samples: the rows.
        content: all rows of the stream.
        track: progress over the shards that are written.

    Raises:
        MmfuseError: if shapes do not match, the disk is not writable, or another process is
            writing the same stream.
    """
    check_content(spec, len(samples), content)
    absent = content.state == ABSENT
    writer = store.writer(key, spec=spec, samples=samples, inputs=content.inputs, absent=absent)
    failures = failures_by_row(content.failures)
    shards = list(writer.shards)
    for shard in track(shards, f"write {key.name} of {store.dataset}: shards", len(shards)):
        claim = writer.claim(shard)
        if claim is not None:
            with claim:
                _fill(claim, content, failures)
                claim.commit()
    if not writer.finish():
        raise MmfuseError(f"{key.label}: another process is writing it; run this again afterwards")
    return next(info for info in store.streams() if info.key == key)


def _fill(claim: ShardClaim, content: StreamContent, failures: dict[int, Failure]) -> None:
    """Write every row, known or not, so that what is read is what was given."""
    start, stop = claim.shard.start, claim.shard.stop
    state = content.state[start:stop]
    rows = np.flatnonzero(state == OK) + start
    if content.offsets is None:
        claim.put(rows, np.asarray(content.values[start:stop])[state == OK])
    else:
        ends = content.offsets
        claim.put(rows, [np.asarray(content.values[ends[i] : ends[i + 1]]) for i in rows.tolist()])
    for row in (np.flatnonzero(state == FAILED) + start).tolist():
        claim.fail(row, failures.get(row, Failure("unknown", "")))


def check_content(spec: StreamSpec, rows: int, content: StreamContent) -> None:
    """Check shapes and states of the content before anything is written.

    Raises:
        MmfuseError: naming what does not fit.
    """
    values, offsets = content.values, content.offsets
    frames = rows if offsets is None else int(offsets[-1]) if len(offsets) == rows + 1 else -1
    wrong = [
        what
        for what, fits in {
            "state": content.state.shape == (rows,)
            and bool(np.isin(content.state, (1, 2, 3)).all()),
            "inputs": content.inputs.shape == (rows, 16) and content.inputs.dtype == np.uint8,
            "offsets": (offsets is not None) == spec.sequence and _rising(offsets),
            "values": values.shape == (frames, spec.width),
        }.items()
        if not fits
    ]
    if wrong:
        raise MmfuseError(f"{', '.join(wrong)} do not fit a stream of {rows} rows × {spec.width}")


def _rising(offsets: NDArray[np.int64] | None) -> bool:
    return offsets is None or (
        len(offsets) > 0 and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
    )
