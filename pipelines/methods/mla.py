"""MLA: streams alternate in training their encoders and a shared head; entropy-weighted fusion.

Every batch has one step per stream m, in order: f_m = g(h_m(x_m)), cross-entropy over the rows that
have m, a step of encoder h_m and head g. Before the head moves its gradient G (C, s) is projected:

    q = P h̄ / (α + h̄ᵀ P h̄),   P ← P − q h̄ᵀ P,   G ← G P,        h̄ = mean of h_m(x_m), P_0 = I
    logits = Σ_m λ_m f_m,   λ = softmax over present streams of −entropy(f_m), sample by sample

Paper: "Multimodal Representation Learning by Alternating Unimodal Adaptation" (CVPR 2024),
sections 3.2-3.4, equations 3-8. `preset=official` is what its public code does when it is run
(Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation at ab6c184):
- M1 it never projects: it looks for a parameter `module.weight` that is called `weight`
  (utils/utils.py:32, main.py:437; `hgm`);
- M5 its entropy runs over the rows of a batch of 64 (main.py:66), one weight a batch and stream, so
  that a row's output depends on its neighbours (`entropy=batch`); its exp(max − e), which can
  overflow, is written as the softmax that it equals;
- M8 rows without a stream are trained on, and weighted, as zeros (`missing`); paper: left out;
- M9 under its torch 1.8 encoders move by momentum and decay in the others' steps (`idle`);
- features are raw (`input_norm`); ours are z-scored, since plain SGD gets streams of any scale.
Options of the projection, which it does not reach, and their reasons:
- The literal P shrinks without end (noise fills every direction), so the head freezes. `p_norm`
  divides by the largest eigenvalue when projecting; `none` is the paper, M3 `fro` the code's norm;
- α is constant; the code's falls tenfold within every epoch and starts again (`alpha_schedule`);
- `reset` sets P to I at every batch or epoch; the paper and the code never do.
Not repeated: M2 a division by the outer product instead of the scalar h̄ᵀ P h̄; M4 P of 512 only; M6
an option that is read but not declared; M7 the best epoch chosen on test rows; M10 missing cells
sampled from global random state. P is in double precision: in single it loses positivity.
Also: Table 3's column without HGM and DF is the paper's late fusion, separate heads, which is
`shared=false` and not `hgm=false`. Weight decay and momentum act after the projection, as in the
code. A step whose batch has no row with m leaves P unchanged and has a zero gradient, but
momentum still moves the weights. A `value` has no entropy and is refused; labels: sum of theirs.
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
"""Mean eigenvalue of P below which a head projected with it hardly learns."""

POWER_ITERATIONS = 8
PNorm = Literal["spectral", "fro", "none"]
Reset = Literal["never", "cycle", "epoch"]
Schedule = Literal["constant", "decay"]


@dataclass(frozen=True)
class ProjectionOptions:
    """Options of the shared head's gradient projection; see `build`."""

    alpha: float
    order: Literal["paper", "previous"]
    p_norm: PNorm
    reset: Reset
    augment_bias: bool
    schedule: Schedule = "constant"

    @property
    def counts_batches(self) -> bool:
        """Whether the batch's position in its epoch matters."""
        return self.schedule == "decay" or self.reset == "epoch"


