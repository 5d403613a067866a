"""A session: what the streams of one extraction share, and the life of each of them."""

import statistics
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from cache.feature_store import OK, FeatureStore
from cache.layout import Home
from cache.samples import Samples
from cache.storage.objects import put_record
from cache.writing.journal import Retry
from cache.writing.writer import StreamWriter
from pipelines.extract.engine.backoff import Ceilings, Encoding, HopelessError
from pipelines.extract.engine.batches import WINDOWS, Budget, budget
from pipelines.extract.engine.prepare import Inline, Preparer
from pipelines.extract.engine.runner import Conveyor, Terms
from pipelines.extract.engine.shard_queue import Supply
from pipelines.extract.engine.shard_writer import CHECKPOINT_SECONDS, Shelver
from pipelines.extract.engine.worker_pool import TIMEOUT, Workers, cores
from pipelines.extract.fitting import fit
from pipelines.extract.interrupts import Interrupt
from pipelines.extract.plan import StreamPlan
from pipelines.extract.probing import latency, probe
from pipelines.extract.report import StreamReport, Work, report
from pipelines.progress import Track

WORTH_WORKERS = 10.0  # seconds of preparing below which spawning processes gains nothing
_MOST_WORKERS = 16


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; what is extracted is the dataset's and the encoders' matter.

    Attributes:
        workers: processes that read and prepare; 0 for none; None for as many as pay: none where
            the work would take under ten seconds, else one less than there are cores (at most 16).
        strict: stop with an error at the first sample that fails, instead of recording it.
        max_bad: share of a run's inputs above which failures end it; None for any share.
        retry_failed: encode once more what failed in earlier runs: all of it, or that for these
            reasons; the word `transient` stands for every reason that may pass by itself.
        limit: encode at most this many distinct inputs of each stream; the next run goes on.
        rehash: read every file again to know it, whatever is remembered of it.
        timeout: seconds one sample may take in a worker before it counts as hanging.
        batch_rows: samples a batch, if they are alike; None for what kind and device suggest.
        checkpoint: seconds between two checkpoints.
        latency: whether a few samples are encoded once more, one by one, to tell what one takes.
    """

    workers: int | None = None
    strict: bool = False
    retry_failed: Retry = False
    limit: int | None = None
    max_bad: float | None = None
    rehash: bool = False
    timeout: float = TIMEOUT
    batch_rows: int | None = None
    checkpoint: float = CHECKPOINT_SECONDS
    latency: bool = True


class Session:
    """Moves streams one after another; has the worker processes and knows what memory bears."""

    def __init__(self, home: Home, options: ExtractOptions, track: Track, samples: Samples) -> None:
        self._home, self._options, self._track, self._samples = home, options, track, samples
        self._ceilings = Ceilings(home.ceilings)
        self._workers: Workers | None = None
        self._count = 0

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._workers is not None:
            self._workers.close()

    def extract(self, one: StreamPlan, skipped: dict[str, tuple[str, ...]]) -> StreamReport:
        """One stream, from its plan to its report.

        Raises:
            MmfuseError: what the person at the keyboard can mend.
        """
        work, store = Work(), FeatureStore(self._home, one.dataset.name)
        with work.legs.timed("total"):
            if not one.found.complete:
                self._make_ready(one, work)
            writer = store.writer(
                one.key,
                spec=one.spec,
                samples=self._samples,
                inputs=one.inputs.digests,
                absent=one.inputs.absent,
                retry_failed=self._options.retry_failed if not one.found.complete else False,
            )
            if not writer.complete:
                self._move(one, writer, work)
                writer.finish()
        if self._options.latency and one.found.new and writer.complete:
            encoded = np.flatnonzero(store.reader(one.key).state == OK)
            store.keep_latency(one.key, latency(one, encoded))
        told = report(one, writer, work, skipped)
        if told.new or told.new_failed:
            stream = writer.generation.paths.stream
            kept = {name: value for name, value in told.record().items() if name != "path"}
            put_record(stream.report, kept, stream.dataset.scratch)
        return told

    def _make_ready(self, one: StreamPlan, work: Work) -> None:
        """Fetch, fit and load what is needed; decide how many workers pay."""
        if one.found.new and one.download is not None:
            one.download.fetch(self._track)
        fit(one, self._home)
        if not one.found.new:
            return
        wanted = self._options.workers
        loads = one.encoder.weights != "weight-free"
        if wanted is not None and not loads:
            work.workers = wanted
            return
        probes = probe(one)
        readable = [found.item for found in probes if found.failure is None]
        if loads and readable:  # loaded now, the record says on what device and in what dtype
            with work.legs.timed("load"):
                one.encoder.encode(one.modality.kind, readable[:1])
        seconds = statistics.median(p.read + p.prepare for p in probes) * one.found.new
        work.workers = paying_workers(seconds) if wanted is None else wanted

    def _move(self, one: StreamPlan, writer: StreamWriter, work: Work) -> None:
        """Everything that is left to encode, and what is known, onto the shelf."""
        options = self._options
        encoding = Encoding(one.encoder, one.modality.kind, self._ceilings, _place(one))
        shelver = Shelver(options.checkpoint)
        keep = True
        with Interrupt() as interrupt:
            ahead = 2 if work.workers else 1
            most = bad_inputs(one, options)
            stop = lambda: interrupt.asked  # noqa: E731
            terms = Terms(batch_budget(one, options), ahead, options.strict, most, stop)
            conveyor = Conveyor(one, encoding, terms, work.legs)
            supply = Supply(writer, shelver, WINDOWS[one.modality.kind], options.limit)
            moving = conveyor.run(supply, self._preparer(work.workers), shelver)
            try:
                for _ in self._track(moving, f"{one.dataset.name} {one.key.name}", one.found.new):
                    pass
            except HopelessError:
                keep = False
                raise
            except KeyboardInterrupt:  # the second Ctrl-C, or one that no handler took
                interrupt.asked = True
            finally:
                moving.close()
                shelver.close(keep=keep)
        work.take(conveyor, shelver)
        work.interrupted = interrupt.asked

    def _preparer(self, workers: int) -> Preparer:
        if not workers:
            return Inline()
        if self._workers is not None and self._count != workers:
            self._workers.close()
            self._workers = None
        if self._workers is None:
            self._workers, self._count = Workers(workers, self._options.timeout), workers
        return self._workers


def _place(one: StreamPlan) -> str:
    """What a memory ceiling holds for: these weights on this device."""
    device = one.encoder.provenance().get("device", "cpu")
    return f"{one.key.label.split('/')[0]} {one.modality.kind} {device}"


def paying_workers(seconds: float) -> int:
    """Processes that are worth starting for so many seconds of reading and preparing."""
    return max(1, min(_MOST_WORKERS, cores() - 1)) if seconds > WORTH_WORKERS else 0


def bad_inputs(one: StreamPlan, options: ExtractOptions) -> int | None:
    """How many of the inputs that a run encodes may fail; None for all of them."""
    if options.max_bad is None:
        return None
    new = one.found.new if options.limit is None else min(options.limit, one.found.new)
    return int(options.max_bad * new + 1e-9)  # 0.29 of 100 is 28.999999999999996


def batch_budget(one: StreamPlan, options: ExtractOptions) -> Budget:
    """What one batch of a stream may be: as asked, or as kind and device suggest."""
    if options.batch_rows is not None:
        return Budget(options.batch_rows)
    device = str(one.encoder.provenance().get("device", "cpu"))
    weights = one.encoder.weights != "weight-free"
    return budget(one.modality.kind, device, weights=weights)
