"""ExtractOptions, and the numbers of workers, failures and batch rows that follow from them."""

from dataclasses import dataclass

from cache.writing.journal import Retry
from pipelines.device import cores
from pipelines.extract.engine.batches import BatchBudget, default_budget
from pipelines.extract.engine.shard_writer import CHECKPOINT_SECONDS
from pipelines.extract.engine.worker_pool import TIMEOUT
from pipelines.extract.plan import StreamPlan

MIN_SECONDS_FOR_WORKERS = 10.0  # below this much preparing, spawning processes gains nothing
_MOST_WORKERS = 16


@dataclass(frozen=True)
class ExtractOptions:
    """Options of an extraction, beside the dataset and the encoders.

    Attributes:
        workers: processes that read and prepare; 0 for none; None chooses: none if
            preparing would take under ten seconds, else one less than the cores (at most 16).
        strict: stop with an error at the first sample that fails, instead of recording it.
        max_bad: share of a run's inputs above which failures end it; None for any share.
        retry_failed: encode inputs again that failed in earlier runs: all, or those with these
            reasons; `transient` stands for every transient failure.
        limit: encode at most this many distinct inputs of each stream; the next run resumes.
        rehash: read every file again, ignoring remembered digests.
        timeout: seconds per sample in a worker before the worker counts as hung.
        batch_rows: samples per batch of equal costs; None for the default of kind and device.
        checkpoint: seconds between two checkpoints.
        latency: whether to measure the time per sample, by encoding a few one by one.
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


def worthwhile_workers(seconds: float) -> int:
    """Number of worker processes that pay off for so many seconds of reading and preparing."""
    return max(1, min(_MOST_WORKERS, cores() - 1)) if seconds > MIN_SECONDS_FOR_WORKERS else 0


def max_failures(stream: StreamPlan, options: ExtractOptions) -> int | None:
    """Number of a run's inputs that may fail; None for any number."""
    if options.max_bad is None:
        return None
    new = stream.found.new if options.limit is None else min(options.limit, stream.found.new)
    return int(options.max_bad * new + 1e-9)  # 0.29 of 100 is 28.999999999999996


def batch_budget(stream: StreamPlan, options: ExtractOptions) -> BatchBudget:
    """Batch budget of a stream: from the options, or the default of kind and device."""
    if options.batch_rows is not None:
        return BatchBudget(options.batch_rows)
    device = str(stream.encoder.provenance().get("device", "cpu"))
    weights = stream.encoder.weights != "weight-free"
    return default_budget(stream.modality.kind, device, weights=weights)
