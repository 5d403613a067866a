"""Inference: outputs of a recorded run for new rows of features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.runs import RunRecord
from cache.samples import Samples
from pipelines.device import pick_device, threads_for
from pipelines.features.arrays import pad
from pipelines.features.table import FeatureTable, Scale
from pipelines.metrics.metrics import softmax
from pipelines.training.loop import decoded
from pipelines.training.restore import rebuild


@threads_for(0)
def infer(
    record: RunRecord, vectors: Mapping[str, Sequence[NDArray[Any] | None]], device: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Outputs of every replica for new rows.

    Args:
        record: the run.
        vectors: by stream, a vector (D,) or sequence (T, D) a row, or None.
        device: where the heads run.

    Returns:
        (R, N, C) probabilities, or values in units of the target; and (N, M) present.
    """
    where = pick_device(device)
    table = _new_table(record, vectors, where)
    logits = rebuild(record, where).logits(table)
    outputs = np.stack([decoded(table, one)[0] for one in logits])
    if record.task.kind == "classes":
        outputs = softmax(outputs)
    elif record.task.kind == "labels":
        outputs = 1 / (1 + np.exp(-np.clip(outputs, -700, 700)))
    return outputs, table.present.cpu().numpy()


def _new_table(
    record: RunRecord, vectors: Mapping[str, Sequence[NDArray[Any] | None]], device: torch.device
) -> FeatureTable:
    """New rows as a feature table with placeholder targets."""
    features, frames, present = {}, {}, []
    for stream in record.streams:
        rows = vectors[stream.name]
        shape = (0, stream.width) if stream.sequence else (stream.width,)
        whole = [np.zeros(shape, np.float32) if row is None else row for row in rows]
        if stream.sequence:
            offsets = np.concatenate([[0], np.cumsum([len(row) for row in whole])])
            values, there = pad(np.concatenate(whole), offsets)
            frames[stream.name] = torch.from_numpy(there).to(device)
        else:
            values = np.stack(whole)
        features[stream.name] = torch.from_numpy(values).to(device)
        present.append(torch.tensor([row is not None for row in rows]))
    count = len(present[0])
    nothing = np.full(count, "", object)
    targets: Any = np.zeros((count, record.task.outputs), np.float32)
    if record.task.kind != "labels":
        targets = np.zeros(count, np.int64 if record.task.kind == "classes" else np.float64)
    samples = Samples(nothing, nothing, targets, None, record.task, (), "real")
    return FeatureTable(
        features,
        frames,
        torch.stack(present, 1).to(device),
        tuple(stream.modality for stream in record.streams),
        samples,
        torch.arange(count, device=device),
        Scale(*record.scale),
    )
