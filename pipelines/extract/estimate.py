"""Estimates: how long an extraction will take, from three timed batches; nothing is stored."""

import statistics
import time
from dataclasses import dataclass

from cache.layout import Home
from pipelines.extract.engine.backoff import Ceilings, Encoding
from pipelines.extract.engine.batches import Budget, batches
from pipelines.extract.engine.prepare import Prepared
from pipelines.extract.fitting import fit
from pipelines.extract.options import ExtractOptions, batch_budget, paying_workers
from pipelines.extract.plan import StreamPlan
from pipelines.extract.probing import probe

_BATCHES = 3
_SLOW_BATCH = 8  # samples a timed batch of a model, where a full one could take a minute


@dataclass(frozen=True)
class Estimate:
    """What one stream will take.

    Attributes:
        seconds: for all new inputs, or as many as the limit allows, loading included.
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
        options: whose workers, batches and limit are reckoned with.

    Returns:
        None where something has to be downloaded first, or no sample can be read and encoded.

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
    encoding = Encoding(one.encoder, one.modality.kind, Ceilings(None), one.key.label)
    load = _timed(encoding, readable[:1])
    groups = batches([sample.cost for sample in readable], Budget(size))  # by length, as they will
    seconds = [_timed(encoding, [readable[place] for place in group]) for group in groups]
    if not encoding.succeeded:
        return None
    encode = sum(seconds) / len(readable)
    prepare = statistics.median(sample.read + sample.prepare for sample in found)
    new = one.found.new if options.limit is None else min(options.limit, one.found.new)
    workers = options.workers
    if workers is None:
        workers = paying_workers(prepare * one.found.new)
    each = max(prepare / workers, encode) if workers else prepare + encode
    return Estimate(load + each * new, load, prepare, encode, workers)


def _timed(encoding: Encoding, samples: list[Prepared]) -> float:
    """Seconds for one batch; what fails in it costs itself, as it would in earnest."""
    start = time.perf_counter()
    encoding.encode([one.item for one in samples], [one.cost for one in samples])
    return time.perf_counter() - start
