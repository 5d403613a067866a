"""Optimiser, clipping, schedules and stopping, as vectors over replicas, against torch.optim."""

import math

import pytest
import torch
from torch import Tensor, nn

from pipelines.training.optimizer import (
    ParameterBlock,
    Rates,
    ReplicaSchedule,
    clip_gradients,
    optimizer_step,
)
from pipelines.training.plan import Rule

SHAPES = {"weight": (3, 4), "bias": (3,), "scale": ()}


def made_block(count: int, dtype: torch.dtype = torch.float64) -> ParameterBlock:
    """Random parameters, of which `weight` decays."""
    torch.manual_seed(0)
    return ParameterBlock(
        {n: torch.randn(count, *s, dtype=dtype) for n, s in SHAPES.items()}, {"weight"}
    )


def reference(
    block: ParameterBlock, r: int, rule: Rule, rates: Rates
) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    """One replica's parameters under torch.optim."""
    views = block.views(block.flat)
    own = {n: nn.Parameter(views[n][r].clone()) for n in SHAPES}
    groups = [
        {"params": [own["weight"]], "weight_decay": rates.weight_decay},
        {"params": [own["bias"], own["scale"]], "weight_decay": 0.0},
    ]
    if rule == "adamw":
        return own, torch.optim.AdamW(groups, lr=rates.learning_rate)
    return own, torch.optim.SGD(groups, lr=rates.learning_rate, momentum=rates.momentum)


@pytest.mark.parametrize("rule", ["adamw", "sgd"])
def test_steps_are_those_of_torch_optim_with_a_rate_for_each_replica(rule: Rule) -> None:
    """100 steps of three replicas with their own rates and decays, to 1e-12."""
    block = made_block(3)
    rates = [Rates(1e-2, 0.1), Rates(3e-2, 0.0), Rates(1e-2, 0.3, 0.5)]
    others = [reference(block, r, rule, rates[r]) for r in range(3)]
    for step in range(100):
        torch.manual_seed(step)
        gradients = {n: torch.randn(3, *s, dtype=torch.float64) for n, s in SHAPES.items()}
        optimizer_step(block, gradients, rule, rates)
        for r, (own, optimizer) in enumerate(others):
            for name, parameter in own.items():
                parameter.grad = gradients[name][r].clone()
            optimizer.step()
    for r, (own, _) in enumerate(others):
        for name, view in block.views(block.flat).items():
            assert torch.allclose(view[r], own[name], rtol=0, atol=1e-12), (name, r)


@pytest.mark.parametrize("rule", ["adamw", "sgd"])
def test_a_stopped_replica_stays_exactly_as_it_is(rule: Rule) -> None:
    """Weights, moments and count of a row without a rate do not change by one bit."""
    block = made_block(2)
    ones = {n: torch.ones(2, *s, dtype=torch.float64) for n, s in SHAPES.items()}
    optimizer_step(block, ones, rule, [Rates(0.1, 0.1), Rates(0.1, 0.1)])
    stopped = [t[1].clone() for t in (block.flat, block.first, block.second, block.count)]
    optimizer_step(block, {n: one[:1] for n, one in ones.items()}, rule, [Rates(0.1, 0.1), None])
    for before, after in zip(
        stopped, (block.flat, block.first, block.second, block.count), strict=True
    ):
        assert torch.equal(before, after[1])
    assert block.count.tolist() == [2, 1]


def test_five_rows_step_as_one_row_does() -> None:
    """A replica's step is bit-identical alone and among five."""
    many = made_block(5, torch.float32)
    views = {n: v[3:4].clone() for n, v in many.views(many.flat).items()}
    one = ParameterBlock(views, {"weight"})
    slopes = {n: torch.randn(5, *s) for n, s in SHAPES.items()}
    own = {n: slope[3:4] for n, slope in slopes.items()}
    for _ in range(10):
        optimizer_step(many, slopes, "adamw", [Rates(1e-2, 0.1)] * 5)
        optimizer_step(one, own, "adamw", [Rates(1e-2, 0.1)])
    assert torch.equal(many.flat[3:4], one.flat)


