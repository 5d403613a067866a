"""Estimated duration of an extraction, from three timed batches; nothing is stored."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.layout import Home
from pipelines.extract.engine.batches import (
    BatchBudget,
    BatchEncoder,
    MemoryLimits,
    bucketed_batches,
)
from pipelines.extract.engine.prepare import Cell, Prepared, Recipe, prepare
from pipelines.extract.fitting import fit
from pipelines.extract.options import ExtractOptions, batch_budget, worthwhile_workers
from pipelines.extract.plan import StreamPlan

_BATCHES = 3
_SLOW_BATCH = 8  # samples per timed batch of a model, where a full one could take a minute
PROBED = 8  # samples prepared to estimate the time of the rest
_TIMED = 21  # samples that are encoded one by one to measure latency
_SECONDS = 1.0  # about how long that may take


@dataclass(frozen=True)
class Estimate:
    """Estimated seconds of one stream.

    Attributes:
        seconds: for all new inputs, at most `limit` of them, loading included.
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
    stream: StreamPlan, *, home: Home, options: ExtractOptions | None = None
) -> Estimate | None:
    """Time three batches of a stream's own inputs.

    Loads the encoder's weights, which may import torch. A fitted encoder is fitted, but its state
    is not stored.

    Args:
        stream: from `plan`.
        home: where a fitted encoder's state may be stored.
        options: of the planned extraction: workers, batches, limit.

    Returns:
        None if weights must be downloaded first, or no sample can be read and encoded.

    Raises:
        MmfuseError: from the encoder.
    """
    options = options or ExtractOptions()
    if stream.found.new == 0:
        return Estimate(0.0, 0.0, 0.0, 0.0, 0)
    if stream.download is not None:
        return None
    fit(stream, home, keep=False)
    rows = batch_budget(stream, options).rows
    size = min(rows, _SLOW_BATCH) if stream.encoder.weights != "weight-free" else rows
    found = probe_samples(stream, _BATCHES * size + 1)
    readable = [sample for sample in found if sample.failure is None]
    if not readable:
        return None
    batch_encoder = BatchEncoder(
        stream.encoder, stream.modality.kind, MemoryLimits(None), stream.key.label
    )
    load = _timed(batch_encoder, readable[:1])
    groups = bucketed_batches(
        [sample.cost for sample in readable], BatchBudget(size)
    )  # by length, as in the extraction
    seconds = [_timed(batch_encoder, [readable[place] for place in group]) for group in groups]
    if not batch_encoder.succeeded:
        return None
    encode = sum(seconds) / len(readable)
    prepare = statistics.median(sample.read + sample.prepare for sample in found)
    new = stream.found.new if options.limit is None else min(options.limit, stream.found.new)
    workers = options.workers
    if workers is None:
        workers = worthwhile_workers(prepare * stream.found.new)
    each = max(prepare / workers, encode) if workers else prepare + encode
    return Estimate(load + each * new, load, prepare, encode, workers)


def _timed(batch_encoder: BatchEncoder, samples: list[Prepared]) -> float:
    """Seconds for one batch, failing samples included."""
    start = time.perf_counter()
    batch_encoder.encode([one.item for one in samples], [one.cost for one in samples])
    return time.perf_counter() - start


def probe_samples(stream: StreamPlan, count: int = PROBED) -> list[Prepared]:
    """Evenly spaced samples of a stream, prepared in this process."""
    return list(_probes(stream, np.flatnonzero(~stream.inputs.absent), count))


def measure_latency(stream: StreamPlan, rows: NDArray[np.int64]) -> dict[str, float] | None:
    """Seconds to read, prepare and encode one sample alone: p50 and p95.

    Args:
        stream: already extracted.
        rows: (K,) rows with a vector; other samples might kill this process.

    Returns:
        None where fewer than two samples can be encoded.
    """
    seconds: list[float] = []
    end = time.monotonic() + _SECONDS
    for found in _probes(stream, rows, _TIMED):
        if found.failure is not None:  # the file has changed since
            continue
        start = time.perf_counter()
        try:
            stream.encoder.encode(stream.modality.kind, [found.item])
        except Exception:  # already recorded as the row's failure
            continue
        seconds.append(found.read + found.prepare + time.perf_counter() - start)
        if time.monotonic() > end and len(seconds) > 1:
            break
    warm = seconds[1:]
    if not warm:
        return None
    return {"p50": float(np.percentile(warm, 50)), "p95": float(np.percentile(warm, 95))}


def _probes(stream: StreamPlan, there: NDArray[np.int64], count: int) -> Iterator[Prepared]:
    if not len(there):
        return
    rows = there[np.unique(np.linspace(0, len(there) - 1, count).astype(int))]
    values = stream.dataset.table[stream.modality.name].gather(rows).to_list()
    recipe = Recipe(stream.encoder, stream.modality.kind, stream.dataset.root)
    for row, value in zip(rows.tolist(), values, strict=True):
        yield prepare(recipe, Cell(row, value, stream.inputs.digests[row].tobytes()))
