"""Stage 1, extraction: plan → read and prepare → batch → encode → write, each step timed."""

import signal
import statistics
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import polars as pl

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import OK
from cache.layout import Home
from cache.samples import Samples
from cache.storage.objects import get_record, put_record
from cache.writing.writer import StreamWriter
from pipelines.data import origins
from pipelines.data.dataset import Dataset
from pipelines.data.sources import open_dataset
from pipelines.encoding.encoder import Encoder, build_encoder
from pipelines.extract.engine.batches import (
    WINDOWS,
    AllInputsFailedError,
    BatchEncoder,
    MemoryLimits,
)
from pipelines.extract.engine.prepare import InlinePreparer, Preparer
from pipelines.extract.engine.runner import Runner, RunnerOptions
from pipelines.extract.engine.shard_queue import ShardQueue
from pipelines.extract.engine.shard_writer import ShardWriter
from pipelines.extract.engine.worker_pool import WorkerPool
from pipelines.extract.estimate import measure_latency, probe_samples
from pipelines.extract.fitting import fit
from pipelines.extract.options import ExtractOptions, batch_budget, max_failures, worthwhile_workers
from pipelines.extract.plan import StreamPlan, plan, unserved
from pipelines.extract.report import StreamReport, StreamReports, Work, report
from pipelines.media.cells import FILES
from pipelines.progress import Track, tracked_step, untracked

_FILES = 10_000  # failed rows whose files are recorded


def extract(
    dataset: Dataset | str,
    encoders: Sequence[Encoder | str],
    *,
    home: Home,
    options: ExtractOptions | None = None,
    track: Track = untracked,
) -> StreamReports:
    """Fill the store with every encoder's features of every modality that it serves.

    Only inputs that no store under this home holds are encoded. Ctrl-C finishes the current batch,
    saves finished rows, and ends the list with a report whose `interrupted` is true; the next call
    resumes. A second Ctrl-C does not wait for the batch.

    Args:
        dataset: the rows, or a word for one data set: `digits`, `mug/pkm_t1`, a path.
        encoders: built ones, such as `build_encoder("pixels")`, or words for them.
        home: where the store is.
        options: workers, batches, limits, retries.
        track: progress, called as `track(items, label, total)`.

    Returns:
        A list with one report per stream, in the order of the modalities.

    Raises:
        MmfuseError: for what the user can fix; rows finished before it stay in the store.
    """
    options = options or ExtractOptions()
    rows = _opened(dataset, home) if isinstance(dataset, str) else dataset
    words = [encoders] if isinstance(encoders, str) else encoders
    built = [build_encoder(each) if isinstance(each, str) else each for each in words]
    origins.save_origin(home, rows)
    plans = plan(
        rows,
        built,
        home=home,
        retry_failed=options.retry_failed,
        rehash=options.rehash,
        track=track,
    )
    skipped, samples = unserved(rows, built), rows.samples()
    reports = StreamReports(rows.name)
    with Extraction(home, options, track, samples) as extraction:
        for stream in track(plans, f"extract {rows.name}: streams", len(plans)):
            reports.append(extraction.extract(stream, skipped))
            if reports[-1].interrupted:
                break
    return reports


def _opened(word: str, home: Home) -> Dataset:
    found = open_dataset(word, home=home)
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:4])
        raise MmfuseError(f"{word} are {len(found)} data sets; name one, such as {names}")
    return found[0]


