"""Replicas: R heads of one shape (an ensemble), parameters and buffers stacked, under vmap."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pipelines.device import exact_float32, threads_for
from pipelines.features.table import Batch, FeatureTable, at_least_single
from pipelines.fusion.head import Fused, FusionHead
from pipelines.training.optimizer import ParameterBlock, Rates, clip_gradients, optimizer_step
from pipelines.training.plan import Rule

State = dict[str, Tensor]
Fields = tuple[Mapping[str, Tensor], Tensor, Mapping[str, Tensor], Tensor, Tensor, Tensor]
EVAL_ROWS = 2048


class Replicas:
    """R heads stacked: every parameter and buffer has a leading axis R, R = 1 included.

    Args:
        heads: R heads of one shape, each initialised with its own seed.

    Attributes:
        head: the first one, called as a function; its own tensors are not used.
        buffers: by name, (R, …).
        blocks: parameters, grouped by the steps and stages that update them.
    """

    def __init__(self, heads: Sequence[FusionHead]) -> None:
        self.head = heads[0]
        for module in self.head.modules():
            if type(module) is nn.Linear:
                module.__class__ = _Linear
        self.count = len(heads)
        self._over_replicas = vmap if self.head.replicable else one_by_one
        self._objective = _Objective(self.head)
        states = [dict(head.named_parameters()) for head in heads]
        parameters = {n: torch.stack([s[n].detach() for s in states]) for n in states[0]}
        buffers = [dict(head.named_buffers()) for head in heads]
        self.buffers: State = {n: torch.stack([b[n] for b in buffers]) for n in buffers[0]}
        self.blocks = self._make_blocks(parameters)
        self._views()

    @property
    def state(self) -> State:
        """Parameters and buffers by name, (R, …); views, not copies."""
        return {**self.parameters, **self.buffers}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load parameters and buffers, (R, …) by name; shapes are checked by the copy."""
        with torch.no_grad():
            for name, view in self.parameters.items():
                view.copy_(state[name])
        self.buffers = {n: state[n].to(b).clone() for n, b in self.buffers.items()}

    def steps(self, stage_name: str) -> tuple[str, ...]:
        """Optimisation steps per batch in this stage, in order."""
        stage = next(s for s in self.head.stages if s.name == stage_name)
        return self.head.steps if stage.steps is None else stage.steps

    def step(
        self,
        batch: Batch,
        where: tuple[str, str],
        rule: Rule,
        rates: Sequence[Rates | None],
        limits: Sequence[float | None],
    ) -> Tensor:
        """One optimisation step of every replica.

        Args:
            batch: fields with a leading axis R.
            where: step and stage.
            rule: which optimiser.
            rates: one per replica; None = stopped, nothing changes, buffers included.
            limits: maximum gradient norm, one per replica, or None.

        Returns:
            (R,) losses before the step.
        """
        rows = tuple(r for r, rate in enumerate(rates) if rate is not None)
        of = _rows(rows, self.count, self.device)
        moving = [b for b in self.blocks if self._is_trained(b, *where)]
        names = [name for block in moving for name in block.names]
        leaves = {n: of.take(self.parameters[n]).detach().requires_grad_() for n in names}
        fixed = {n: of.take(p) for n, p in self.parameters.items() if n not in leaves}
        buffers = {name: of.take(value) for name, value in self.buffers.items()}
        fields = tree_map(of.take, _fields(batch))
        self.head.train()
        with torch.enable_grad():
            losses, packed, after = self._forward(leaves | fixed, buffers, fields, where[0])
            found = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        with torch.no_grad():
            gradients = dict(zip(names, found, strict=True))
            after = {n: b if self.head.trains(n, *where) else buffers[n] for n, b in after.items()}
            gradients, after = self._modified(gradients, after, fields, packed, where[0])
            gradients = {name: value.contiguous() for name, value in gradients.items()}
            clip_gradients(list(gradients.values()), [limits[r] for r in rows])
            for block in moving:
                optimizer_step(block, gradients, rule, rates)
            self.buffers = {n: of.put(self.buffers[n], value) for n, value in after.items()}
        return of.put(torch.zeros(self.count, device=self.device), losses.detach())

    def operations(self, rows: int) -> float:
        """Floating-point operations of a step on `rows` rows, at least: two a weight and pass."""
        return 6.0 * rows * sum(block.flat.numel() for block in self.blocks)

    @property
    def device(self) -> torch.device:
        """Of all parameters."""
        return self.blocks[0].flat.device

    def logits(self, table: FeatureTable, rows: Sequence[int] | None = None) -> Tensor:
        """Logits (R, N, C) of every row in eval mode.

        Args:
            table: N rows.
            rows: numbers of the replicas that predict; None: all R.
        """
        asked = tuple(range(self.count) if rows is None else rows)
        of = _rows(asked, self.count, self.device)
        state = {name: of.take(value) for name, value in self.state.items()}
        work = self.operations(min(len(table), EVAL_ROWS)) / 3
        with exact_float32(), threads_for(work, blas=False):
            parts = _chunks(table, EVAL_ROWS)
            first = self._logits(state, parts[0])
            # In place from the start: kept one by one, they would keep the allocator's heap apart.
            found = first.new_empty(len(first), len(table), first.shape[-1])
            found[:, : len(parts[0])] = first
            for number, part in enumerate(parts[1:], 1):
                start = number * EVAL_ROWS
                found[:, start : start + len(part)] = self._logits(state, part)
        return found

    def measures(self, table: FeatureTable, mine: Sequence[int]) -> dict[str, list[float]]:
        """The head's own metrics on every row in eval mode, one value per replica in `mine`."""
        if type(self.head).measures is FusionHead.measures:
            return {}
        self.head.eval()
        part, found = _Measures(self.head), []
        for replica in mine:
            named = {f"head.{name}": value[replica] for name, value in self.state.items()}
            with torch.no_grad():
                found.append(functional_call(part, named, (_whole(table),)))
        return {name: [each[name] for each in found] for name in found[0]}

    def losses(self, table: FeatureTable, step: str, size: int, rows: Sequence[int]) -> Tensor:
        """Mean loss (A,) of a step over the rows in eval mode, in batches of `size`.

        Args:
            table: N rows.
            step: name of the step.
            size: rows in a batch.
            rows: numbers of the A replicas that are asked.
        """
        self.head.eval()
        of = _rows(tuple(rows), self.count, self.device)
        states = {name: of.take(value) for name, value in self.state.items()}
        total = torch.zeros(len(rows), device=table.device)
        for part in _chunks(table, size):

            def one(state: State, fields: Fields) -> Tensor:
                loss, _ = self._call(state, Batch(*fields), step)
                return loss

            with torch.no_grad():
                losses = self._over_replicas(one, (0, None))(states, _fields(_whole(part)))
            total += losses.to(total) * len(part)
        return total / len(table)

    def _logits(self, states: State, table: FeatureTable) -> Tensor:
        self.head.eval()

        def one(state: State, fields: Fields) -> Tensor:
            fused: Fused = functional_call(self.head, state, (Batch(*fields),))
            return fused.logits

        with torch.no_grad():
            return self._over_replicas(one, (0, None))(states, _fields(_whole(table)))

    def _forward(
        self, parameters: State, buffers: State, fields: Fields, step: str
    ) -> tuple[Tensor, State, State]:
        """Losses (A,), outputs and next buffers of A replicas."""

        def one(parameters: State, buffers: State, fields: Fields) -> tuple[Tensor, State, State]:
            state = parameters | buffers
            loss, fused = self._call(state, Batch(*fields), step)
            return loss, _pack(fused), {name: state[name] for name in buffers}

        losses, packed, after = self._over_replicas(one)(parameters, buffers, fields)
        return losses, packed, {name: value.detach() for name, value in after.items()}

    def _modified(
        self, gradients: State, after: State, fields: Fields, packed: State, step: str
    ) -> tuple[State, State]:
        """Gradients and next buffers as the head's hook wants them."""
        if type(self.head).modify_gradients is FusionHead.modify_gradients:
            return gradients, after

        def one(gradients: State, after: State, fields: Fields, packed: State) -> Any:  # noqa: ANN401
            fused = _unpack(packed)
            return self.head.modify_gradients(gradients, after, Batch(*fields), fused, step)

        packed = {name: value.detach() for name, value in packed.items()}
        changed: tuple[State, State] = self._over_replicas(one)(gradients, after, fields, packed)
        return changed

    def _call(self, state: State, batch: Batch, step: str) -> tuple[Tensor, Fused]:
        """Loss and output under a state; its buffers become those that the forward assigned."""
        named = {f"head.{name}": value for name, value in state.items()}
        loss, fused = functional_call(self._objective, named, (batch, step))
        state.update({name: named[f"head.{name}"] for name in state})
        return loss, fused

    def _make_blocks(self, parameters: State) -> list[ParameterBlock]:
        stages = [(s.name, self.steps(s.name)) for s in self.head.stages]
        places = [(step, name) for name, steps in stages for step in steps]
        groups: dict[tuple[bool, ...], list[str]] = {}
        for name in parameters:
            moves = tuple(self.head.trains(name, *place) for place in places)
            groups.setdefault(moves, []).append(name)
        blocks = []
        for names in groups.values():
            members = {n: parameters[n] for n in names}
            blocks.append(
                ParameterBlock(members, {n for n in names if self.head.decays(n, members[n][0])})
            )
        return blocks

    def _is_trained(self, block: ParameterBlock, step: str, stage: str) -> bool:
        return self.head.trains(block.names[0], step, stage)

    def _views(self) -> None:
        self.parameters: State = {}
        for block in self.blocks:
            self.parameters.update(block.views(block.flat))


