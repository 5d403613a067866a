"""Multiply-accumulates of a head against those that torch counts."""

import numpy as np
import pytest
import torch
from made import made_table
from torch.utils.flop_counter import FlopCounterMode

from pipelines import catalog
from pipelines.features.table import Batch
from pipelines.training.costs import costs
from pipelines.training.run import build_heads, inputs_of


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frames", [0, 4])
@pytest.mark.parametrize("method", sorted(catalog.entries("methods")))
def test_macs_are_half_the_flops_of_torch(method, frames):
    """Linear maps, products, einsum, convolutions; torch leaves out products with one vector."""
    table = made_table(40, frames=frames)
    (head,) = build_heads(catalog.find("methods", method), inputs_of(table), {}, [0])
    row = table.take(np.array([0]))
    parts = (row.features, row.present, row.frame_present, row.targets, row.rows)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head.eval()(Batch(*parts, row.rows[0]))
    vectors = 3 * 128 if method == "clarga" else 0  # the read-out's query
    assert costs(head, table)["macs"] == counter.get_total_flops() / 2 + vectors
