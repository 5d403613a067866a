"""Tables, batches, stores and optimisers with known contents for the tests of stage 2."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cache.feature_store import FeatureStore
from cache.fingerprints import fingerprint
from cache.format.streams import StreamKey, StreamSpec
from cache.layout import Home
from cache.samples import Modality, Samples, Task
from pipelines.features.statistics import target_scale
from pipelines.features.table import Batch, FeatureTable
from pipelines.fusion.head import FusionHead

CLASSES = Task("classes", ("a", "b", "c"))
LABELS = Task("labels", ("a", "b", "c"))
VALUE = Task("value", ("score",))
WIDTHS = {"lens/image": 6, "ear/audio": 4, "eye/text": 5}


def made_samples(count: int, task: Task = CLASSES, seed: int = 0) -> Samples:
    """Rows with random targets: 60 % train, 20 % val, 20 % test."""
    rng = np.random.default_rng(seed)
    splits = np.array(["train"] * count, object)
    splits[int(count * 0.6) : int(count * 0.8)] = "val"
    splits[int(count * 0.8) :] = "test"
    if task.kind == "classes":
        targets: Any = rng.integers(0, task.outputs, count)
        targets[: task.outputs] = np.arange(task.outputs)
    elif task.kind == "labels":
        targets = (rng.random((count, task.outputs)) < 0.4).astype(np.float32)
    else:
        targets = rng.normal(2, 3, count)
    ids = np.array([f"row{i:04}" for i in range(count)], object)
    modalities = tuple(Modality(name.split("/")[1], "image") for name in WIDTHS)
    return Samples(ids, splits, targets, None, task, modalities, "synthetic")


def made_values(
    samples: Samples, width: int, seed: int, noise: float = 1.0
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(N, D) that tell something of the target, and noise."""
    rng = np.random.default_rng(seed)
    targets = samples.targets
    signs = np.eye(samples.task.outputs)[targets] if samples.task.kind == "classes" else targets
    signs = signs.reshape(len(samples), -1)
    signal = signs @ rng.normal(size=(signs.shape[1], width))
    return (signal + noise * rng.normal(size=signal.shape)).astype(np.float32)


def made_table(
    count: int = 60,
    task: Task = CLASSES,
    *,
    absent: float = 0.2,
    frames: int = 0,
    names: Sequence[str] = tuple(WIDTHS),
    dtype: torch.dtype = torch.float32,
) -> FeatureTable:
    """A table whose absent cells hold NaN; with `frames` the last stream has sequences."""
    samples, rng = made_samples(count, task), np.random.default_rng(7)
    features, frame_present = {}, {}
    present = rng.random((count, len(names))) >= absent
    present[np.arange(count), rng.integers(0, len(names), count)] = True
    for number, name in enumerate(names):
        values = torch.from_numpy(made_values(samples, WIDTHS[name], number)).to(dtype)
        values[torch.from_numpy(~present[:, number])] = float("nan")
        if frames and number == len(names) - 1:
            there = torch.from_numpy(rng.random((count, frames)) >= 0.3)
            there[:, 0] = True
            values = torch.where(there[..., None], values[:, None, :], float("nan"))
            frame_present[name] = there
        features[name] = values
    return FeatureTable(
        features,
        frame_present,
        torch.from_numpy(present),
        tuple(name.split("/")[1] for name in names),
        samples,
        torch.arange(count),
        target_scale(samples),
    )


def fill_store(
    home: Home,
    table: FeatureTable,
    dataset: str = "made",
    extra: Mapping[str, object] | None = None,
) -> FeatureStore:
    """Write a table's streams as `extract` would have; `extra` joins their fields."""
    store = FeatureStore(home, dataset)
    for number, (name, x) in enumerate(table.features.items()):
        encoder, modality = name.split("/")
        sequence = name in table.frame_present
        fields: Mapping[str, object] = {"encoder": encoder, "version": 1, **(extra or {})}
        spec = StreamSpec(
            "image", x.shape[-1], "float32", sequence, fields, {"weights": "weight-free"}
        )
        there = table.present[:, number].numpy()
        inputs = np.frombuffer(np.arange(len(table) * 2, dtype=np.int64).tobytes(), np.uint8)
        writer = store.writer(
            StreamKey(encoder, fingerprint(fields), modality),
            spec=spec,
            samples=table.samples,
            inputs=(inputs.reshape(-1, 16) + np.uint8(1)).copy(),
            absent=~there,
        )
        for shard in writer.shards:
            claim = writer.claim(shard)
            if claim is None:
                continue
            with claim:
                rows = claim.todo
                values = [x[r].numpy() for r in rows]
                if sequence:
                    values = [
                        v[table.frame_present[name][r].numpy()]
                        for v, r in zip(values, rows, strict=True)
                    ]
                claim.put(rows, values)
                claim.commit()
        writer.finish()
    return store


def relabelled(table: FeatureTable, split: str, seed: int = 0) -> FeatureTable:
    """The same table with random targets in one split."""
    targets = table.samples.targets.copy()
    rows = table.split(split)
    rng = np.random.default_rng(seed)
    targets[rows] = rng.permutation(targets[rows])
    return replace(table, samples=replace(table.samples, targets=targets))


def batch_of(table: FeatureTable, at: Tensor | None = None, key: Tensor | None = None) -> Batch:
    """Rows of a table at these positions, or all of them, as one batch."""
    rows: Any = slice(None) if at is None else at
    return Batch(
        {name: x[rows] for name, x in table.features.items()},
        table.present[rows],
        {name: x[rows] for name, x in table.frame_present.items()},
        table.targets[rows],
        table.rows[rows],
        torch.tensor(0) if key is None else key,
    )


def plain_optimizer(
    head: FusionHead, learning_rate: float, weight_decay: float, momentum: float | None = None
) -> torch.optim.Optimizer:
    """AdamW, or SGD where there is a momentum, with weight decay on what the head `decays`."""
    named = list(head.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in named if head.decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not head.decays(n, p)], "weight_decay": 0.0},
    ]
    if momentum is None:
        return torch.optim.AdamW(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def copy_recurrent(ours: nn.Module, library: nn.Module, suffix: str = "") -> None:
    """Give a `torch.nn.GRU` or `LSTM` the weights of our layer."""
    pairs = {
        "weight_ih_l0": "weight_input",
        "weight_hh_l0": "weight_state",
        "bias_ih_l0": "bias_input",
        "bias_hh_l0": "bias_state",
    }
    with torch.no_grad():
        for theirs, name in pairs.items():
            getattr(library, theirs + suffix).copy_(getattr(ours, name))
