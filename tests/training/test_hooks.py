"""Hooks before training: what heads, and layers inside them, may take of the train rows."""

from collections.abc import Mapping

import pytest
from made import CLASSES, LABELS, VALUE, made_table
from torch import nn

from cache.errors import MmfuseError
from cache.samples import Task
from pipelines.features.statistics import Moments
from pipelines.features.table import batch_bounds
from pipelines.fusion.head import FusionHead, Inputs
from pipelines.methods import concat
from pipelines.training.plan import Plan
from pipelines.training.run import check_outputs, inputs_of, prepare


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


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
def test_a_head_with_another_number_of_outputs_is_refused_before_training(task: Task) -> None:
    """It would train, and its predictions would be of classes that do not exist."""
    table = made_table(20, task)
    inputs = inputs_of(table)
    check_outputs(concat.build(inputs, width=8), table, "mine")
    wider = Inputs(inputs.streams, Task("classes", tuple("abcdefg")))
    with pytest.raises(MmfuseError, match=r"mine: logits of 2 rows have shape \(2, 7\), not \(2, "):
        check_outputs(concat.build(wider, width=8), table, "mine")