def one_by_one(
    function: Callable[..., Any], in_dims: int | tuple[int | None, ...] = 0
) -> Callable[..., Any]:
    """As `torch.func.vmap`, by calling the function once for every replica.

    Args:
        function: of trees of tensors.
        in_dims: for each argument 0 where its tensors have a leading axis R, None where all
            replicas share it; 0: all have one.
    """

    def call(*arguments: Any) -> Any:  # noqa: ANN401 - trees
        dims = (0,) * len(arguments) if isinstance(in_dims, int) else in_dims
        stacked = next(a for a, dim in zip(arguments, dims, strict=True) if dim == 0)
        count = len(tree_flatten(stacked)[0][0])
        found = []
        for r in range(count):
            own = [
                tree_map(lambda x, r=r: x[r], a) if dim == 0 else a
                for a, dim in zip(arguments, dims, strict=True)
            ]
            found.append(tree_flatten(function(*own)))
        leaves = zip(*(leaves for leaves, _ in found), strict=True)
        return tree_unflatten([torch.stack(each) for each in leaves], found[0][1])

    return call


class _Rows:
    """Some of R replicas: takes their rows of a tensor (R, …), and puts rows back."""

    def __init__(self, rows: Sequence[int], count: int, device: torch.device) -> None:
        self.all = len(rows) == count
        self.index = torch.tensor(rows, device=device)

    def take(self, values: Tensor) -> Tensor:
        """(A, …) of (R, …)."""
        return values if self.all else values.index_select(0, self.index)

    def put(self, values: Tensor, rows: Tensor) -> Tensor:
        """(R, …) with these rows (A, …) in place of its own."""
        return rows if self.all else values.index_copy(0, self.index, rows.to(values))


