"""StreamWriter: leases, fills and commits whole shards of a stream, then publishes it.

Steps of one shard: lease; journal while it is filled; objects; commit object; then journal and
lease are deleted. After a kill between any two steps, the next run resumes.
"""

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.format.digest_index import DigestIndex, Digests, first_of_each
from cache.format.generations import (
    SCHEMA,
    Commit,
    Generation,
    Shard,
    StoredObject,
    current_generation,
)
from cache.format.parts import Part
from cache.format.reader import Reader
from cache.format.shards import chunk_checksums, encode_flat, encode_shard
from cache.format.streams import ABSENT, FAILED, OK, PENDING, count_states
from cache.layout import Home
from cache.storage.leases import Lease, acquire
from cache.storage.objects import content_digest, create_record, delete, put, put_record
from cache.writing.journal import Failure, Journal, JournalEntry, Retry, is_retried
from cache.writing.reuse import (
    NO_FAILURES,
    FailedBefore,
    KnownRows,
    failures_by_row,
    read_failures,
    related_generations,
)
from cache.writing.shard_buffer import CheckedVectors, ShardBuffer

WAIT = 0.2  # seconds between checks while another process assembles the stream


@dataclass(frozen=True)
class Rows:
    """Rows of a stream: (N, 16) input digests, (N,) absent rows, and the samples' snapshot id."""

    inputs: Digests
    absent: NDArray[np.bool_]
    snapshot: str

    def __len__(self) -> int:
        return len(self.inputs)


