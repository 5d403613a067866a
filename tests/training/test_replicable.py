"""Heads that cannot run under vmap: their replicas one after another, with the same results."""

import numpy as np
import pytest
import torch
from made import fill_store, made_table

from cache.errors import MmfuseError
from cache.layout import Home
from pipelines.features.table import gather
from pipelines.methods import clarga, concat, mla
from pipelines.training.optimizer import Rates
from pipelines.training.replicas import Replicas, one_by_one
from pipelines.training.run import build_heads, inputs_of
from pipelines.training.train import train

HEAD = """
from torch import nn

from mmfuse import Fused, FusionHead, Tokens


class Reading(FusionHead):
    REPLICABLE
    def __init__(self, inputs):
        super().__init__(inputs)
        self.tokens = Tokens(inputs, 8, norm="zscore")
        self.out = nn.Linear(8, inputs.outputs)

    def forward(self, batch):
        tokens = self.tokens(batch).mean(1)
        if tokens.abs().mean().item() > 0.1:
            tokens = 2 * tokens
        return Fused(self.out(tokens))


def build(inputs):
    return Reading(inputs)
"""
WORDS = {"epochs": 2, "learning_rate": 1e-2}


@pytest.fixture
def home(tmp_path):
    """Features of three streams."""
    home = Home(tmp_path / "home")
    fill_store(home, made_table(96))
    return home


def written(folder, replicable):
    """The head's file."""
    path = folder / "reading.py"
    path.write_text(HEAD.replace("REPLICABLE", replicable))
    return str(path)


def test_a_head_that_reads_values_says_so_and_is_trained(tmp_path, home):
    """Two seeds at once are the two seeds alone; predictions are there for each."""
    method = written(tmp_path, "replicable = False")
    both = train(method, "made", home=home, options=WORDS | {"seeds": (0, 1)})
    for number, seed in enumerate((0, 1)):
        one = train(method, "made", home=home, options=WORDS | {"seeds": (seed,)})
        for name, value in one.state().items():
            assert np.allclose(both.state()[name][number], value[0], atol=1e-6), name
    assert both.predictions()["seed"].unique().sort().to_list() == [0, 1]


def test_without_saying_so_one_line_names_the_place(tmp_path, home):
    """Which line of whose file, and both ways out."""
    method = written(tmp_path, "pass")
    with pytest.raises(MmfuseError) as caught:
        train(method, "made", home=home, options=WORDS)
    said = str(caught.value)
    assert "reading.py, line 16: `if tokens.abs().mean().item() > 0.1:` cannot run" in said
    assert "replicable = False" in said


@pytest.mark.parametrize("module", [concat, clarga, mla], ids=lambda module: module.__name__)
def test_one_after_another_is_what_vmap_does(monkeypatch, module):
    """Steps, buffers, losses and logits of heads that can run either way."""
    table, found = made_table(40), []
    for replicable in (True, False):
        heads = [head.double() for head in build_heads(module, inputs_of(table), {}, (0, 1, 2))]
        monkeypatch.setattr(type(heads[0]), "replicable", replicable)
        replicas, rates = Replicas(heads), [Rates(1e-2, 1e-2), None, Rates(1e-3, 0.0)]
        index = torch.stack([torch.arange(40).roll(7 * r) for r in range(3)])
        batch = gather(table, index, torch.arange(3))
        stage = replicas.head.stages[0].name
        losses = [
            replicas.step(batch, (step, stage), "adamw", rates, [1.0] * 3)
            for step in replicas.steps(stage)
        ]
        asked = replicas.losses(table, replicas.steps(stage)[0], 16, (0, 2))
        found.append([*losses, asked, replicas.logits(table), *replicas.state.values()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one.double(), other.double(), atol=1e-6)


def test_trees_of_tensors_are_stacked_as_vmap_stacks_them():
    """Shared arguments are not indexed; dictionaries and tuples keep their form."""

    def act(state, shared):
        return {"sum": state["a"] + shared, "pair": (state["a"] * 2, shared.mean())}

    state, shared = {"a": torch.arange(6.0).view(3, 2)}, torch.ones(2)
    one, other = (each(act, (0, None))(state, shared) for each in (torch.func.vmap, one_by_one))
    assert torch.equal(one["sum"], other["sum"])
    assert all(torch.equal(a, b) for a, b in zip(one["pair"], other["pair"], strict=True))