class Projection(nn.Module):
    """Recursive projection matrix P: away from the span of earlier feature means.

    Buffers: `matrix` (s, s) double; `direction` (s,) double, near its leading eigenvector;
    `taken` (), steps so far. Where the position in an epoch matters, `batch` (), the number of the
    next batch, and `batches` (), how many an epoch has.
    """

    matrix: Tensor
    direction: Tensor
    taken: Tensor

    def __init__(self, width: int, options: ProjectionOptions) -> None:
        super().__init__()
        self.options = options
        size = width + options.augment_bias
        self.register_buffer("matrix", torch.eye(size, dtype=torch.float64))
        self.register_buffer("direction", torch.randn(size, dtype=torch.float64))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
        if options.counts_batches:
            self.register_buffer("batch", torch.zeros((), dtype=torch.int64))
            self.register_buffer("batches", torch.ones((), dtype=torch.int64))

    def observe_epoch_size(self, batches: int, complete_rows: int) -> None:
        """Set the number of batches of an epoch."""
        if self.options.counts_batches:
            self.get_buffer("batches").fill_(batches)

    def step(
        self,
        state: Mapping[str, Tensor],
        mean: Tensor,
        numbers: Tensor,
        *,
        first: bool,
        last: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of P: the matrix to project the gradient with, and the state after it.

        Args:
            state: the buffers.
            mean: (s,) double; all NaN where no row has the stream, which changes nothing.
            numbers: random key of this step.
            first: whether it is the first step of its batch.
            last: whether it is the last one.
        """
        matrix, taken = state["matrix"], state["taken"]
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        if first and self.options.reset != "never":
            resets = torch.ones_like(taken) if self.options.reset == "cycle" else 1 - state["batch"]
            matrix = torch.where(resets > 0, eye, matrix)
            taken = torch.where(resets > 0, 0, taken)
        counted = self._counted(state, last=last)
        alpha: Tensor | float = self.options.alpha
        if self.options.schedule == "decay":
            alpha = alpha * 0.1 ** (state["batch"].to(matrix.dtype) / state["batches"])
        some = mean.isfinite().all()
        mean = torch.where(some, mean, 0)
        if self.options.augment_bias:
            mean = torch.cat([mean, mean.new_ones(1)])
        fresh = torch.where(some, rls(matrix, mean, alpha), matrix)
        if self.options.order == "paper":
            after = use = torch.where(taken > 0, fresh, matrix)
        else:
            after, use = fresh, matrix
        direction = state["direction"]
        if self.options.p_norm == "spectral":
            largest, direction = leading(use, direction, numbers)
            use = use / largest
        elif self.options.p_norm == "fro":
            use = use / torch.linalg.matrix_norm(use)
        use = torch.where(taken > 0, use, eye)
        state = {"matrix": after, "direction": direction, "taken": taken + some.to(taken.dtype)}
        return use, {**state, **counted}

    def _counted(self, state: Mapping[str, Tensor], *, last: bool) -> dict[str, Tensor]:
        if not self.options.counts_batches:
            return {}
        batch, batches = state["batch"], state["batches"]
        return {"batch": (batch + last) % batches, "batches": batches}


def rls(matrix: Tensor, mean: Tensor, alpha: float | Tensor) -> Tensor:
    """Recursive least squares step (equation 5): symmetric, and I where positivity is lost.

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
    """Largest eigenvalue of P by power iteration from the last direction, and the next direction.

    The direction gets a little noise every step, so that it never stays where P has vanished.
    """
    noise = uniform(numbers, "mla.direction", direction.shape).to(matrix.dtype) - 0.5
    direction = direction / torch.linalg.vector_norm(direction)
    direction = direction + noise * (0.05 / len(direction) ** 0.5)
    for _ in range(POWER_ITERATIONS):
        direction = matrix @ direction
        direction = direction / torch.linalg.vector_norm(direction).clamp(min=1e-300)
    return (direction @ matrix @ direction).clamp(min=1e-300), direction


def projected(gradients: Mapping[str, Tensor], head: str, use: Tensor) -> dict[str, Tensor]:
    """Project the gradients of a linear map `head` by P; the bias only where P includes it.

    Args:
        gradients: by name, with `{head}.weight` (C, s) and `{head}.bias` (C,).
        head: name of the map.
        use: P, (s, s) or (s + 1, s + 1).
    """
    weight, bias = gradients[f"{head}.weight"], gradients[f"{head}.bias"]
    if len(use) == weight.shape[1]:
        return {f"{head}.weight": (weight.to(use.dtype) @ use).to(weight.dtype)}
    both = torch.cat([weight, bias[:, None]], 1).to(use.dtype) @ use
    both = both.to(weight.dtype)
    return {f"{head}.weight": both[:, :-1], f"{head}.bias": both[:, -1]}


@dataclass(frozen=True)
class Body:
    """Options of encoders and heads; see `build`."""

    width: int
    encoder: str
    shared: bool
    norm: Norm


@dataclass(frozen=True)
class Rules:
    """Options of how streams are trained and weighted; see `build`.

    Attributes:
        weights: `equal` is `df=false`; else what entropies run over.
        zeros: whether rows without a stream train and count as zeros.
        coasts: whether momentum and decay move encoders in the steps of others.
    """

    weights: Literal["equal", "sample", "batch"]
    zeros: bool
    coasts: bool


class Identity(nn.Module):
    """Encoder without parameters: the stream itself, averaged over its frames."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        if stream.width != width:
            message = f"mla: encoder=identity needs streams of one width, not {stream.width}"
            raise MmfuseError(f"{message} and {width}; use encoder=linear")

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, D) or (B, T, D) → (B, D)."""
        return pooled(x, frame_present)


class Deep(nn.Module):
    """MLP encoder: three linear maps with ReLU, as in the paper's appendix A.3.2."""

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
    """Encoders, a shared head (or one each), and the projection P."""

    additive = True

    def __init__(
        self, inputs: Inputs, body: Body, rules: Rules, options: ProjectionOptions | None
    ) -> None:
        super().__init__(inputs)
        self.rules = rules
        self.steps = inputs.names
        self.clean = Clean(inputs, body.norm)
        self.encoders = Stems(inputs, body.width, ENCODERS[body.encoder])
        owners = ["shared"] if body.shared else list(self.encoders)
        heads = {owner: nn.Linear(body.width, inputs.outputs) for owner in owners}
        self.heads = nn.ModuleDict(heads)
        self.projection = None if options is None else Projection(body.width, options)

    def forward(self, batch: Batch) -> Fused:
        """Each stream's own logits and their weighted sum over present streams."""
        each = self.encoders(self.clean(batch), batch)
        tokens = torch.stack(list(each.values()), 1)  # (B, M, s)
        own = [self._head(name)(x) for name, x in each.items()]
        logits = torch.stack(own, 1)  # (B, M, C)
        counted = torch.ones_like(batch.present) if self.rules.zeros else batch.present
        if self.rules.weights == "equal":
            weights = counted / counted.sum(1, keepdim=True).clamp(min=1).to(logits.dtype)
            return Fused(present_mean(logits, counted), tokens, logits, weights)
        if self.rules.weights == "batch":
            weights = batch_entropy_weights(logits, counted)
        else:
            weights = entropy_weights("labels" if self._labels else "classes", logits, counted)
        return Fused((weights[..., None] * logits).sum(1), tokens, logits, weights)

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Task loss of the step's stream alone, over the rows that have it."""
        number = self.steps.index(step)
        logits = torch.as_tensor(fused.stream_logits)[:, number]
        counted = None if self.rules.zeros else batch.present[:, number]
        return self.task_loss(batch, logits, counted)

    def trains(self, name: str, step: str, stage: str) -> bool:
        """The step's encoder and its head; the other streams' only if they coast."""
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
        """Project the shared head's gradient; update P with the step's mean."""
        if self.projection is None:
            return gradients, buffers
        number = self.steps.index(step)
        rows = batch.present.any(1) if self.rules.zeros else batch.present[:, number]
        tokens = torch.as_tensor(fused.tokens)[:, number].detach()
        tokens = tokens.to(self.projection.matrix.dtype)
        count = rows.sum()
        mean = torch.where(rows[:, None], tokens, 0).sum(0) / count  # NaN without rows
        state = {n.removeprefix("projection."): b for n, b in buffers.items()}
        ends = {"first": number == 0, "last": number == len(self.steps) - 1}
        use, after = self.projection.step(state, mean, batch.numbers, **ends)
        changed = projected(gradients, "heads.shared", use)
        updated = {f"projection.{name}": buffer for name, buffer in after.items()}
        return {**gradients, **changed}, {**buffers, **updated}

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Notes on entropy weights over a batch, and on a P that has shrunk."""
        notes = []
        if self.rules.weights == "batch":
            notes.append(
                "entropy=batch, as the public code has it: outputs depend on the 64 rows that are "
                "scored together; a row alone weights every stream alike"
            )
        if self.projection is not None and self.projection.options.p_norm == "none":
            matrices = state["projection.matrix"]  # (R, s, s)
            left = float(matrices.diagonal(dim1=-2, dim2=-1).mean(-1).min())
            if left < FROZEN_BELOW:
                notes.append(
                    f"the mean eigenvalue of P fell to {left:.1e}: with p_norm=none the shared "
                    "head all but stops learning; p_norm=spectral avoids that"
                )
        return tuple(notes)

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
    p_norm: PNorm = "spectral",
    reset: Reset = "never",
    augment_bias: bool = False,
    missing: Literal["preset", "skip", "zeros"] = "preset",
    idle: Literal["preset", "rest", "coast"] = "preset",
    input_norm: Norm | Literal["preset"] = "preset",
) -> FusionHead:
    """Build the head, for classes and labels.

    Args:
        inputs: streams and task.
        preset: defaults of `hgm`, `entropy`, `missing`, `idle` and `input_norm`: the paper's, or
            those of the public code as it runs, its faults included.
        width: s, input width of the shared head.
        encoder: three linear maps with ReLU (appendix A.3.2), one linear map, or the stream itself
            (as the code's CLIP classifier; every stream must have `width`).
        shared: one head for all streams, or one per stream.
        hgm: project the shared head's gradient; `official` does not (M1).
        df: weight streams by entropy (dynamic fusion); else their mean.
        entropy: over a sample's classes, or over rows in groups of 64 (M5).
        alpha: α of the projection.
        alpha_schedule: constant, or decay: tenfold within every epoch, then again from alpha.
        order: update P with the step's mean before projecting (Algorithm 1), or after (the prose).
        p_norm: norm that P is divided by when projecting; `none` is the paper to the letter.
        reset: set P to I at every batch (`cycle`) or epoch.
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
    options = ProjectionOptions(alpha, order, p_norm, reset, augment_bias, alpha_schedule)
    return Mla(
        inputs,
        Body(width, encoder, shared, norm if input_norm == "preset" else input_norm),
        Rules(
            over if df else "equal",
            zeros=not paper if missing == "preset" else missing == "zeros",
            coasts=not paper if idle == "preset" else idle == "coast",
        ),
        options if projects else None,
    )
