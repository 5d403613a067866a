"""Fitting of encoders on training rows; the state is stored beside the stream."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.samples import Modality
from cache.storage.objects import create_record, get_record
from pipelines.data.dataset import Dataset
from pipelines.encoding.encoder import is_fitted_encoder
from pipelines.extract.input_digests import training_rows
from pipelines.media.cells import read
from pipelines.media.payloads import Unreadable
from pipelines.progress import Track, tracked_step, untracked

if TYPE_CHECKING:
    from pipelines.extract.plan import StreamPlan


_ENOUGH = 10_000  # training rows that an estimate learns from


def fit(plan: "StreamPlan", home: Home, *, keep: bool = True, track: Track = untracked) -> None:
    """Restore the encoder's fitted state for this stream, or fit it now and store the state.

    Args:
        plan: of the stream; an encoder that is not fitted is left unchanged.
        home: where the state is stored, beside the stream.
        keep: whether to store a new state; one for an estimate is learned from fewer rows.
        track: progress over the training rows that are read.

    Raises:
        MmfuseError: where no training row can be read.
    """
    encoder = plan.encoder
    if not is_fitted_encoder(encoder):
        return
    paths = DatasetPaths.of(home, plan.dataset.name)
    state = get_record(paths.stream(plan.key.label).fitted)
    if state is None:
        rows = training_rows(plan.dataset, plan.inputs)
        if not keep and len(rows) > _ENOUGH:
            rows = rows[np.linspace(0, len(rows) - 1, _ENOUGH).astype(np.int64)]
        payloads = list(_readable(plan.dataset, plan.modality, rows, track))
        if not payloads:
            raise MmfuseError(
                f"{plan.dataset.name}: {encoder.name} learns from training rows, and none has a "
                f"readable {plan.modality.name}"
            )
        with tracked_step(track, f"fit {plan.key.name} of {plan.dataset.name}"):
            record: dict[str, object] = {"state": encoder.fit(plan.modality.kind, payloads)}
        if types := plan.dataset.column_types.get(plan.modality.name):
            record["columns"] = {name: kind.record() for name, kind in types.items()}
        if not keep:
            return
        create_record(paths.stream(plan.key.label).fitted, record, paths.scratch)
        # The stored state is used, so that resumed runs and other processes use the same.
        state = get_record(paths.stream(plan.key.label).fitted)
    encoder.restore(state["state"] if state else {})


def _readable(
    dataset: Dataset, modality: Modality, rows: NDArray[np.int64], track: Track
) -> Iterator[Any]:
    """Payloads of the readable rows; the others become failures when encoded."""
    cells = dataset.table[modality.name].gather(rows).to_list()
    for cell in track(cells, f"{modality.name}: reading training rows", len(cells)):
        try:
            yield read(modality.kind, cell, dataset.root)
        except Unreadable:
            continue
