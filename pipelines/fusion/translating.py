"""Translating: what one stream says that another would be (TRML)."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from pipelines.counter_rng import dropout
from pipelines.features.table import Batch
from pipelines.fusion.head import Inputs
from pipelines.fusion.layers import slot

Pairs = dict[tuple[str, str], Tensor]


class Translators(nn.Module):
    """G: from the mean of one stream to that of another; for every ordered pair, or over a hub."""

    def __init__(self, inputs: Inputs, hidden: int, kind: Literal["pairs", "hub"]) -> None:
        super().__init__()
        self.kind, names = kind, inputs.names
        widths = {name: stream.width for name, stream in inputs.streams.items()}
        if kind == "hub":
            self.up = nn.ModuleDict({slot(a): nn.Linear(widths[a], hidden) for a in names})
            self.down = nn.ModuleDict({slot(m): nn.Linear(hidden, widths[m]) for m in names})
            return
        pairs = [(a, m) for a in names for m in names if a != m]
        self.up = nn.ModuleDict({key(a, m): nn.Linear(widths[a], hidden) for a, m in pairs})
        self.down = nn.ModuleDict({key(a, m): nn.Linear(hidden, widths[m]) for a, m in pairs})

    def forward(self, means: Mapping[str, Tensor], batch: Batch, *, training: bool) -> Pairs:
        """Every ordered pair (a, m): (B, D_m), what m would be, told by a."""
        made = {}
        for a, x in means.items():
            for m in means:
                if a != m:
                    up, down = (slot(a), slot(m)) if self.kind == "hub" else (key(a, m),) * 2
                    hidden = nn.functional.gelu(self.up[up](x))
                    place = f"trml.{up}"
                    hidden = dropout(hidden, 0.1, batch.numbers, place, training=training)
                    made[a, m] = self.down[down](hidden)
        return made


def key(source: str, target: str) -> str:
    """Name of the translator from one stream to another."""
    return f"{slot(source)}>{slot(target)}"
