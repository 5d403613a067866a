"""Replicas side by side against a plain loop over one head at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from made import CLASSES, LABELS, VALUE, batch_of, made_table, plain_optimizer
from torch import Tensor, nn
from torch.func import vmap

from cache.samples import Task
from pipelines import counter_rng
from pipelines.features.hiding import drop_modalities
from pipelines.features.table import Batch, FeatureTable, batch_bounds, gather
from pipelines.fusion.head import Fused, FusionHead, Inputs, Stage
from pipelines.fusion.layers import BatchNorm
from pipelines.methods import concat
from pipelines.training.optimizer import Rates
from pipelines.training.replicas import Replicas
from pipelines.training.run import inputs_of

RATES = Rates(3e-3, 1e-2)
SHARE = torch.tensor(0.3)


class Normed(FusionHead):
    """A head with running statistics, dropout, and state that its forward writes."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.inner = concat.build(inputs, width=8, dropout=0.2)
        self.norm = BatchNorm(inputs.outputs)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Fused:
        """Normalised logits."""
        if self.training:
            self.calls = self.calls + 1
        return Fused(self.norm(self.inner(batch).logits, batch.present.any(1)))


def heads_of(
    table: FeatureTable, count: int, dtype: torch.dtype, make: Callable[..., FusionHead] = Normed
) -> list[FusionHead]:
    """Heads of different seeds."""
    heads: list[FusionHead] = []
    for seed in range(count):
        torch.manual_seed(seed)
        heads.append(make(inputs_of(table)).to(dtype))
    return heads


def dropped(table: FeatureTable, present: Tensor, key: Tensor) -> Tensor:
    """Modality dropout of one replica."""
    return drop_modalities(present, table.owners, SHARE, key)


def plain_loop(head: FusionHead, table: FeatureTable, seed: int, steps: int) -> list[float]:
    """One head, one seed, torch.optim; as anybody would write it."""
    optimizer = plain_optimizer(head, RATES.learning_rate, RATES.weight_decay)
    train, losses = torch.as_tensor(table.split("train")), []
    head.train()
    for epoch in range(steps):
        key = counter_rng.key(torch.tensor(seed), 0, epoch)
        order = train[counter_rng.permutation(key, "order", len(train))]
        for number, (start, stop) in enumerate(batch_bounds(len(train), 16)):
            if len(losses) == steps:
                return losses
            at, own = order[start:stop], counter_rng.key(key, number)
            batch = batch_of(table, at, own)
            there = drop_modalities(batch.present, table.owners, SHARE, own)
            batch = replace(batch, present=there)
            loss = head.loss(batch, head(batch), "joint")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def stacked_loop(
    replicas: Replicas, table: FeatureTable, seeds: Sequence[int], steps: int
) -> list[list[float]]:
    """The same for R replicas with the engine's parts."""
    train, losses = torch.as_tensor(table.split("train")), []
    for epoch in range(steps):
        keys = counter_rng.key(torch.tensor(list(seeds)), 0, epoch)
        order = train[vmap(lambda k: counter_rng.permutation(k, "order", len(train)))(keys)]
        for number, (start, stop) in enumerate(batch_bounds(len(train), 16)):
            if len(losses) == steps:
                return losses
            batch = gather(table, order[:, start:stop], counter_rng.key(keys, number))
            there = vmap(partial(dropped, table))(batch.present, batch.numbers)
            batch = replace(batch, present=there)
            many = [RATES] * replicas.count
            found = replicas.step(batch, ("joint", "fit"), "adamw", many, [1.0] * replicas.count)
            losses.append(found.tolist())
    return losses


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
@pytest.mark.parametrize("frames", [0, 4])
def test_replicas_equal_a_plain_loop_in_double_precision(task: Task, frames: int) -> None:
    """After 100 steps every parameter and buffer of three replicas agrees to 1e-8."""
    table = made_table(65, task, frames=frames, dtype=torch.float64)
    heads = heads_of(table, 3, torch.float64)
    replicas = Replicas(heads_of(table, 3, torch.float64))
    together = torch.tensor(stacked_loop(replicas, table, range(3), 100))
    for seed, head in enumerate(heads):
        alone = plain_loop(head, table, seed, 100)
        assert torch.allclose(together[:, seed], torch.tensor(alone), rtol=0, atol=1e-8)
        for name, value in head.state_dict().items():
            assert torch.allclose(replicas.state[name][seed], value, rtol=0, atol=1e-8), name


