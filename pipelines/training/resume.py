"""Checkpoints: training state in one file; a resumed training equals one never interrupted.

All randomness is a function of (seed, stage, epoch, batch), so weights, optimiser state and
learning-rate schedules are all that a checkpoint needs.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from cache.errors import MmfuseError
from cache.storage.objects import put
from pipelines.training.loop import Epoch, Progress
from pipelines.training.optimizer import ReplicaSchedule
from pipelines.training.replicas import Replicas


def checkpoint_writer(path: Path, seconds: float) -> Callable[[Replicas, Progress], None]:
    """Callback for `FitJob.keep` that writes a checkpoint at most once in so many seconds."""
    last = time.monotonic()

    def write(replicas: Replicas, progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            write_checkpoint(path, replicas, progress)
            last = time.monotonic()

    return write


def write_checkpoint(path: Path, replicas: Replicas, progress: Progress) -> None:
    """Write the state of training now, in place of the file."""
    tensors = {f"buffer {n}": b for n, b in replicas.buffers.items()}
    tensors |= {f"best {n}": b for n, b in progress.best.items()}
    for number, block in enumerate(replicas.blocks):
        for name in ("flat", "first", "second", "count"):
            tensors[f"block {number} {name}"] = getattr(block, name)
    plain = {
        "stage": progress.stage,
        "epoch": progress.epoch,
        "pace": None if progress.schedule is None else asdict(progress.schedule),
        "history": [asdict(epoch) for epoch in progress.history],
    }
    data = save({n: t.contiguous() for n, t in tensors.items()}, {"progress": json.dumps(plain)})
    put(path, data)


def read_checkpoint(path: Path, replicas: Replicas) -> Progress | None:
    """Load a checkpoint into the replicas and return its progress; None where there is no file.

    Raises:
        MmfuseError: if the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            plain = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has no public error type
        raise MmfuseError(f"{path} is damaged ({error}); delete it and train again") from error
    with torch.no_grad():
        for number, block in enumerate(replicas.blocks):
            for name in ("flat", "first", "second", "count"):
                getattr(block, name).copy_(tensors[f"block {number} {name}"])
        for name, buffer in replicas.buffers.items():
            replicas.buffers[name] = tensors[f"buffer {name}"].to(buffer)
    best = {n.removeprefix("best "): t for n, t in tensors.items() if n.startswith("best ")}
    device = replicas.blocks[0].flat.device
    return Progress(
        plain["stage"],
        plain["epoch"],
        None if plain["pace"] is None else ReplicaSchedule(**plain["pace"]),
        {n: t.to(device) for n, t in best.items()},
        [_epoch(epoch) for epoch in plain["history"]],
    )


def _epoch(plain: dict[str, Any]) -> Epoch:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return Epoch(**fields)
