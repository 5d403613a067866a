"""Probing: some samples of a stream prepared, and encoded one by one, to tell what they take."""

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.extract.engine.prepare import Cell, Prepared, Recipe, prepare
from pipelines.extract.plan import StreamPlan

PROBED = 8  # samples that are prepared to tell how long the rest will take
_TIMED, _SECONDS = 21, 1.0  # samples that are encoded one by one, and about how long that may take


def probe(one: StreamPlan, count: int = PROBED) -> list[Prepared]:
    """Some of a stream's samples, evenly spaced, prepared in this process."""
    return list(_probes(one, np.flatnonzero(~one.inputs.absent), count))


def latency(one: StreamPlan, rows: NDArray[np.int64]) -> dict[str, float] | None:
    """Seconds that one new sample takes: read, prepared and encoded alone, p50 and p95.

    Args:
        one: the stream, extracted.
        rows: (K,) those that have a vector; a sample that killed a worker would kill us.

    Returns:
        None where fewer than two samples can be encoded.
    """
    seconds: list[float] = []
    end = time.monotonic() + _SECONDS
    for found in _probes(one, rows, _TIMED):
        if found.failure is not None:  # the file has changed since
            continue
        start = time.perf_counter()
        try:
            one.encoder.encode(one.modality.kind, [found.item])
        except Exception:  # whatever it was, the row it belongs to has said so
            continue
        seconds.append(found.read + found.prepare + time.perf_counter() - start)
        if time.monotonic() > end and len(seconds) > 1:
            break
    warm = seconds[1:]
    if not warm:
        return None
    return {"p50": float(np.percentile(warm, 50)), "p95": float(np.percentile(warm, 95))}


def _probes(one: StreamPlan, there: NDArray[np.int64], count: int) -> Iterator[Prepared]:
    rows = there[np.unique(np.linspace(0, len(there) - 1, count).astype(int))]
    values = one.dataset.table[one.modality.name].gather(rows).to_list()
    recipe = Recipe(one.encoder, one.modality.kind, one.dataset.root)
    for row, value in zip(rows.tolist(), values, strict=True):
        yield prepare(recipe, Cell(row, value, one.inputs.digests[row].tobytes()))
