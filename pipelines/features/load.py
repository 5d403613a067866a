"""Loading: streams of the feature store as one FeatureTable on the device."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from cache.feature_store import FeatureStore, StreamInfo
from cache.format.streams import names
from cache.samples import Samples
from pipelines.features.table import FeatureTable, Scale, pad
from pipelines.fusion.head import Inputs, Stream


def load_table(
    store: FeatureStore, infos: Sequence[StreamInfo], device: torch.device
) -> FeatureTable:
    """Whole streams side by side, sorted by name, as float32 on the device.

    Args:
        store: of the dataset.
        infos: complete streams of one snapshot, as `store.resolve` gives them.
        device: where the tensors go and stay.
    """
    infos = sorted(infos, key=lambda info: (info.key.name, info.key.label))
    features, frames, present = {}, {}, []
    for info, name in zip(infos, names(infos), strict=True):
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


def target_scale(samples: Samples) -> Scale:
    """Mean and deviation of a `value` task's train targets; 0 and 1 for other tasks."""
    if samples.task.kind != "value":
        return Scale()
    train = samples.targets[samples.splits == "train"].astype(np.float64)
    deviation = float(train.std())
    return Scale(float(train.mean()), deviation if deviation > 1e-12 else 1.0)


def inputs_of(table: FeatureTable) -> Inputs:
    """What `build` gets for this table."""
    each = zip(table.features.items(), table.modalities, strict=True)
    streams = {n: Stream(x.shape[-1], m, n in table.frame_present) for (n, x), m in each}
    return Inputs(streams, table.samples.task)


def rescaled(table: FeatureTable, scale: Scale) -> FeatureTable:
    """The same table with targets in units of other train rows."""
    return replace(table, scale=scale)
