"""Load streams of the feature store as one FeatureTable on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo, display_names
from cache.samples import SPLITS, Samples
from pipelines.device import to_device
from pipelines.features.arrays import pad
from pipelines.features.statistics import target_scale
from pipelines.features.table import FeatureTable


def load_table(
    store: FeatureStore, infos: Sequence[StreamInfo], device: torch.device
) -> FeatureTable:
    """Read whole streams, sorted by name, as tensors on the device.

    Values stay in the dtype that they are stored in, and are cast batch by batch. Rows come by
    split (train, val, test, none), in the dataset's order within each, so that a split is a view.

    Args:
        store: of the dataset.
        infos: complete streams of one snapshot, as `store.resolve` gives them.
        device: where the tensors stay.
    """
    infos = sorted(infos, key=lambda info: (info.key.name, info.key.label))
    samples = store.samples(infos[0])
    order = row_order(samples)
    features, frames, present = {}, {}, []
    for info, name in zip(infos, display_names(infos), strict=True):
        found = store.whole(info.key, order)
        if found.offsets is None:
            features[name] = to_device(found.values, device)
        else:
            values, there = pad(found.values, found.offsets)
            features[name] = to_device(values, device)
            frames[name] = to_device(there, device)
        present.append(torch.from_numpy(found.present.astype(bool)))
    rows = np.arange(len(samples)) if order is None else order
    if order is not None:
        samples = samples.take(order)
    return FeatureTable(
        features=features,
        frame_present=frames,
        present=torch.stack(present, 1).to(device),
        modalities=tuple(info.key.modality for info in infos),
        samples=samples,
        rows=torch.from_numpy(rows).to(device),
        scale=target_scale(samples),
    )


def row_order(samples: Samples) -> NDArray[np.int64] | None:
    """(N,) rows by split, in their own order within each; None where they are so already."""
    ranks = np.full(len(samples), len(SPLITS))
    for rank, split in enumerate(SPLITS):
        ranks[samples.splits == split] = rank
    if (np.diff(ranks) >= 0).all():
        return None
    return np.argsort(ranks, kind="stable")
