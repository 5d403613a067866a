"""Cost of a head: parameters, multiply-accumulates (MACs) and latency at batch size one."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipelines.features.table import Batch, FeatureTable, at_least_single
from pipelines.fusion.head import FusionHead

TIMES = 50


def parameters(head: FusionHead) -> int:
    """Number of trainable parameters of one head."""
    return sum(p.numel() for p in head.parameters())


def with_encoders(
    latencies: Sequence[Mapping[str, float] | None], head: Mapping[str, float]
) -> dict[str, float]:
    """Latency of one new sample from raw data to logits; empty if an encoder was never timed.

    Args:
        latencies: `p50` and `p95` seconds of each stream's reading, preparing and encoding.
        head: as `costs` gives it.

    Returns:
        `with_encoders_p50` and `with_encoders_p95` seconds, one stream after the other: sums of
        the streams' percentiles, so the second is an upper bound.
    """
    known = [latency for latency in latencies if latency is not None]
    if len(known) < len(latencies):
        return {}
    return {
        f"with_encoders_{name}": head[f"latency_{name}"] + sum(one[name] for one in known)
        for name in ("p50", "p95")
    }


class _Counter(TorchFunctionMode):
    """Counts multiply-accumulates of matrix products and convolutions.

    `torch.utils.flop_counter` imports torch._dynamo, which takes longer than a small head trains.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        """Call a function of torch, and count what its result took."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.macs += result.numel() * _depth(func.__name__, args)
        return result


def _depth(name: str, given: Sequence[Any]) -> int:
    """Products that are summed for each value of a result; 0 for other functions.

    Args:
        name: of the function.
        given: its arguments.
    """
    if name in ("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv"):
        return int(given[0].shape[-1])
    if name in ("addmm", "baddbmm"):
        return int(given[1].shape[-1])
    if name in ("conv1d", "conv2d", "conv3d"):
        return int(given[1][0].numel())
    if name == "einsum":
        words, _, out = given[0].replace(" ", "").partition("->")
        parts = given[1] if isinstance(given[1], (list, tuple)) else given[1:]
        sizes: dict[str, int] = {}
        for letters, tensor in zip(words.split(","), parts, strict=True):
            sizes |= dict(zip(letters, tensor.shape, strict=True))
        return math.prod(size for letter, size in sizes.items() if letter not in out)
    return 0


def costs(head: FusionHead, table: FeatureTable) -> dict[str, float]:
    """Measure MACs and latency of a head on one row, without encoders.

    Args:
        head: in any mode; left in eval mode.
        table: rows on the device to measure; the first one is used.

    Returns:
        `macs` of matrix products and convolutions, `latency_p50` and `latency_p95` seconds.
    """
    row = table.take(np.array([0]))
    batch = Batch(
        {name: at_least_single(x) for name, x in row.features.items()},
        row.present,
        row.frame_present,
        row.targets,
        row.rows,
        row.rows[0] * 0,
    )
    head.eval()
    with torch.no_grad():
        with _Counter() as counter:
            head(batch)
        seconds = []
        for _ in range(TIMES):
            start = time.perf_counter()
            head(batch)
            if table.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    warm = seconds[TIMES // 5 :]
    return {
        "macs": float(counter.macs),
        "latency_p50": float(np.percentile(warm, 50)),
        "latency_p95": float(np.percentile(warm, 95)),
    }