class StreamWriter:
    """Fills one generation of a stream; several processes may share it.

    Attributes:
        shards: the units of work, committed or not.
        retry: which failures of earlier runs are retried.
        run: id of this run, in every commit it makes.
    """

    def __init__(
        self,
        home: Home,
        generation: Generation,
        rows: Rows,
        retry: Retry,
    ) -> None:
        self._home, self.generation, self.retry = home, generation, retry
        self.inputs, self.absent, self._snapshot = rows.inputs, rows.absent, rows.snapshot
        self.shards: list[Shard] = generation.shards
        self.run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"

    @property
    def complete(self) -> bool:
        """Whether no row is pending and readers see this generation."""
        seen = current_generation(self.generation.paths.stream) == (
            self.generation.number,
            self._snapshot,
        )
        return seen and self.generation.complete()

    def claim(self, shard: Shard) -> "ShardClaim | None":
        """Lease a shard to fill it; None if it is committed, or another live process holds it."""
        paths = self.generation.paths
        if self.generation.commit(shard) is not None:
            return None
        lease = acquire(paths.claims, f"{shard.number:05d}", paths.stream.dataset.scratch)
        if lease is None:
            return None
        if self.generation.commit(shard) is not None:  # committed meanwhile
            lease.retire()
            return None
        return ShardClaim(self, shard, lease)

    def finish(self) -> bool:
        """Publish the generation to readers, once every shard is committed.

        Returns:
            Whether it is published; False while other processes still hold shards.
        """
        if len(self.generation.commits()) < len(self.shards):
            return False
        if self.generation.spec.sequence:
            self._assemble()
        self._write_failures()
        self._publish_pointer()
        self._remove_leftovers()
        return True

    @cached_property
    def known(self) -> KnownRows:
        """Encoded rows elsewhere in this home."""
        return KnownRows(self._relatives)

    @cached_property
    def failed_before(self) -> FailedBefore:
        """Failures in this stream's other generations, those to retry included."""
        own = self.generation.paths.stream
        return FailedBefore([g for g in self._relatives if g.paths.stream == own])

    @cached_property
    def truncated(self) -> DigestIndex:
        """Inputs encoded elsewhere in this home that were cut to the encoder's length."""
        readers = [Reader(generation) for generation in self._relatives]
        inputs = [reader.inputs[reader.truncated] for reader in readers if reader.truncated.any()]
        return DigestIndex.of(np.concatenate([np.zeros((0, 16), np.uint8), *inputs]))

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(N,) the first row of the stream with the same input as each row."""
        return first_of_each(self.inputs)

    @cached_property
    def _relatives(self) -> list[Generation]:
        return [g for g in related_generations(self._home, self.generation) if g.commits()]

    def _assemble(self) -> None:
        from cache.writing.sequences import assemble

        paths = self.generation.paths
        while self.generation.seal() is None:
            lease = acquire(paths.claims, "seal", paths.stream.dataset.scratch)
            if lease is None:
                time.sleep(WAIT)
                continue
            try:
                if self.generation.seal() is None:
                    assemble(self.generation, self.inputs)
                lease.retire()
            finally:
                lease.release()

    def _remove_leftovers(self) -> None:
        """Delete files of processes that were killed between a commit and their own cleanup."""
        paths = self.generation.paths
        for folder in (paths.journal, paths.claims, paths.parts):
            for path in folder.glob("*"):
                delete(path)

    def _write_failures(self) -> None:
        paths = self.generation.paths
        table = read_failures(self.generation)
        if len(table):
            buffer = io.BytesIO()
            table.write_parquet(buffer)
            put(paths.failures(), buffer.getvalue(), paths.stream.dataset.scratch)
        else:
            delete(paths.failures())

    def _publish_pointer(self) -> None:
        stream = self.generation.paths.stream
        seen = (self.generation.number, self._snapshot)
        if current_generation(stream) != seen:
            record = {"schema": SCHEMA, "generation": seen[0], "snapshot": seen[1]}
            put_record(stream.current, record, stream.dataset.scratch)


class ShardClaim:
    """A leased shard, which only this process fills; leaving the context releases the lease.

    Attributes:
        shard: its rows.
        todo: (K,) int64 row numbers to encode: the first row of each distinct unknown input.
        resumed: (J,) int64 row numbers in the journal of an interrupted run; with `todo`, the rows
            that run had to encode, so that batches can be cut at the same places.
    """

    def __init__(self, writer: StreamWriter, shard: Shard, lease: Lease) -> None:
        self._writer, self._generation = writer, writer.generation
        self.shard, self._lease = shard, lease
        self._buffer = ShardBuffer(len(shard), writer.generation.spec)
        self._inputs = writer.inputs[shard.start : shard.stop]
        self._first = first_of_each(self._inputs)
        self._failures: dict[int, Failure] = {}
        self._truncated = np.zeros(len(shard), bool)
        self._unsaved: list[NDArray[np.int64]] = []  # rows put since the last checkpoint
        self._unsaved_failures: dict[int, Failure] = {}
        self._checkpoints = 0
        paths = self._generation.paths
        self._scratch = paths.stream.dataset.scratch
        self._journal = Journal(paths.journal, shard.number, self._scratch)
        self._buffer.state[writer.absent[shard.start : shard.stop]] = ABSENT
        self.resumed = np.zeros(0, np.int64)
        self._fill_from_journal()
        self._fill_from_known()
        leaders = self._first == np.arange(len(shard))
        self.todo = np.flatnonzero(leaders & (self._buffer.state == PENDING)) + shard.start

    def __enter__(self) -> "ShardClaim":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lease.release()

    def put(
        self,
        rows: NDArray[np.int64] | Sequence[int],
        values: Sequence[NDArray[Any]],
        truncated: Sequence[bool] = (),
    ) -> int:
        """Set rows to their vectors (D,), or (T_i, D) of a sequence stream.

        A vector that is not finite, or not in the stored dtype, fails its row with the reason
        `non-finite` or `overflow`; a sequence without frames fails with `empty`. `truncated`:
        whether each row's input was cut to length; by default none was.

        Returns:
            How many rows failed in this way.

        Raises:
            MmfuseError: if a vector has another width than the stream.
        """
        local = self._local(rows)
        if len(local) != len(values):
            raise ValueError(f"{len(local)} rows but {len(values)} vectors")
        checked = CheckedVectors(values, self._generation.spec)
        at, lengths, stored = checked.good()
        self._buffer.fill(local[at], lengths, stored)
        self._unsaved.append(local[at])
        if any(truncated):
            self._truncated[local[at]] = np.asarray(truncated)[at]
        for position in np.flatnonzero(checked.reason != "").tolist():
            row = int(local[position]) + self.shard.start
            self.fail(row, Failure(str(checked.reason[position]), ""))
        return len(local) - len(at)

    def fail(self, row: int, failure: Failure) -> None:
        """Set a row as failed; its reason is shown in tables and selects retries."""
        self._buffer.state[self._local([row])] = FAILED
        self._failures[int(row)] = self._unsaved_failures[int(row)] = failure

    def checkpoint(self) -> None:
        """Journal the rows set since the last checkpoint; durable when this returns."""
        rows = np.concatenate([np.zeros(0, np.int64), *self._unsaved])
        if not len(rows) and not self._unsaved_failures:
            return
        lengths, values = self._buffer.take(rows)
        entry = JournalEntry(
            rows + self.shard.start,
            lengths,
            values,
            self._unsaved_failures,
            self._truncated[rows],
        )
        self._journal.write(entry, self._lease.epoch, self._checkpoints)
        self._checkpoints += 1
        self._unsaved, self._unsaved_failures = [], {}

    def commit(self) -> None:
        """Publish the shard: its objects first, then the commit that proves them.

        Raises:
            ValueError: if rows are pending.
            MmfuseError: if the disk refuses, or another process has taken the shard over.
        """
        for row in self._buffer.follow(self._first).tolist():
            self._set_failed(row, self._failures[int(self._first[row]) + self.shard.start])
        pending = int((self._buffer.state == PENDING).sum())
        if pending:
            raise ValueError(f"shard {self.shard.number} has {pending} rows still to encode")
        objects, chunks = self._objects()
        if not self._lease.held():
            raise MmfuseError(
                f"{self._generation.key.label}: another process took over rows "
                f"{self.shard.start}–{self.shard.stop - 1} while this one slept; nothing is lost"
            )
        stored = {}
        for name, (path, data) in objects.items():
            put(path, data, self._scratch)
            stored[name] = StoredObject(len(data), content_digest(data))
        counts = count_states(self._buffer.state)
        lengths, truncated_bits = self._buffer.lengths, ""
        if self._truncated.any():
            truncated_bits = np.packbits(self._truncated[self._first]).tobytes().hex()
        self._publish(
            Commit(self.shard, counts, stored, chunks, lengths, self._writer.run, truncated_bits)
        )

    def _publish(self, commit: Commit) -> None:
        path = self._generation.paths.commit(self.shard.number)
        made = create_record(path, commit.record(), self._scratch)
        if not made and self._generation.commit(self.shard) is None:  # there, but damaged
            put_record(path, commit.record(), self._scratch)
        self._journal.clear()
        self._lease.retire()

    def _objects(self) -> tuple[dict[str, tuple[Path, bytes | memoryview]], list[int]]:
        """Paths and bytes by name, and the crc32c of each chunk of values."""
        generation, number = self._generation, self.shard.number
        paths, grid = generation.paths, generation.grid
        objects: dict[str, tuple[Path, bytes | memoryview]] = {}
        chunks: list[int] = []
        lengths, values = self._buffer.whole()
        if generation.spec.sequence:
            part = Part(values, lengths, self._buffer.state, self._inputs)
            objects["part"] = paths.part(number), part.encode()
        else:
            data = encode_shard(values, grid)
            chunks = chunk_checksums(data, grid, number)
            flat_rows = min(generation.rows, grid.shard_rows)
            state = self._buffer.state
            objects = {
                "values": (paths.block("values", number), data),
                "present": (paths.block("present", number), encode_flat(state == OK, flat_rows)),
                "state": (paths.block("state", number), encode_flat(state, flat_rows)),
                "inputs": (paths.block("inputs", number), encode_flat(self._inputs, flat_rows)),
            }
        if self._failures:
            objects["failures"] = paths.failures(number), _failures_parquet(self._failures)
        return objects, chunks

    def _fill_from_journal(self) -> None:
        """Take rows from the journal of an interrupted run."""
        entries = self._journal.read()
        for row, failure in [item for entry in entries for item in entry.failures.items()]:
            self.resumed = np.append(self.resumed, row)
            if not is_retried(failure, self._writer.retry):
                self._set_failed(row - self.shard.start, failure)
        for entry in entries:
            rows = entry.rows - self.shard.start
            self._buffer.fill(rows, entry.lengths, entry.values)
            self._truncated[rows] = entry.truncated
            self.resumed = np.concatenate([self.resumed, entry.rows])
            for row in self._failures.keys() & set(entry.rows.tolist()):  # failed, then retried
                del self._failures[row]

    def _fill_from_known(self) -> None:
        """Take rows from other generations and datasets, and from this stream's earlier shards."""
        pending = np.flatnonzero(self._buffer.state == PENDING)
        for known in self._writer.known.recall(self._inputs[pending]):
            rows = pending[known.at]
            self._buffer.fill(rows, known.lengths, known.values)
            self._truncated[rows] = self._writer.truncated.find(self._inputs[rows]) >= 0
        self._fill_from_earlier_shards()
        pending = np.flatnonzero(self._buffer.state == PENDING)
        for at, failure in self._writer.failed_before.recall(self._inputs[pending]).items():
            if not is_retried(failure, self._writer.retry):
                self._set_failed(int(pending[at]), failure)

    def _fill_from_earlier_shards(self) -> None:
        pending = np.flatnonzero(self._buffer.state == PENDING)
        first = self._writer.first[pending + self.shard.start]
        pending, first = pending[first < self.shard.start], first[first < self.shard.start]
        if not len(pending):
            return
        reader = Reader(self._generation)
        ok = reader.state[first] == OK
        sound, lengths, values = reader.recall(first[ok])
        self._buffer.fill(pending[ok][sound], lengths, values)
        self._truncated[pending[ok][sound]] = reader.truncated[first[ok][sound]]
        bad = reader.state[first] == FAILED
        if bad.any():
            failures = failures_by_row(read_failures(self._generation))
            for row, leader in zip(pending[bad].tolist(), first[bad].tolist(), strict=True):
                self._set_failed(row, failures[leader])

    def _set_failed(self, local: int, failure: Failure) -> None:
        self._failures[local + self.shard.start] = failure
        self._buffer.state[local] = FAILED

    def _local(self, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
        local = np.asarray(rows, np.int64) - self.shard.start
        if len(local) and (local.min() < 0 or local.max() >= len(self.shard)):
            raise ValueError(f"a row is outside shard {self.shard}")
        return local


def _failures_parquet(failures: dict[int, Failure]) -> bytes:
    rows = [(row, f.reason, f.detail, f.transient) for row, f in sorted(failures.items())]
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=NO_FAILURES.schema, orient="row").write_parquet(buffer)
    return buffer.getvalue()