class GracefulInterrupt:
    """Graceful Ctrl-C: the first one only sets `requested`, the second raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, `requested` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> "GracefulInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class Extraction:
    """Extracts streams one by one; holds the worker pool and the known memory limits."""

    def __init__(self, home: Home, options: ExtractOptions, track: Track, samples: Samples) -> None:
        self._home, self._options, self._track, self._samples = home, options, track, samples
        self._memory_limits = MemoryLimits(home.ceilings)
        self._workers: WorkerPool | None = None
        self._worker_count = 0

    def __enter__(self) -> "Extraction":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._workers is not None:
            self._workers.close()

    def extract(self, stream: StreamPlan, skipped: dict[str, tuple[str, ...]]) -> StreamReport:
        """Extract one stream and report on it.

        Raises:
            MmfuseError: for what the user can fix.
        """
        work, store = Work(), FeatureStore(self._home, stream.dataset.name)
        with work.timings.timed("total"):
            if not stream.found.complete:
                self._prepare_encoder(stream, work)
            writer = store.writer(
                stream.key,
                spec=stream.spec,
                samples=self._samples,
                inputs=stream.inputs.digests,
                absent=stream.inputs.absent,
                retry_failed=self._options.retry_failed if not stream.found.complete else False,
            )
            if not writer.complete:
                self.run_stream(stream, writer, work)
                writer.finish()
        if self._options.latency and stream.found.new and writer.complete:
            encoded = np.flatnonzero(store.reader(stream.key).state == OK)
            with tracked_step(self._track, f"time single rows of {stream.key.name}"):
                store.keep_latency(stream.key, measure_latency(stream, encoded))
        done = report(stream, writer, work, skipped)
        self._keep_report(stream, writer, done)
        return done

    def _keep_report(self, stream: StreamPlan, writer: StreamWriter, done: StreamReport) -> None:
        """Store what was done beside the stream, and the files of all rows that failed, by id."""
        paths = writer.generation.paths.stream
        store = FeatureStore(self._home, stream.dataset.name)
        record: dict[str, object] = {}
        if done.failures:
            record["files"] = failed_files(stream, store.failures(stream.key)["row"].to_list())
        if done.new or done.new_failed:
            record |= {name: value for name, value in done.record().items() if name != "path"}
        elif record.get("files", {}) != store.failed_files(stream.key):
            record = {**(get_record(paths.report) or {}), **record}
        else:
            return
        put_record(paths.report, record, paths.dataset.scratch)

    def _prepare_encoder(self, stream: StreamPlan, work: Work) -> None:
        """Download weights, fit and load the encoder as needed; choose the number of workers."""
        if stream.found.new and stream.download is not None:
            stream.download.fetch(self._track)
        fit(stream, self._home, track=self._track)
        if not stream.found.new:
            return
        wanted = self._options.workers
        loads = stream.encoder.weights != "weight-free"
        if wanted is not None and not loads:
            work.workers = wanted
            return
        probes = probe_samples(stream)
        readable = [found.item for found in probes if found.failure is None]
        if loads and readable:  # load now, so that provenance has the device and dtype
            loading = tracked_step(self._track, f"load {stream.encoder.name}")
            with work.timings.timed("load"), loading:
                stream.encoder.encode(stream.modality.kind, readable[:1])
        seconds = statistics.median(p.read + p.prepare for p in probes) * stream.found.new
        work.workers = worthwhile_workers(seconds) if wanted is None else wanted

    def run_stream(self, stream: StreamPlan, writer: StreamWriter, work: Work) -> None:
        """Run one stream: prepare, batch, encode, write."""
        options = self._options
        batch_encoder = BatchEncoder(
            stream.encoder, stream.modality.kind, self._memory_limits, _memory_key(stream)
        )
        shard_writer = ShardWriter(options.checkpoint)
        keep = True
        with GracefulInterrupt() as interrupt:
            ahead = 2 if work.workers else 1
            most = max_failures(stream, options)
            stop = lambda: interrupt.requested  # noqa: E731
            runner_options = RunnerOptions(
                batch_budget(stream, options), ahead, options.strict, most, stop
            )
            runner = Runner(stream, batch_encoder, runner_options, work.timings)
            queue = ShardQueue(writer, shard_writer, WINDOWS[stream.modality.kind], options.limit)
            progress = runner.run(queue, self._preparer(work.workers), shard_writer)
            try:
                for _ in self._track(
                    progress, f"{stream.dataset.name} {stream.key.name}", stream.found.new
                ):
                    pass
            except AllInputsFailedError:
                keep = False
                raise
            except KeyboardInterrupt:  # the second Ctrl-C, or one outside the handler
                interrupt.requested = True
            finally:
                progress.close()
                shard_writer.close(keep=keep)
        work.take(runner, shard_writer)
        work.interrupted = interrupt.requested

    def _preparer(self, workers: int) -> Preparer:
        if not workers:
            return InlinePreparer()
        if self._workers is not None and self._worker_count != workers:
            self._workers.close()
            self._workers = None
        if self._workers is None:
            self._workers, self._worker_count = WorkerPool(workers, self._options.timeout), workers
        return self._workers


def failed_files(stream: StreamPlan, rows: Sequence[int]) -> dict[str, str]:
    """Path of each of these rows by id, at most `_FILES`; empty where cells are no paths."""
    table = stream.dataset.table
    column = table[stream.modality.name]
    if stream.modality.kind not in FILES or column.dtype != pl.String:
        return {}
    first = list(rows[:_FILES])
    return dict(zip(table["id"].gather(first), column.gather(first), strict=True))


def _memory_key(stream: StreamPlan) -> str:
    """Key of a memory limit: encoder, kind and device."""
    device = stream.encoder.provenance().get("device", "cpu")
    return f"{stream.key.label.split('/')[0]} {stream.modality.kind} {device}"