def test_replicas_equal_a_plain_loop_in_single_precision() -> None:
    """After 20 steps the logits of every row agree to 1e-4.

    Without batch normalisation: a bias in front of it has gradient zero but for rounding, and
    AdamW divides rounding by rounding, in the plain loop too.
    """
    table = made_table(65)
    replicas = Replicas(heads_of(table, 3, torch.float32, concat.build))
    stacked_loop(replicas, table, range(3), 20)
    logits = replicas.logits(table)
    for seed, head in enumerate(heads_of(table, 3, torch.float32, concat.build)):
        plain_loop(head, table, seed, 20)
        head.eval()
        assert torch.allclose(logits[seed], head(batch_of(table)).logits, rtol=0, atol=1e-4)


def test_one_replica_is_one_of_five() -> None:
    """Losses and weights of a seed trained alone are those it has among five.

    In double precision: the bias in front of batch normalisation divides rounding by rounding.
    """
    table = made_table(65, dtype=torch.float64)
    five = Replicas(heads_of(table, 5, torch.float64))
    together = torch.tensor(stacked_loop(five, table, range(5), 40))
    one = Replicas(heads_of(table, 5, torch.float64)[3:4])
    alone = torch.tensor(stacked_loop(one, table, [3], 40))
    assert torch.allclose(together[:, 3], alone[:, 0], rtol=0, atol=1e-8)
    for name, value in one.state.items():
        assert torch.allclose(five.state[name][3], value[0], rtol=0, atol=1e-8), name


def test_a_stopped_replica_changes_nothing_buffers_included() -> None:
    """Not one bit of a replica without rates changes, and the others go on."""
    table = made_table(40)
    replicas = Replicas(heads_of(table, 2, torch.float32))
    before = {n: v.clone() for n, v in replicas.state.items()}
    index = torch.arange(20).expand(2, 20)
    batch = gather(table, index, counter_rng.key(torch.arange(2)))
    replicas.step(batch, ("joint", "fit"), "adamw", [RATES, None], [None, None])
    after = replicas.state
    assert all(torch.equal(before[n][1], after[n][1]) for n in before)
    assert after["calls"].tolist() == [1, 0]
    moved = [n for n in before if not torch.equal(before[n][0], after[n][0])]
    assert "norm.running_mean" in moved
    assert "inner.out.weight" in moved


