"""Reuse of rows that other generations or datasets of a home have encoded, by input digest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.format.digest_index import DigestIndex, Digests
from cache.format.generations import Generation, read_generation
from cache.format.reader import Reader
from cache.format.streams import OK
from cache.layout import DatasetPaths, Home
from cache.storage.objects import DamagedError
from cache.writing.journal import Failure

NO_FAILURES = pl.DataFrame(
    schema={"row": pl.Int64, "reason": pl.String, "detail": pl.String, "transient": pl.Boolean}
)


@dataclass(frozen=True)
class ReusedRows:
    """Rows that need no encoding: their positions, lengths and values."""

    at: NDArray[np.int64]  # (K,) positions among the requested inputs
    lengths: NDArray[np.int64]  # (K,) frames per row; all 1 where pooled
    values: NDArray[Any]  # (sum of lengths, D)


class KnownRows:
    """Encoded rows of several generations by input digest; earlier generations win."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._readers = [Reader(generation) for generation in generations]

    @cached_property
    def _index(self) -> tuple[DigestIndex, NDArray[np.int32], NDArray[np.int64]]:
        rows = [np.flatnonzero(reader.state == OK) for reader in self._readers]
        digests = [r.inputs[i] for r, i in zip(self._readers, rows, strict=True)]
        sources = [np.full(len(i), n, np.int32) for n, i in enumerate(rows)]
        return (
            DigestIndex.of(np.concatenate([np.zeros((0, 16), np.uint8), *digests])),
            np.concatenate([np.zeros(0, np.int32), *sources]),
            np.concatenate([np.zeros(0, np.int64), *rows]),
        )

    def has(self, inputs: Digests) -> NDArray[np.bool_]:
        """(N,) whether each input was encoded before; damage is found by `recall`."""
        found: NDArray[np.bool_] = self._index[0].find(inputs) >= 0
        return found

    def recall(self, inputs: Digests) -> Iterator[ReusedRows]:
        """The known ones of these (N, 16) inputs, by source; damaged rows are left out."""
        lookup, sources, rows = self._index
        position = lookup.find(inputs)
        known = np.flatnonzero(position >= 0)
        source = sources[position[known]]
        for number in np.unique(source):
            at = known[source == number]
            sound, lengths, values = self._readers[number].recall(rows[position[at]])
            yield ReusedRows(at[sound], lengths, values)


class FailedBefore:
    """Failures in earlier generations of a stream, by input digest; not retried by default."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = generations

    @cached_property
    def _index(self) -> tuple[DigestIndex, pl.DataFrame]:
        tables, digests = [NO_FAILURES], [np.zeros((0, 16), np.uint8)]
        for generation in self._generations:
            table = read_failures(generation)
            if len(table):
                tables.append(table)
                digests.append(Reader(generation).inputs[table["row"].to_numpy()])
        return DigestIndex.of(np.concatenate(digests)), pl.concat(tables)

    def recall(self, inputs: Digests) -> dict[int, Failure]:
        """Failures of these (N, 16) inputs, by position; inputs that never failed are left out."""
        lookup, table = self._index
        position = lookup.find(inputs)
        at = np.flatnonzero(position >= 0)
        return failures_by_row(table[position[at]].with_columns(row=pl.Series(at)))


def read_failures(generation: Generation) -> pl.DataFrame:
    """row, reason, detail, transient of a generation's committed shards, by row."""
    tables = [NO_FAILURES]
    for number, commit in generation.commits().items():
        if "failures" in commit.objects:
            tables.append(pl.read_parquet(generation.paths.failures(number)))
    return pl.concat(tables).sort("row")


def failures_by_row(table: pl.DataFrame) -> dict[int, Failure]:
    """Failures by row number, from the columns row, reason, detail, transient."""
    columns = table.select(NO_FAILURES.columns)
    return {row: Failure(*failure) for row, *failure in columns.iter_rows()}


def related_generations(home: Home, generation: Generation) -> list[Generation]:
    """Generations in this home with rows of the same encoder and kind.

    The stream's own come first, newest first; then other modalities and other datasets.
    """
    own = generation.paths.stream
    folder = generation.key.label.split("/")[0]
    found: list[Generation] = []
    for dataset in home.datasets():
        paths = DatasetPaths.of(home, dataset)
        for modality in sorted(p.name for p in (paths.streams / folder).glob("*")):
            stream = paths.stream(f"{folder}/{modality}")
            for number in reversed(stream.generations()):
                try:
                    other = read_generation(stream.generation(number))
                except DamagedError:
                    continue
                if (
                    other is not None
                    and _alike(other, generation)
                    and other.paths != generation.paths
                ):
                    found.append(other)
    return sorted(found, key=lambda other: other.paths.stream != own)


def _alike(other: Generation, generation: Generation) -> bool:
    a, b = other.spec, generation.spec
    return other.key.fingerprint == generation.key.fingerprint and (
        (a.kind, a.width, a.dtype, a.sequence) == (b.kind, b.width, b.dtype, b.sequence)
    )
