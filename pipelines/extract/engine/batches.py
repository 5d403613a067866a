"""Bucketing: samples of like cost share a batch, so that little is computed on padding."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.data.dataset import Kind

# Samples that are prepared before the first of them is encoded: many where lengths vary and items
# are small, few where an item is large. No batch leaves its window.
WINDOWS: dict[Kind, int] = {
    "text": 2048,
    "code": 2048,
    "tabular": 2048,
    "series": 1024,
    "audio": 256,
    "image": 512,
    "layout": 512,
    "video": 64,
}
_SHORT = 4  # batches of short samples may hold this many times the usual number


@dataclass(frozen=True)
class Budget:
    """What one batch may be.

    Attributes:
        rows: samples in a batch whose costs are alike.
        cost: most padded cost of a batch, which is its size times its largest cost; None for
            `rows` times the window's mean cost.
    """

    rows: int
    cost: int | None = None


# One batch on a CPU should not outlast the time between two checkpoints; one on a GPU should fill
# it. Costs are tokens, samples of sound (here at 16 kHz) and pictures; see `Encoder.prepare`.
_FREE = Budget(256)
_CPU: dict[Kind, Budget] = {
    "text": Budget(32, 4_096),
    "code": Budget(32, 4_096),
    "audio": Budget(8, 60 * 16_000),
    "video": Budget(4, 64),
}
_GPU: dict[Kind, Budget] = {
    "text": Budget(256, 32_768),
    "code": Budget(256, 32_768),
    "audio": Budget(64, 240 * 16_000),
    "video": Budget(64, 512),
}


def budget(kind: Kind, device: str, *, weights: bool) -> Budget:
    """What a batch may be, if nobody says otherwise.

    Args:
        kind: of the modality.
        device: where it is encoded, `cpu` or another.
        weights: whether the encoder has any; without, encoding costs next to nothing.
    """
    if not weights:
        return _FREE
    if device == "cpu":
        return _CPU.get(kind, Budget(32))
    return _GPU.get(kind, Budget(256))


def batches(costs: Sequence[int], budget: Budget) -> list[list[int]]:
    """Positions in batches, dearest first: what does not fit into memory shows at once.

    Equal costs stay in order. A batch holds at most `budget.rows` samples (four times as many if
    they are short) and at most `budget.cost` padded, but always one.
    """
    if not costs:
        return []
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    alike = costs[order[0]] == costs[order[-1]]
    most = budget.rows if alike else _SHORT * budget.rows
    padded = budget.cost or max(1, round(budget.rows * sum(costs) / len(costs)))
    found: list[list[int]] = []
    batch: list[int] = []
    for place in order:
        largest = costs[batch[0]] if batch else 0
        if batch and (len(batch) >= most or (len(batch) + 1) * largest > padded):
            found.append(batch)
            batch = []
        batch.append(place)
    found.append(batch)
    return found