class Turns(FusionHead):
    """Two stages; the second one has a step for each stream, and a projection as state."""

    stages = (Stage("align", ("align",)), Stage("turns", ("lens/image", "ear/audio")))

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.first = nn.Linear(inputs.streams["lens/image"].width, 3)
        self.second = nn.Linear(inputs.streams["ear/audio"].width, 3)
        self.shared = nn.Linear(3, inputs.outputs)
        self.register_buffer("seen", torch.zeros(3, dtype=torch.float64))

    def forward(self, batch: Batch) -> Fused:
        """Mean of what the streams say."""
        x = {n: torch.where(batch.present[:, i, None], v, 0)
             for i, (n, v) in enumerate(batch.features.items())}  # fmt: skip
        each = [self.first(x["lens/image"]), self.second(x["ear/audio"])]
        logits = self.shared(torch.stack(each, 1))  # (B, M, C)
        return Fused(logits.mean(1), stream_logits=logits)

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Of one stream at a time, or the logits' size while aligning."""
        if step == "align":
            return fused.logits.square().mean()
        number = list(self.inputs.streams).index(step)
        assert fused.stream_logits is not None
        return self.task_loss(batch, fused.stream_logits[:, number])

    def trains(self, name: str, step: str, stage: str) -> bool:
        """The step's own encoder, and what is shared in the second stage."""
        own = {"align": "first", "lens/image": "first", "ear/audio": "second"}[step]
        return name.startswith(own) or (stage == "turns" and name.startswith(("shared", "seen")))

    def modify_gradients(
        self,
        gradients: dict[str, Tensor],
        buffers: dict[str, Tensor],
        batch: Batch,
        fused: Fused,
        step: str,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Halve the shared weight's and count the steps."""
        if step == "align":
            return gradients, buffers
        halved = {n: g / 2 if n == "shared.weight" else g for n, g in gradients.items()}
        return halved, buffers | {"seen": buffers["seen"] + 1}


def turning(table: FeatureTable) -> Replicas:
    """Two replicas of the head above."""
    heads: list[FusionHead] = []
    for seed in range(2):
        torch.manual_seed(seed)
        heads.append(Turns(inputs_of(table)))
    return Replicas(heads)


def changed(replicas: Replicas, table: FeatureTable, where: tuple[str, str]) -> set[str]:
    """Names of what one step moves."""
    before = {n: v.clone() for n, v in replicas.state.items()}
    batch = gather(table, torch.arange(20).expand(2, 20), counter_rng.key(torch.arange(2)))
    replicas.step(batch, where, "sgd", [RATES, RATES], [None, None])
    return {n for n, v in replicas.state.items() if not torch.equal(v, before[n])}


def test_only_what_a_step_trains_moves() -> None:
    """Every step of every stage moves exactly its own parameters and buffers."""
    table = made_table(40, names=("lens/image", "ear/audio"))
    replicas = turning(table)
    shared = {"shared.weight", "shared.bias", "seen"}
    first, second = {"first.weight", "first.bias"}, {"second.weight", "second.bias"}
    assert changed(replicas, table, ("align", "align")) == first
    assert changed(replicas, table, ("lens/image", "turns")) == first | shared
    assert changed(replicas, table, ("ear/audio", "turns")) == second | shared


def test_modified_gradients_are_the_ones_used() -> None:
    """A gradient that the head halves moves the weight half as far."""
    table = made_table(40, names=("lens/image", "ear/audio"))
    batch = gather(table, torch.arange(20).expand(2, 20), counter_rng.key(torch.arange(2)))
    moved: list[dict[str, Tensor]] = []
    for halve in (True, False):
        replicas = turning(table)
        if not halve:
            replicas.head.modify_gradients = lambda g, b, *_: (g, b)  # type: ignore[method-assign]
        before = {n: v.clone() for n, v in replicas.state.items()}
        replicas.step(batch, ("lens/image", "turns"), "sgd", [Rates(1, 0)] * 2, [None] * 2)
        moved.append({n: v - before[n] for n, v in replicas.state.items()})
    assert torch.allclose(moved[0]["shared.weight"] * 2, moved[1]["shared.weight"], atol=1e-6)
    assert torch.allclose(moved[0]["shared.bias"], moved[1]["shared.bias"])


def test_a_state_goes_round() -> None:
    """A state loaded into another stack gives equal outputs."""
    table = made_table(40)
    one, other = (Replicas(heads_of(table, n, torch.float32)[-2:]) for n in (2, 4))
    assert not torch.equal(one.logits(table), other.logits(table))
    other.load({n: v.clone() for n, v in one.state.items()})
    assert torch.equal(one.logits(table), other.logits(table))


def test_outputs_do_not_depend_on_how_rows_are_cut(monkeypatch: Any) -> None:
    """Logits of rows scored by threes are those scored at once."""
    table = made_table(40)
    replicas = Replicas(heads_of(table, 2, torch.float32))
    whole = replicas.logits(table)
    monkeypatch.setattr("pipelines.training.replicas.EVAL_ROWS", 3)
    assert torch.allclose(replicas.logits(table), whole, atol=1e-5)


def test_what_is_behind_absence_changes_nothing() -> None:
    """NaN, zeros or a million behind absent cells: losses and weights are the same bits."""
    states = []
    for fill in (float("nan"), 0.0, 1e6):
        table = made_table(40, frames=3)
        features = {}
        for number, (name, x) in enumerate(table.features.items()):
            there = table.present[:, number, None]
            if name in table.frame_present:
                there = there[..., None] & table.frame_present[name][..., None]
            features[name] = torch.where(there, x, fill)
        replicas = Replicas(heads_of(table, 2, torch.float32))
        losses = stacked_loop(replicas, replace(table, features=features), range(2), 10)
        states.append({"losses": torch.tensor(losses)} | dict(replicas.state))
    for other in states[1:]:
        assert all(torch.equal(states[0][name], other[name]) for name in other)
