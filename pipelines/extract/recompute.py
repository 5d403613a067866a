"""Recompute check: random rows are encoded again and compared with the stored vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamKey
from cache.layout import Home
from pipelines.encoding.encoder import Encoder, with_storage
from pipelines.extract.engine.prepare import Cell, Recipe, prepare
from pipelines.extract.fitting import fit
from pipelines.extract.plan import StreamPlan, plan
from pipelines.progress import Track, untracked

BOUND = {"float32": 0.99999, "float16": 0.999}
"""Smallest cosine that counts as the same vector, by stored dtype."""


@dataclass(frozen=True)
class Recomputed:
    """Result of recomputing rows of one stream.

    Attributes:
        key: of the stream.
        rows: (K,) row numbers that were encoded again.
        worst: smallest cosine between a stored vector and its second encoding; 1 for no rows.
        differing: ids of rows below `BOUND` or not encodable again.
    """

    key: StreamKey
    rows: NDArray[np.int64]
    worst: float
    differing: tuple[str, ...]


def recompute(
    dataset: str,
    sources: Sequence[StreamPlan],
    *,
    home: Home,
    count: int,
    seed: int = 0,
    track: Track = untracked,
) -> list[Recomputed]:
    """Encode `count` random rows of every stream again, each alone, and compare.

    Args:
        dataset: its name in the store.
        sources: plans of complete streams, see `complete_plans`.
        home: where they are stored.
        count: rows per stream, at most those with a vector.
        seed: random seed of the choice.
        track: progress over the rows.

    Raises:
        MmfuseError: from an encoder, for example if weights are missing.
    """
    store = FeatureStore(home, dataset)
    return [
        _recompute_stream(store, source, home, count, np.random.default_rng(seed), track=track)
        for source in sources
    ]


def complete_plans(dataset: object, encoders: Sequence[Encoder], *, home: Home) -> list[StreamPlan]:
    """Plans of complete streams of these encoders, in whichever dtype they are stored.

    Raises:
        MmfuseError: if one of them is not complete.
    """
    plans = plan(dataset, encoders, home=home)  # type: ignore[arg-type]
    if not all(each.found.complete for each in plans):  # perhaps stored in the other dtype
        others = [_with_other_dtype(one) for one in encoders]
        found = plan(dataset, others, home=home)  # type: ignore[arg-type]
        pairs = zip(plans, found, strict=True)
        plans = [two if two.found.complete else one for one, two in pairs]
    for each in plans:
        if not each.found.complete:
            raise MmfuseError(
                f"{each.key.name} of {each.dataset.name} is not in the cache with these options; "
                f"run: mmfuse extract --dataset {each.dataset.name} --encoder "
                f"{each.key.encoder}, or --explain for why"
            )
    return plans


def _with_other_dtype(encoder: Encoder) -> Encoder:
    """The encoder with the other stored dtype, or itself where it has no choice."""
    try:
        return with_storage(encoder, "float32" if encoder.storage == "float16" else "float16")
    except MmfuseError:
        return encoder


def _recompute_stream(
    store: FeatureStore,
    source: StreamPlan,
    home: Home,
    count: int,
    draw: np.random.Generator,
    *,
    track: Track,
) -> Recomputed:
    stored = store.whole(source.key)
    there = np.flatnonzero(stored.present)
    rows = np.sort(draw.choice(there, min(count, len(there)), replace=False))
    fit(source, home)
    ids, table = source.dataset.table["id"], source.dataset.table[source.modality.name]
    recipe = Recipe(source.encoder, source.modality.kind, source.dataset.root)
    worst, differing = 1.0, []
    for row in track(rows.tolist(), f"encode {source.key.name} again", len(rows)):
        span = slice(row, row + 1)
        if stored.offsets is not None:
            span = slice(*stored.offsets[row : row + 2].tolist())
        cell = Cell(row, table[row], source.inputs.digests[row].tobytes())
        near = _cosine(stored.values[span], _again(recipe, cell, str(stored.values.dtype)))
        worst = min(worst, near)
        if near < BOUND[str(stored.values.dtype)]:
            differing.append(ids[row])
    return Recomputed(source.key, rows, worst, tuple(differing))


def _again(recipe: Recipe, cell: Cell, dtype: str) -> NDArray[np.float64] | None:
    """One row's vector or frames (T, D) in the stored dtype; None if it fails now."""
    prepared = prepare(recipe, cell)
    if prepared.failure is not None:
        return None
    (found,) = recipe.encoder.encode(recipe.kind, [prepared.item])
    return np.atleast_2d(np.asarray(found).astype(dtype)).astype(np.float64)


def _cosine(
    stored: NDArray[np.float16] | NDArray[np.float32], again: NDArray[np.float64] | None
) -> float:
    """Smallest cosine of two (T, D); 1 where both are zero, -1 where shapes differ."""
    first = stored.astype(np.float64)
    if again is None or again.shape != first.shape:
        return -1.0
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(again, axis=1)
    same = np.all(first == again, axis=1)
    cosines = np.where(same, 1.0, (first * again).sum(1) / np.where(lengths > 0, lengths, 1))
    return float(cosines.min(initial=1.0))
