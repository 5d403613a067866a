"""Estimates: how long an extraction will take, from three timed batches; nothing is stored."""

import statistics
import time
from dataclasses import dataclass

from cache.layout import Home
from pipelines.fitting import fit
from pipelines.planning import StreamPlan
from pipelines.session import ExtractOptions, batch_budget, paying_workers, probe

_BATCHES = 3
_SLOW_BATCH = 8  # samples a timed batch of a model, where a full one could take a minute


@dataclass(frozen=True)
class Estimate:
    """What one stream will take.

    Attributes:
        seconds: for all new inputs, loading included.
        load: seconds until the first vector.
        prepare: seconds to read and prepare an input, in one process.
        encode: seconds to encode one.
        workers: processes that would prepare.
    """

    seconds: float
    load: float
    prepare: float
    encode: float
    workers: int


def estimate(
    one: StreamPlan, *, home: Home, options: ExtractOptions | None = None
) -> Estimate | None:
    """Time three batches of a stream's own inputs.

    Loads the encoder's weights, and so imports torch where it needs it. A fitted encoder is fitted,
    and what it learnt is not kept.

    Args:
        one: from `plan`.
        home: where a fitted encoder's state may be.
        options: whose workers and batches are reckoned with.

    Returns:
        None where something has to be downloaded first, or no sample can be read.

    Raises:
        MmfuseError: from the encoder.
    """
    options = options or ExtractOptions()
    if one.found.new == 0:
        return Estimate(0.0, 0.0, 0.0, 0.0, 0)
    if one.download is not None:
        return None
    fit(one, home, keep=False)
    rows = batch_budget(one, options).rows
    size = min(rows, _SLOW_BATCH) if one.encoder.weights != "weight-free" else rows
    found = probe(one, _BATCHES * size + 1)
    readable = [sample for sample in found if sample.failure is None]
    if not readable:
        return None
    items = [sample.item for sample in readable]
    load, _ = _timed(one, items[:1])
    timed = [_timed(one, items[start : start + size]) for start in range(0, len(items), size)]
    encode = sum(seconds for seconds, _ in timed) / sum(count for _, count in timed)
    prepare = statistics.median(sample.read + sample.prepare for sample in found)
    workers = options.workers
    if workers is None:
        workers = paying_workers(prepare * one.found.new)
    each = max(prepare / workers, encode) if workers else prepare + encode
    return Estimate(load + each * one.found.new, load, prepare, encode, workers)


def _timed(one: StreamPlan, items: list[object]) -> tuple[float, int]:
    start = time.perf_counter()
    one.encoder.encode(one.modality.kind, items)
    return time.perf_counter() - start, len(items)
