"""Every method trained as replicas equals a plain loop over one head with `torch.optim`."""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from made import CLASSES, made_table, plain_optimizer
from torch import Tensor, nn

from pipelines import catalog, counter_rng
from pipelines.contracts.head_probe import train_steps
from pipelines.features.table import Batch, FeatureTable, batch_bounds, gather
from pipelines.fusion.head import FusionHead
from pipelines.training.optimizer import Rates
from pipelines.training.plan import base_plan
from pipelines.training.replicas import Replicas
from pipelines.training.run import inputs_of

METHODS = sorted(catalog.entries("methods"))
SEEDS = (0, 1, 2)


def heads_of(module: ModuleType, table: FeatureTable, dtype: torch.dtype) -> list[FusionHead]:
    """One head a seed, in training mode."""
    heads = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        head = module.build(inputs_of(table)).train()
        heads.append(head.double() if dtype == torch.float64 else head)
    return heads


def batches(table: FeatureTable, steps: int) -> Iterator[tuple[int, Batch]]:
    """Three batches side by side, with the number of the step, until there were enough."""
    train, number = torch.as_tensor(table.split("train")), 0
    while number < steps:
        keys = counter_rng.key(torch.tensor(SEEDS), number)
        order = torch.stack([train[counter_rng.permutation(k, "order", len(train))] for k in keys])
        for start, stop in batch_bounds(len(train), 16):
            yield number, gather(table, order[:, start:stop], counter_rng.key(keys, number))
            number += 1


def one_of(batch: Batch, replica: int) -> Batch:
    """The batch of one replica."""
    return Batch(
        {name: x[replica] for name, x in batch.features.items()},
        batch.present[replica],
        {name: x[replica] for name, x in batch.frame_present.items()},
        batch.targets[replica],
        batch.rows[replica],
        batch.numbers[replica],
    )


def plain_step(
    head: FusionHead, optimizer: torch.optim.Optimizer, batch: Batch, where: tuple[str, str]
) -> None:
    """Forward, backward, the head's own change of gradients, clipping, a step: one head."""
    step, stage = where
    before = {name: buffer.clone() for name, buffer in head.named_buffers()}
    fused = head(batch)
    moving = {n: p for n, p in head.named_parameters() if head.trains(n, step, stage)}
    loss = head.loss(batch, fused, step)
    found = torch.autograd.grad(
        loss, list(moving.values()), allow_unused=True, materialize_grads=True
    )
    after = {n: b if head.trains(n, step, stage) else before[n] for n, b in head.named_buffers()}
    gradients = dict(zip(moving, found, strict=True))
    gradients, after = head.modify_gradients(gradients, after, batch, fused, step)
    for name, buffer in after.items():
        owner, _, leaf = name.rpartition(".")
        setattr(head.get_submodule(owner), leaf, buffer.detach())
    optimizer.zero_grad()
    for name, parameter in moving.items():
        parameter.grad = gradients[name].detach().clone()
    nn.utils.clip_grad_norm_(list(moving.values()), 1.0)
    optimizer.step()


def trained(method: str, table: FeatureTable, steps: int, dtype: torch.dtype) -> tuple:
    """The replicas after some steps of every stage, and the same heads trained one by one."""
    module = catalog.find("methods", method)
    plan = base_plan(module, method)
    heads, replicas = heads_of(module, table, dtype), Replicas(heads_of(module, table, dtype))
    momentum = plan.momentum if plan.optimizer == "sgd" else None
    rates = (plan.learning_rate, plan.weight_decay, momentum)
    optimizers = [plain_optimizer(head, *rates) for head in heads]
    rates = [Rates(plan.learning_rate, plan.weight_decay, plan.momentum)] * len(SEEDS)
    places = list(train_steps(heads[0]))
    stages = list(dict.fromkeys(stage for stage, _ in places))
    for number, batch in batches(table, steps):
        stage = stages[min(number * len(stages) // steps, len(stages) - 1)]
        for turn, step in enumerate(step for at, step in places if at == stage):
            turned = replace(batch, numbers=counter_rng.key(batch.numbers, turn))
            replicas.step(turned, (step, stage), plan.optimizer, rates, [1.0] * len(SEEDS))
            for replica, (head, optimizer) in enumerate(zip(heads, optimizers, strict=True)):
                plain_step(head, optimizer, one_of(turned, replica), (step, stage))
    return replicas, heads


@pytest.mark.parametrize("steps", [30, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_a_hundred_steps_side_by_side_equal_a_plain_loop(method, steps):
    """In double precision every parameter and buffer of three replicas agrees to 1e-8."""
    table = made_table(65, CLASSES, dtype=torch.float64)
    replicas, heads = trained(method, table, steps, torch.float64)
    for replica, head in enumerate(heads):
        for name, value in head.state_dict().items():
            got: Tensor = replicas.state[name][replica]
            torch.testing.assert_close(got, value, rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_twenty_steps_side_by_side_give_the_logits_of_a_plain_loop(method):
    """In single precision the logits of every row agree to 1e-4."""
    table = made_table(65, CLASSES)
    replicas, heads = trained(method, table, 20, torch.float32)
    together = replicas.logits(table)
    rows = gather(table, torch.arange(len(table))[None], torch.zeros(1, dtype=torch.int64))
    for replica, head in enumerate(heads):
        alone = head.eval()(one_of(rows, 0)).logits.detach()
        torch.testing.assert_close(together[replica], alone, rtol=1e-4, atol=1e-4)