def test_clipping_is_that_of_torch_for_each_replica() -> None:
    """The norm is over all blocks, each replica has its own limit or none."""
    torch.manual_seed(1)
    parts = [torch.randn(3, 7, dtype=torch.float64) * 4, torch.randn(3, 2, dtype=torch.float64)]
    shaped = [parts[0].clone().view(3, 7, 1), parts[1].clone()]
    wanted = []
    for r, limit in enumerate([1.0, None, 100.0]):
        own = [nn.Parameter(torch.zeros_like(p[r])) for p in parts]
        for parameter, p in zip(own, parts, strict=True):
            parameter.grad = p[r].clone()
        if limit is not None:
            nn.utils.clip_grad_norm_(own, limit)
        wanted.append(torch.cat([p.grad for p in own if p.grad is not None]))
    clip_gradients(shaped, [1.0, None, 100.0])
    found = torch.cat([part.flatten(1) for part in shaped], 1)
    assert torch.allclose(found, torch.stack(wanted), rtol=1e-12, atol=0)


def test_cosine_and_step_schedules_are_torchs() -> None:
    """Learning rates of 30 epochs agree with torch's schedulers."""
    weight = nn.Parameter(torch.zeros(1))
    for name, make in (
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30)),
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.1)),
    ):
        optimizer = torch.optim.SGD([weight], lr=0.5)
        scheduler = make(optimizer)
        schedule = ReplicaSchedule([0.5, 1.0], name, 30, None, every=7)  # type: ignore[arg-type]
        for epoch in range(30):
            found = schedule.at(epoch)
            assert found[0] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
            assert found[1] == pytest.approx(2 * found[0])
            optimizer.step()
            scheduler.step()


def test_a_plateau_is_torchs_for_each_replica() -> None:
    """Two replicas with losses of their own follow ReduceLROnPlateau."""
    torch.manual_seed(0)
    losses = torch.rand(2, 60).cumsum(1) * torch.tensor([[0.0], [1.0]]) + torch.rand(2, 60)
    schedule = ReplicaSchedule([1.0, 1.0], "plateau", 60, None, factor=0.5, waits=3)
    optimizers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    schedulers = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=3, eps=0.0)
        for o in optimizers
    ]
    for epoch in range(60):
        for r in range(2):
            assert schedule.at(epoch)[r] == pytest.approx(optimizers[r].param_groups[0]["lr"])
            optimizers[r].step()
            schedulers[r].step(losses[r, epoch])
        schedule.observe(losses[:, epoch].tolist())
    assert schedule.scale[1] < schedule.scale[0] <= 1


def stopping_by_hand(values: list[float], patience: int, least: float) -> tuple[int, int]:
    """(best epoch, last epoch) of early stopping, written as a loop for one replica."""
    best, best_at, bad = math.inf, -1, 0
    for epoch, value in enumerate(values):
        if value < best - least or (math.isinf(best) and math.isfinite(value)):
            best, best_at, bad = value, epoch, 0
        else:
            bad += 1
        if bad >= patience:
            return best_at, epoch
    return best_at, len(values) - 1


def test_early_stopping_is_a_loops_for_each_replica() -> None:
    """Best and last epoch of 20 replicas with random losses, some of them NaN."""
    torch.manual_seed(3)
    losses = torch.randn(20, 40)
    losses[torch.rand(20, 40) < 0.1] = math.nan
    schedule = ReplicaSchedule([1.0] * 20, "constant", 40, 6, least=0.1)
    best, last = [-1] * 20, [-1] * 20
    for epoch in range(40):
        going = list(schedule.active)
        for r, better in enumerate(schedule.observe(losses[:, epoch].tolist())):
            best[r] = epoch if better else best[r]
            last[r] = epoch if going[r] else last[r]
    wanted = [stopping_by_hand(row.tolist(), 6, 0.1) for row in losses]
    assert list(zip(best, last, strict=True)) == wanted


def test_views_are_windows_into_the_matrix() -> None:
    """What a view is given is in the matrix, whatever the parameter's shape."""
    block = made_block(2)
    views: dict[str, Tensor] = block.views(block.flat)
    views["scale"].fill_(9.0)
    assert {n: tuple(v.shape[1:]) for n, v in views.items()} == SHAPES
    assert torch.equal(torch.cat([views[n].reshape(2, -1) for n in block.names], 1), block.flat)
    assert (block.flat == 9).sum() == 2
