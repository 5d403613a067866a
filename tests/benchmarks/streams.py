"""What clarga costs as streams are added: multiplications and seconds, with fitted exponents.

Run: python tests/benchmarks/streams.py [--device cuda] [--width 128]

The exponent e of cost ~ M^e is the slope of log cost against log M, over all sizes and over the
last doubling. The paper says "sub-quadratic in the number of modalities"; the graph is complete.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.contracts import synthetic
from pipelines.methods import clarga

STREAMS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
ABLATIONS: tuple[clarga.Ablation, ...] = ("none", "uniform", "mean")
ROWS, FEATURES, ROUNDS = 64, 64, 5


def cost(streams: int, ablation: clarga.Ablation, width: int, device: str) -> tuple[float, float]:
    """MACs of a row and seconds of a batch, in evaluation mode."""
    inputs = synthetic.inputs((FEATURES,) * streams)
    head = clarga.build(inputs, width=width, ablation=ablation).to(device).eval()
    batch = synthetic.to_device(synthetic.batch(inputs, ROWS, absent=0.1), device)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            head(batch)
        seconds = median(timed(lambda: head(batch), device) for _ in range(ROUNDS))
    return counter.get_total_flops() / 2 / ROWS, seconds


def timed(run: Callable[[], object], device: str) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Slope of log cost against log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    """Print one table for each ablation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args()
    for ablation in ABLATIONS:
        found = [cost(m, ablation, args.width, args.device) for m in STREAMS]
        print(f"\nclarga, ablation={ablation}, width {args.width}, {ROWS} rows, {args.device}")
        print("streams   MMAC a row   ms a batch")
        for streams, (macs, seconds) in zip(STREAMS, found, strict=True):
            print(f"{streams:7} {macs / 1e6:12.3f} {seconds * 1e3:12.2f}")
        for name, column in (("MACs", 0), ("seconds", 1)):
            costs = [each[column] for each in found]
            upto = STREAMS.index(128) + 1
            print(
                f"exponent of {name}: {exponent(list(STREAMS[:upto]), costs[:upto]):.2f} over "
                f"2 … 128, {exponent(list(STREAMS[-2:]), costs[-2:]):.2f} over the last doubling"
            )


if __name__ == "__main__":
    main()
