"""Writing: shards of a stream are claimed, filled and committed whole; then it is published.

For one shard: claim, journal while it is filled, objects, commit object, then journal and claim
are removed. A kill between any two leaves a store that the next run takes up.
"""

import io
import os
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache.format.digest_index import Digests, Lookup, first_of_each
from cache.format.generations import SCHEMA, Generation, Shard, current
from cache.format.reader import Reader
from cache.layout import Home
from cache.storage.leases import acquire
from cache.storage.objects import delete, put, put_record
from cache.writing.filling import ShardClaim
from cache.writing.journal import Journal, Retry
from cache.writing.reuse import FailedBefore, Known, failures_of, relatives

WAIT = 0.2  # seconds between looks at another process that assembles the stream


@dataclass(frozen=True)
class Rows:
    """What is to be encoded: (N, 16) digests, (N,) where nothing is, and the samples' snapshot."""

    inputs: Digests
    absent: NDArray[np.bool_]
    snapshot: str

    def __len__(self) -> int:
        return len(self.inputs)


class StreamWriter:
    """One generation of a stream while it is filled, by this process and perhaps others.

    Attributes:
        shards: the units of work, committed or not.
        retry: which failures of earlier runs are tried again.
        run: who this is, in every commit it makes.
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
        """Whether every row is settled and readers see this generation."""
        seen = current(self.generation.paths.stream) == (self.generation.number, self._snapshot)
        return seen and self.generation.complete()

    @cached_property
    def reused(self) -> int:
        """Rows of uncommitted shards that are known: elsewhere in this home, or in the journal."""
        pending = ~self._committed() & ~self.absent
        paths = self.generation.paths
        for shard in self.shards:
            if pending[shard.start : shard.stop].any():
                journal = Journal(paths.journal, shard.number, paths.stream.dataset.scratch)
                for entry in journal.read():
                    pending[entry.rows] = False
                    pending[[failure.row for failure in entry.failures]] = False
        journalled = int((~self._committed() & ~self.absent).sum() - pending.sum())
        return journalled + int(self.known.has(self.inputs[pending]).sum())

    def claim(self, shard: Shard) -> ShardClaim | None:
        """The shard to fill; None if it is committed, or another live process holds it."""
        paths = self.generation.paths
        if self.generation.commit(shard) is not None:
            return None
        lease = acquire(paths.claims, f"{shard.number:05d}", paths.stream.dataset.scratch)
        if lease is None:
            return None
        if self.generation.commit(shard) is not None:  # while we were claiming it
            lease.retire()
            return None
        return ShardClaim(self, shard, lease)

    def finish(self) -> bool:
        """Publish: point readers here, once every shard is committed.

        Returns:
            Whether readers see it now; False while other processes still hold shards.
        """
        if len(self.generation.commits()) < len(self.shards):
            return False
        if self.generation.spec.sequence:
            self._assemble()
        self._write_failures()
        self._point()
        self._tidy()
        return True

    @cached_property
    def known(self) -> Known:
        """Encoded rows elsewhere in this home."""
        return Known(self._relatives)

    @cached_property
    def failed_before(self) -> FailedBefore:
        """Failures of this stream's other generations, those to be tried again among them."""
        own = self.generation.paths.stream
        return FailedBefore([g for g in self._relatives if g.paths.stream == own])

    @cached_property
    def truncated(self) -> Lookup:
        """Inputs whose vectors are elsewhere in this home and that were cut to length."""
        readers = [Reader(generation) for generation in self._relatives]
        cut = [reader.inputs[reader.truncated] for reader in readers if reader.truncated.any()]
        return Lookup.of(np.concatenate([np.zeros((0, 16), np.uint8), *cut]))

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(N,) the first row of the stream with the same input as each row."""
        return first_of_each(self.inputs)

    @cached_property
    def _relatives(self) -> list[Generation]:
        return [g for g in relatives(self._home, self.generation) if g.commits()]

    def _committed(self) -> NDArray[np.bool_]:
        done = np.zeros(len(self.inputs), bool)
        for commit in self.generation.commits().values():
            done[commit.shard.start : commit.shard.stop] = True
        return done

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

    def _tidy(self) -> None:
        """Remove what processes left that were killed between a commit and their own tidying."""
        paths = self.generation.paths
        for folder in (paths.journal, paths.claims, paths.parts):
            for path in folder.glob("*"):
                delete(path)

    def _write_failures(self) -> None:
        paths = self.generation.paths
        table = failures_of(self.generation)
        if len(table):
            buffer = io.BytesIO()
            table.write_parquet(buffer)
            put(paths.failures(), buffer.getvalue(), paths.stream.dataset.scratch)
        else:
            delete(paths.failures())

    def _point(self) -> None:
        stream = self.generation.paths.stream
        seen = (self.generation.number, self._snapshot)
        if current(stream) != seen:
            record = {"schema": SCHEMA, "generation": seen[0], "snapshot": seen[1]}
            put_record(stream.current, record, stream.dataset.scratch)
