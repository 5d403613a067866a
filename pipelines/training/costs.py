"""Cost of a head: parameters, multiply-accumulates (MACs) and latency at batch size one."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.features.table import Batch, FeatureTable
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


def costs(head: FusionHead, table: FeatureTable) -> dict[str, float]:
    """Measure MACs and latency of a head on one row, without encoders.

    Args:
        head: in any mode; left in eval mode.
        table: rows on the device to measure; the first one is used.

    Returns:
        `macs` of matrix products (half of counted flops), `latency_p50` and `latency_p95` seconds.
    """
    row = table.take(np.array([0]))
    batch = Batch(
        row.features, row.present, row.frame_present, row.targets, row.rows, row.rows[0] * 0
    )
    head.eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
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
        "macs": counter.get_total_flops() / 2,
        "latency_p50": float(np.percentile(warm, 50)),
        "latency_p95": float(np.percentile(warm, 95)),
    }