@lru_cache(maxsize=16)
def _rows(rows: tuple[int, ...], count: int, device: torch.device) -> _Rows:
    """The same object for the same rows: its index is copied to the device once."""
    return _Rows(rows, count, device)


class _Linear(nn.Linear):
    """`nn.Linear` as (W xᵀ)ᵀ: (…, in) → (…, out).

    Stacked over replicas, the gradient of W is then laid out as W is. Of x Wᵀ it is transposed, and
    a step would spend a sixth of its time on copying it.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = (self.weight @ rows.mT).mT
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], y.shape[-1])


class _Objective(nn.Module):
    """A head's forward and loss as one call, so that both use the same parameters."""

    def __init__(self, head: FusionHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch, step: str) -> tuple[Tensor, Fused]:
        fused = self.head(batch)
        return self.head.loss(batch, fused, step), fused


class _Measures(nn.Module):
    """A head's forward and its own metrics as one call."""

    def __init__(self, head: FusionHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch) -> dict[str, float]:
        return self.head.measures(batch, self.head(batch))


def _fields(batch: Batch) -> Fields:
    features, frames = dict(batch.features), dict(batch.frame_present)
    return features, batch.present, frames, batch.targets, batch.rows, batch.numbers


def _whole(table: FeatureTable) -> Batch:
    nothing = torch.zeros((), dtype=torch.int64, device=table.device)
    features = {name: at_least_single(x) for name, x in table.features.items()}
    parts = (features, table.present, table.frame_present, table.targets, table.rows)
    return Batch(*parts, nothing)


def _chunks(table: FeatureTable, size: int) -> list[FeatureTable]:
    if len(table) <= size:
        return [table]
    starts = range(0, len(table), size)
    return [table.window(start, min(start + size, len(table))) for start in starts]


def _pack(fused: Fused) -> State:
    parts = {
        "logits": fused.logits,
        "tokens": fused.tokens,
        "stream_logits": fused.stream_logits,
        "weights": fused.weights,
    }
    packed = {name: value for name, value in parts.items() if value is not None}
    return packed | {f"extra {name}": value for name, value in fused.extras.items()}


def _unpack(packed: Mapping[str, Tensor]) -> Fused:
    extras = {n.removeprefix("extra "): v for n, v in packed.items() if n.startswith("extra ")}
    return Fused(
        packed["logits"],
        packed.get("tokens"),
        packed.get("stream_logits"),
        packed.get("weights"),
        extras,
    )
