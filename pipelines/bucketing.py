"""Bucketing: samples of like cost share a batch, so that little is computed on padding."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.samples import Kind

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
