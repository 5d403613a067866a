"""Hooks before training: what heads, and layers inside them, may take of the train rows."""

from collections.abc import Mapping

import pytest
from made import made_table
from torch import nn

from pipelines.features.statistics import Moments
from pipelines.features.table import batch_bounds
from pipelines.fusion.head import FusionHead, Inputs
from pipelines.training.plan import Plan
from pipelines.training.run import inputs_of, prepare


class Layer(nn.Module):
    """A plain layer that defines both hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Note the streams."""
        self.seen.append(tuple(moments))

    def observe_epoch_size(self, batches: int, complete_rows: int) -> None:
        """Note both."""
        self.seen.append((batches, complete_rows))


class Silent(FusionHead):
    """A head that defines no hook, with a layer that does."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.layer = Layer()


class Speaking(Layer, FusionHead):
    """A head that defines both hooks itself."""

    def __init__(self, inputs: Inputs) -> None:
        FusionHead.__init__(self, inputs)
        self.seen = []


@pytest.mark.parametrize("kind", [Silent, Speaking])
def test_hooks_of_heads_and_of_their_layers_are_called_once(
    kind: type[Silent] | type[Speaking],
) -> None:
    """Each gets the streams' moments, the batches of an epoch, and how many rows are complete."""
    table = made_table(60)
    head = kind(inputs_of(table))
    prepare([head], table, Plan(batch_size=16))
    train = table.take(table.split("train"))
    sizes = len(batch_bounds(len(train), 16)), int(train.complete.sum())
    holder = head if isinstance(head, Layer) else head.layer
    assert holder.seen == [tuple(table.features), sizes]
