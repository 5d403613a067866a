"""MLA: one stream at a time trains its encoder and a head shared by all; entropy weighs at the end.

Every batch has one step a stream m, in order: f_m = g(h_m(x_m)), cross-entropy over the rows that
have m, a step of encoder h_m and head g. Before the head moves its gradient G (C, s) is projected:

    q = P h̄ / (α + h̄ᵀ P h̄),   P ← P − q h̄ᵀ P,   G ← G P,        h̄ = mean of h_m(x_m), P_0 = I
    logits = Σ_m λ_m f_m,   λ = softmax over present streams of −entropy(f_m), sample by sample

Paper: "Multimodal Representation Learning by Alternating Unimodal Adaptation" (CVPR 2024),
sections 3.2-3.4, equations 3-8. `preset=official` is what its public code does when it is run
(Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation at ab6c184):
- M1 it never projects: it looks for a parameter `module.weight` that is called `weight`
  (utils/utils.py:32, main.py:437; `hgm`);
- M5 its entropy runs over the rows of a batch of 64 (main.py:66), one weight a batch and stream, so
  that a row's answer depends on its neighbours (`entropy=batch`); its exp(max − e), which can
  overflow, is written as the softmax that it equals;
- M8 rows without a stream are trained on, and vote, as zeros (`missing`); paper: they are left out;
- M9 under its torch 1.8 encoders coast on momentum and decay in the others' steps (`idle`);
- features are raw (`input_norm`); ours are z-scored, since plain SGD meets streams of any scale.
Of the projection that it does not reach, options and their reasons:
- The literal P shrinks without end (its noise fills every direction), so the head freezes. `p_norm`
  divides by the largest eigenvalue when projecting; `none` is the paper, M3 `fro` the code's norm;
- α is constant; the code's falls tenfold within every epoch and starts again (`alpha_schedule`);
- `reset` forgets P at every batch or epoch; the paper and the code never do.
Not repeated: M2 a division by the outer product instead of the scalar h̄ᵀ P h̄; M4 P of 512 only; M6
an option that is read but not declared; M7 the best epoch chosen on test rows; M10 missing cells
drawn from global random state. P is in double precision: in single it loses positivity.
Also: Table 3's column without HGM and DF is the paper's late fusion, separate heads, which is
`shared=false` and not `hgm=false`. Weight decay and momentum act after the projection, as in the
code. A step whose batch has no row with m leaves P alone and has a zero gradient, but momentum
still moves the weights. Refuses a `value`, which has no entropy; labels: the sum of theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError
from pipelines.counter_rng import uniform
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm, Stream
from pipelines.fusion.layers import Clean, LinearStem, Stems, module_key, pooled, present_mean
from pipelines.fusion.losses import batch_entropy_weights, entropy_weights

TASKS = ("classes", "labels")
PLAN = {
    "optimizer": "sgd",
    "learning_rate": 1e-2,
    "weight_decay": 1e-4,
    "epochs": 50,
    "schedule": "step",
    "step_every": 35,
    "clip": None,
}

FROZEN_BELOW = 0.05
"""Mean eigenvalue of P below which a head projected with it learns next to nothing."""

POWER_ITERATIONS = 8
Norming = Literal["spectral", "fro", "none"]
Forgets = Literal["never", "cycle", "epoch"]
Schedule = Literal["constant", "decay"]


@dataclass(frozen=True)
class Guard:
    """How the shared head's gradient is projected; see `build`."""

    alpha: float
    order: Literal["paper", "previous"]
    p_norm: Norming
    reset: Forgets
    augment_bias: bool
    schedule: Schedule = "constant"

    @property
    def counts(self) -> bool:
        """Whether it matters where in its epoch a batch is."""
        return self.schedule == "decay" or self.reset == "epoch"


