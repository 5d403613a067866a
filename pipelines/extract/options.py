"""ExtractOptions: how to extract, and what follows from it for workers and batches."""

from dataclasses import dataclass

from cache.writing.journal import Retry
from pipelines.device import cores
from pipelines.extract.engine.batches import BatchBudget, default_budget
from pipelines.extract.engine.shard_writer import CHECKPOINT_SECONDS
from pipelines.extract.engine.worker_pool import TIMEOUT
from pipelines.extract.plan import StreamPlan

MIN_SECONDS_FOR_WORKERS = 10.0  # seconds of preparing below which spawning processes gains nothing
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


def worthwhile_workers(seconds: float) -> int:
    """Processes that are worth starting for so many seconds of reading and preparing."""
    return max(1, min(_MOST_WORKERS, cores() - 1)) if seconds > MIN_SECONDS_FOR_WORKERS else 0


def max_failures(stream: StreamPlan, options: ExtractOptions) -> int | None:
    """How many of the inputs that a run encodes may fail; None for all of them."""
    if options.max_bad is None:
        return None
    new = stream.found.new if options.limit is None else min(options.limit, stream.found.new)
    return int(options.max_bad * new + 1e-9)  # 0.29 of 100 is 28.999999999999996


def batch_budget(stream: StreamPlan, options: ExtractOptions) -> BatchBudget:
    """What one batch of a stream may be: as asked, or as kind and device suggest."""
    if options.batch_rows is not None:
        return BatchBudget(options.batch_rows)
    device = str(stream.encoder.provenance().get("device", "cpu"))
    weights = stream.encoder.weights != "weight-free"
    return default_budget(stream.modality.kind, device, weights=weights)
