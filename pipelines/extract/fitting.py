"""Fitted encoders: statistics of training rows, learnt once and kept beside the stream."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.storage.objects import create_record, get_record
from pipelines.data.dataset import Dataset, Modality
from pipelines.encoding.encoder import Encoder, FittedEncoder
from pipelines.extract.input_digests import Inputs
from pipelines.media.cells import read
from pipelines.media.payloads import Unreadable

if TYPE_CHECKING:
    from pipelines.extract.plan import StreamPlan


def training_rows(dataset: Dataset, found: Inputs) -> NDArray[np.int64]:
    """Rows of the train split that have the modality."""
    train = (dataset.table["split"] == "train").to_numpy()
    return np.flatnonzero(train & ~found.absent)


def fitted_on(dataset: Dataset, found: Inputs) -> str:
    """Hex digest of the digests of the training rows, whatever their order."""
    rows = found.digests[training_rows(dataset, found)]
    ordered = rows[np.lexsort(rows.T[::-1])]
    return hashlib.blake2b(ordered.tobytes(), digest_size=16).hexdigest()


def learns(encoder: Encoder) -> TypeGuard[FittedEncoder]:
    """Whether an encoder has statistics of training rows."""
    return hasattr(encoder, "fit") and hasattr(encoder, "restore")


def fit(plan: "StreamPlan", home: Home, *, keep: bool = True) -> None:
    """Restore what the encoder learnt for this stream before, or let it learn now and keep that.

    Args:
        plan: of the stream; an encoder that learns nothing is left alone.
        home: where the state is kept, beside the stream.
        keep: whether to keep what is learnt now.

    Raises:
        MmfuseError: where no training row can be read.
    """
    encoder = plan.encoder
    if not learns(encoder):
        return
    paths = DatasetPaths.of(home, plan.dataset.name)
    state = get_record(paths.stream(plan.key.label).fitted)
    if state is None:
        rows = training_rows(plan.dataset, plan.inputs)
        payloads = list(_readable(plan.dataset, plan.modality, rows))
        if not payloads:
            raise MmfuseError(
                f"{plan.dataset.name}: {encoder.name} learns from training rows, and none has a "
                f"readable {plan.modality.name}"
            )
        record = {"state": encoder.fit(plan.modality.kind, payloads)}
        if not keep:
            return
        create_record(paths.stream(plan.key.label).fitted, record, paths.scratch)
        # What is kept is what is used: a resumed run, or another process, has the same.
        state = get_record(paths.stream(plan.key.label).fitted)
    encoder.restore(state["state"] if state else {})


def _readable(dataset: Dataset, modality: Modality, rows: NDArray[np.int64]) -> Iterator[Any]:
    """Payloads of rows, save those that cannot be read: they become failures when encoded."""
    for cell in dataset.table[modality.name].gather(rows).to_list():
        try:
            yield read(modality.kind, cell, dataset.root)
        except Unreadable:
            continue
