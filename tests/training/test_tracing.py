"""Recorded steps against eager ones."""

from typing import Any

import pytest
import torch
from made import made_table
from torch.func import grad, vmap

from pipelines import catalog, counter_rng
from pipelines.features.table import gather
from pipelines.training.optimizer import Rates
from pipelines.training.replicas import Replayed, Replicas
from pipelines.training.run import build_heads, inputs_of


def test_a_function_is_recorded_once_for_each_shape_that_comes_often() -> None:
    """Two shapes, one of them rare; results are the same before, at and after recording."""
    seen = []

    def slope(x: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return vmap(grad(lambda y: (y.sin() * y).sum()))(x)

    replayed = Replayed(slope, often=3)
    often, rare = torch.randn(4, 5), torch.randn(2, 5)
    wanted = slope(often)
    seen.clear()
    for _ in range(10):
        assert torch.equal(replayed(often), wanted)
    assert len(seen) == 4  # three eager calls and the recording
    replayed(rare)
    assert len(replayed.records) == 1


def test_what_cannot_be_recorded_stays_eager() -> None:
    """A function that looks at data is called as before, every time."""
    replayed = Replayed(lambda x: x * 2 if float(x.sum()) > 0 else x * 3, often=2)
    for _ in range(4):
        assert replayed(torch.ones(2)).tolist() == [2, 2]
        assert replayed(-torch.ones(2)).tolist() == [-3, -3]


DEAR = {"ef_cl", "mla", "trml"}  # many steps and stages: only in slow runs


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name
        for name in sorted(catalog.entries("methods"))
    ],
)
def test_recorded_steps_have_the_bits_of_eager_ones(method: str, monkeypatch: Any) -> None:
    """Every method, every step of every stage: state and losses agree in every bit."""
    table, module = made_table(40), catalog.find("methods", method)
    found = []
    for often in (2, 10**9):
        monkeypatch.setattr(
            "pipelines.training.replicas.Replayed", lambda f, often=often: Replayed(f, often)
        )
        replicas = Replicas(build_heads(module, inputs_of(table), {}, [0, 1]))
        losses = []
        for number in range(4):
            index = torch.arange(16).roll(number).expand(2, 16)
            batch = gather(table, index, counter_rng.key(torch.arange(2), number))
            for stage in replicas.head.stages:
                for step in replicas.steps(stage.name):
                    rates = [Rates(1e-3, 1e-2)] * 2
                    where = (step, stage.name)
                    losses.append(replicas.step(batch, where, "adamw", rates, [None, 1.0]))
        found.append({"losses": torch.stack(losses)} | dict(replicas.state))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
