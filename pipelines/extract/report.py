"""Extraction reports: row counts, speed and bottleneck of each stream."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cache.format.streams import StreamKey
from cache.shown import Shown
from cache.status import row_counts
from cache.writing.writer import StreamWriter
from pipelines.device import cores
from pipelines.encoding.encoder import notes_of
from pipelines.extract.engine.runner import Runner
from pipelines.extract.engine.shard_writer import ShardWriter
from pipelines.extract.engine.timings import Timings
from pipelines.extract.plan import StreamPlan


@dataclass(frozen=True, repr=False)
class StreamReport:
    """Report of one stream.

    Attributes:
        key: of the stream.
        kind: kind of its modality.
        rows: N; always ok + absent + failed + pending.
        ok: rows with a vector.
        absent: rows without the modality.
        failed: rows that failed, by reason, in this run and before.
        pending: rows not encoded yet: after Ctrl-C, with a limit, or held by other processes.
        new: distinct inputs that this run encoded.
        new_failed: distinct inputs that failed in this run.
        reused: rows with a vector that needed no encoding: cached, or equal to another row.
        complete: whether stage 2 can read it.
        interrupted: whether Ctrl-C ended the run.
        workers: number of worker processes.
        seconds: read, prepare, encode, write, total, and load where weights were loaded.
        rows_per_second: inputs encoded or failed in this run, per second.
        bottleneck: one sentence.
        truncated: rows with a vector whose input was cut to the encoder's length.
        skipped: modalities that no named encoder serves, with the encoders that would.
        notes: the encoder's remarks on its weights.
        path: the Zarr group.
        generation: counts from 1.
    """

    key: StreamKey
    kind: str
    rows: int
    ok: int
    absent: int
    failed: dict[str, int]
    pending: int
    new: int
    new_failed: int
    reused: int
    complete: bool
    interrupted: bool
    workers: int
    seconds: dict[str, float]
    rows_per_second: float
    bottleneck: str
    truncated: int
    skipped: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    path: Path
    generation: int

    @property
    def failures(self) -> int:
        """Rows that failed; where there are any, the command exits with 1."""
        return sum(self.failed.values())

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{self.pending:,} pending"
        return f"<StreamReport {self.key.label}: {self.ok:,} of {self.rows:,} rows, {state}>"

    def record(self) -> dict[str, object]:
        """The report as JSON values."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own |= {"key": self.key.label, "fingerprint": self.key.fingerprint}
        own |= {"path": str(self.path), "failures": self.failures}
        own["skipped"] = {name: list(encoders) for name, encoders in self.skipped.items()}
        return own


class StreamReports(list[StreamReport], Shown):
    """Reports of the streams of one dataset, in the order of its modalities.

    Args:
        dataset: its name.
        reports: so far.
    """

    def __init__(self, dataset: str, reports: Iterable[StreamReport] = ()) -> None:
        super().__init__(reports)
        self.dataset = dataset

    def __repr__(self) -> str:
        return f"<StreamReports of {self.dataset}: {', '.join(map(repr, self))}>"


@dataclass
class Work:
    """Counters and timings of one stream while it is extracted."""

    timings: Timings = field(default_factory=Timings)
    workers: int = 0
    new: int = 0
    new_failed: int = 0
    interrupted: bool = False

    def take(self, runner: Runner, shard_writer: ShardWriter) -> None:
        """Take the counts of the runner and the shard writer."""
        self.timings.write = shard_writer.seconds
        self.new = runner.encoded - shard_writer.refused
        self.new_failed = runner.failed.total() + shard_writer.refused


def report(
    stream: StreamPlan, writer: StreamWriter, work: Work, skipped: dict[str, tuple[str, ...]]
) -> StreamReport:
    """Report on a stream: row counts from the store, timings from the work."""
    now = row_counts(writer.generation, stream.inputs.absent)
    settled = work.new + work.new_failed
    return StreamReport(
        key=stream.key,
        kind=stream.modality.kind,
        rows=stream.rows,
        ok=now.ok,
        absent=now.absent,
        failed=now.failed,
        pending=now.pending,
        new=work.new,
        new_failed=work.new_failed,
        reused=max(0, now.ok - work.new),
        complete=writer.complete,
        interrupted=work.interrupted,
        workers=work.workers,
        seconds=work.timings.seconds(),
        rows_per_second=settled / work.timings.total if work.timings.total else 0.0,
        bottleneck=work.timings.bottleneck(work.workers, cores())
        if settled
        else "nothing was left to encode",
        truncated=now.truncated,
        skipped=skipped,
        notes=notes_of(stream.encoder),
        path=writer.generation.paths.group,
        generation=writer.generation.number,
    )
