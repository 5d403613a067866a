"""Load streams of the feature store as one FeatureTable on the device."""

from collections.abc import Sequence

import numpy as np
import torch

from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo, display_names
from pipelines.features.arrays import pad
from pipelines.features.statistics import target_scale
from pipelines.features.table import FeatureTable


def load_table(
    store: FeatureStore, infos: Sequence[StreamInfo], device: torch.device
) -> FeatureTable:
    """Read whole streams, sorted by name, as float32 tensors on the device.

    Args:
        store: of the dataset.
        infos: complete streams of one snapshot, as `store.resolve` gives them.
        device: where the tensors stay.
    """
    infos = sorted(infos, key=lambda info: (info.key.name, info.key.label))
    features, frames, present = {}, {}, []
    for info, name in zip(infos, display_names(infos), strict=True):
        found = store.whole(info.key)
        if found.offsets is None:
            features[name] = torch.from_numpy(found.values.astype(np.float32)).to(device)
        else:
            values, there = pad(found.values, found.offsets)
            features[name] = torch.from_numpy(values).to(device)
            frames[name] = torch.from_numpy(there).to(device)
        present.append(torch.from_numpy(found.present.astype(bool)))
    samples = store.samples(infos[0])
    return FeatureTable(
        features=features,
        frame_present=frames,
        present=torch.stack(present, 1).to(device),
        modalities=tuple(info.key.modality for info in infos),
        samples=samples,
        rows=torch.arange(len(samples), device=device),
        scale=target_scale(samples),
    )