class Projection(nn.Module):
    """P as state: what the means so far have left free of the head's input space.

    Buffers: `matrix` (s, s) double; `direction` (s,) double, near its leading eigenvector;
    `taken` (), steps so far. Where it matters, `batch` (), number of the next batch of its epoch,
    and `batches` (), how many an epoch has.
    """

    matrix: Tensor
    direction: Tensor
    taken: Tensor

    def __init__(self, width: int, guard: Guard) -> None:
        super().__init__()
        self.guard = guard
        size = width + guard.augment_bias
        self.register_buffer("matrix", torch.eye(size, dtype=torch.float64))
        self.register_buffer("direction", torch.randn(size, dtype=torch.float64))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
        if guard.counts:
            self.register_buffer("batch", torch.zeros((), dtype=torch.int64))
            self.register_buffer("batches", torch.ones((), dtype=torch.int64))

    def observe_epoch_size(self, batches: int, complete_rows: int) -> None:
        """Take the number of batches of an epoch."""
        if self.guard.counts:
            self.get_buffer("batches").fill_(batches)

    def turn(
        self,
        state: Mapping[str, Tensor],
        mean: Tensor,
        numbers: Tensor,
        *,
        first: bool,
        last: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step: what to project with, and the state after it.

        Args:
            state: the buffers.
            mean: (s,) double; all NaN where no row has the stream, which changes nothing.
            numbers: key of this step.
            first: whether it is the first step of its batch.
            last: whether it is the last one.
        """
        matrix, taken = state["matrix"], state["taken"]
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        if first and self.guard.reset != "never":
            forgets = torch.ones_like(taken) if self.guard.reset == "cycle" else 1 - state["batch"]
            matrix = torch.where(forgets > 0, eye, matrix)
            taken = torch.where(forgets > 0, 0, taken)
        counted = self._counted(state, last=last)
        alpha: Tensor | float = self.guard.alpha
        if self.guard.schedule == "decay":
            alpha = alpha * 0.1 ** (state["batch"].double() / state["batches"])
        some = mean.isfinite().all()
        mean = torch.where(some, mean, 0)
        if self.guard.augment_bias:
            mean = torch.cat([mean, mean.new_ones(1)])
        fresh = torch.where(some, rls(matrix, mean, alpha), matrix)
        if self.guard.order == "paper":
            after = use = torch.where(taken > 0, fresh, matrix)
        else:
            after, use = fresh, matrix
        direction = state["direction"]
        if self.guard.p_norm == "spectral":
            largest, direction = leading(use, direction, numbers)
            use = use / largest
        elif self.guard.p_norm == "fro":
            use = use / torch.linalg.matrix_norm(use)
        use = torch.where(taken > 0, use, eye)
        kept = {"matrix": after, "direction": direction, "taken": taken + some.to(taken.dtype)}
        return use, {**kept, **counted}

    def _counted(self, state: Mapping[str, Tensor], *, last: bool) -> dict[str, Tensor]:
        if not self.guard.counts:
            return {}
        batch, batches = state["batch"], state["batches"]
        return {"batch": (batch + last) % batches, "batches": batches}


def rls(matrix: Tensor, mean: Tensor, alpha: float | Tensor) -> Tensor:
    """One step of recursive least squares, equation 5: symmetric, and reset if it lost positivity.

    Args:
        matrix: P (s, s), symmetric, eigenvalues in (0, 1].
        mean: h̄ (s,).
        alpha: of this step; after any number of steps P = (I + Σ h̄ h̄ᵀ / alpha)⁻¹.
    """
    moved = matrix @ mean
    along = mean @ moved
    fresh = matrix - torch.outer(moved, moved) / (alpha + along)
    fresh = (fresh + fresh.mT) / 2
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.where(along.isfinite() & (along >= 0), fresh, eye)


def leading(matrix: Tensor, direction: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue of P by a few power iterations from the last direction, and the next one.

    The direction is stirred a little every step, so that it never stays where P has vanished.
    """
    stir = uniform(numbers, "mla.direction", direction.shape).to(matrix.dtype) - 0.5
    direction = direction / torch.linalg.vector_norm(direction)
    direction = direction + stir * (0.05 / len(direction) ** 0.5)
    for _ in range(POWER_ITERATIONS):
        direction = matrix @ direction
        direction = direction / torch.linalg.vector_norm(direction).clamp(min=1e-300)
    return (direction @ matrix @ direction).clamp(min=1e-300), direction


def projected(gradients: Mapping[str, Tensor], head: str, use: Tensor) -> dict[str, Tensor]:
    """The gradients of a linear map `head`, times P; the bias only where P has a place for it.

    Args:
        gradients: by name, with `{head}.weight` (C, s) and `{head}.bias` (C,).
        head: name of the map.
        use: P, (s, s) or (s + 1, s + 1).
    """
    weight, bias = gradients[f"{head}.weight"], gradients[f"{head}.bias"]
    if len(use) == weight.shape[1]:
        return {f"{head}.weight": (weight.double() @ use).to(weight.dtype)}
    both = torch.cat([weight, bias[:, None]], 1).double() @ use
    both = both.to(weight.dtype)
    return {f"{head}.weight": both[:, :-1], f"{head}.bias": both[:, -1]}


@dataclass(frozen=True)
class Body:
    """Encoders and heads; see `build`."""

    width: int
    encoder: str
    shared: bool
    norm: Norm


@dataclass(frozen=True)
class Rules:
    """How streams are trained and weighed; see `build`.

    Attributes:
        weights: `equal` is `df=false`; else over what entropies run.
        zeros: whether rows without a stream train and vote as zeros.
        coasts: whether encoders move in the steps of others.
    """

    weights: Literal["equal", "sample", "batch"]
    zeros: bool
    coasts: bool


class Identity(nn.Module):
    """The stream itself, averaged over its frames."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        if stream.width != width:
            message = f"mla: encoder=identity needs streams of one width, not {stream.width}"
            raise MmfuseError(f"{message} and {width}; use encoder=linear")

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, D) or (B, T, D) → (B, D)."""
        return pooled(x, frame_present)


class Deep(nn.Module):
    """Three linear maps with ReLU, as in the paper's appendix A.3.2."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before in (stream.width, width, width):
            parts += [nn.Linear(before, width), nn.ReLU()]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, D) or (B, T, D) → (B, s)."""
        return torch.as_tensor(self.layers(pooled(x, frame_present)))


ENCODERS = {"mlp3": Deep, "linear": LinearStem, "identity": Identity}


class Mla(FusionHead):
    """Encoders, one shared head (or one each), and P."""

    additive = True

    def __init__(self, inputs: Inputs, body: Body, rules: Rules, guard: Guard | None) -> None:
        super().__init__(inputs)
        self.rules = rules
        self.steps = inputs.names
        self.clean = Clean(inputs, body.norm)
        self.encoders = Stems(inputs, body.width, ENCODERS[body.encoder])
        owners = ["shared"] if body.shared else list(self.encoders)
        heads = {owner: nn.Linear(body.width, inputs.outputs) for owner in owners}
        self.heads = nn.ModuleDict(heads)
        self.projection = None if guard is None else Projection(body.width, guard)

    def forward(self, batch: Batch) -> Fused:
        """Every stream's own logits and, weighed over what is present, the fused ones."""
        each = self.encoders(self.clean(batch), batch)
        tokens = torch.stack(list(each.values()), 1)  # (B, M, s)
        own = [self._head(name)(x) for name, x in each.items()]
        logits = torch.stack(own, 1)  # (B, M, C)
        votes = torch.ones_like(batch.present) if self.rules.zeros else batch.present
        if self.rules.weights == "equal":
            weights = votes / votes.sum(1, keepdim=True).clamp(min=1).to(logits.dtype)
            return Fused(present_mean(logits, votes), tokens, logits, weights)
        if self.rules.weights == "batch":
            weights = batch_entropy_weights(logits, votes)
        else:
            weights = entropy_weights("labels" if self._labels else "classes", logits, votes)
        return Fused((weights[..., None] * logits).sum(1), tokens, logits, weights)

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """The task's loss of the step's stream alone, over the rows that have it."""
        number = self.steps.index(step)
        logits = torch.as_tensor(fused.stream_logits)[:, number]
        counted = None if self.rules.zeros else batch.present[:, number]
        return self.task_loss(batch, logits, counted)

    def trains(self, name: str, step: str, stage: str) -> bool:
        """The step's encoder and its head; nothing of the other streams unless they coast."""
        if self.rules.coasts:
            return True
        owner = name.split(".")[1] if name.startswith(("encoders.", "heads.")) else "shared"
        return owner in ("shared", module_key(step))

    def modify_gradients(
        self,
        gradients: dict[str, Tensor],
        buffers: dict[str, Tensor],
        batch: Batch,
        fused: Fused,
        step: str,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Project the shared head's gradient; take the step's mean into P."""
        if self.projection is None:
            return gradients, buffers
        number = self.steps.index(step)
        rows = batch.present.any(1) if self.rules.zeros else batch.present[:, number]
        tokens = torch.as_tensor(fused.tokens)[:, number].detach().double()
        count = rows.sum()
        mean = torch.where(rows[:, None], tokens, 0).sum(0) / count  # NaN without rows
        state = {n.removeprefix("projection."): b for n, b in buffers.items()}
        ends = {"first": number == 0, "last": number == len(self.steps) - 1}
        use, after = self.projection.turn(state, mean, batch.numbers, **ends)
        changed = projected(gradients, "heads.shared", use)
        kept = {f"projection.{name}": buffer for name, buffer in after.items()}
        return {**gradients, **changed}, {**buffers, **kept}

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """What is to be known of weights over a batch, and of a P that has shrunk."""
        said = []
        if self.rules.weights == "batch":
            said.append(
                "entropy=batch, as the public code has it: answers depend on the 64 rows that are "
                "scored together; a row alone weighs every stream alike"
            )
        if self.projection is not None and self.projection.guard.p_norm == "none":
            matrices = state["projection.matrix"]  # (R, s, s)
            left = float(matrices.diagonal(dim1=-2, dim2=-1).mean(-1).min())
            if left < FROZEN_BELOW:
                said.append(
                    f"the mean eigenvalue of P fell to {left:.1e}: with p_norm=none the shared "
                    "head all but stops learning; p_norm=spectral keeps it going"
                )
        return tuple(said)

    @property
    def _labels(self) -> bool:
        return self.inputs.task.kind == "labels"

    def _head(self, name: str) -> nn.Module:
        return self.heads["shared" if "shared" in self.heads else module_key(name)]


def build(
    inputs: Inputs,
    *,
    preset: Literal["paper", "official"] = "paper",
    width: int = 128,
    encoder: Literal["mlp3", "linear", "identity"] = "mlp3",
    shared: bool = True,
    hgm: bool | Literal["preset"] = "preset",
    df: bool = True,
    entropy: Literal["preset", "sample", "batch"] = "preset",
    alpha: float = 0.1,
    alpha_schedule: Schedule = "constant",
    order: Literal["paper", "previous"] = "paper",
    p_norm: Norming = "spectral",
    reset: Forgets = "never",
    augment_bias: bool = False,
    missing: Literal["preset", "skip", "zeros"] = "preset",
    idle: Literal["preset", "rest", "coast"] = "preset",
    input_norm: Norm | Literal["preset"] = "preset",
) -> FusionHead:
    """A head over these streams, for classes and labels.

    Args:
        inputs: streams and task.
        preset: what `hgm`, `entropy`, `missing`, `idle` and `input_norm` are unless named: as the
            paper says, or as the public code runs, its faults included.
        width: s, input width of the shared head.
        encoder: three linear maps with ReLU (appendix A.3.2), one linear map, or the stream itself
            (as the code's CLIP classifier; every stream must have `width`).
        shared: one head for all streams, or one each.
        hgm: project the shared head's gradient; `official` does not (M1).
        df: weigh streams by entropy; else their mean.
        entropy: over a sample's classes, or over the rows of 64 scored together (M5).
        alpha: α of the projection.
        alpha_schedule: constant, or decay: tenfold within every epoch, then from the start again.
        order: absorb the step's mean before projecting (Algorithm 1), or after (the prose).
        p_norm: what P is divided by when projecting; `none` is the paper to the letter.
        reset: forget P at every batch (`cycle`) or epoch.
        augment_bias: project the bias too, as the weight of a constant 1.
        missing: rows without a stream are left out of its step, or trained on as zeros (M8).
        idle: in the others' steps an encoder rests, or coasts on momentum and weight decay (M9).
        input_norm: none, l2, or zscore by the train rows; `official` has none, `paper` zscore.

    Raises:
        MmfuseError: for a `value`, for labels with entropy=batch, for hgm without a shared head,
            or unequal widths of identity.
    """
    paper = preset == "paper"
    over = ("sample" if paper else "batch") if entropy == "preset" else entropy
    projects = paper if hgm == "preset" else hgm
    if inputs.task.kind == "value":
        raise MmfuseError(
            "mla fuses streams by the entropy of their classes, which a value does not have; "
            "take another method, such as late or clarga"
        )
    if df and over == "batch" and inputs.task.kind == "labels":
        raise MmfuseError("mla: the public code's entropy=batch is of classes; add entropy=sample")
    if projects and not shared:
        raise MmfuseError("mla: separate heads share no gradient to project; add hgm=false")
    if encoder == "identity":
        width = next(iter(inputs.streams.values())).width
    norm: Norm = "zscore" if paper else "none"
    return Mla(
        inputs,
        Body(width, encoder, shared, norm if input_norm == "preset" else input_norm),
        Rules(
            over if df else "equal",
            zeros=not paper if missing == "preset" else missing == "zeros",
            coasts=not paper if idle == "preset" else idle == "coast",
        ),
        Guard(alpha, order, p_norm, reset, augment_bias, alpha_schedule) if projects else None,
    )
