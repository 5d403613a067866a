"""MLA: one stream at a time trains its encoder and a head shared by all; entropy weighs at the end.

Every batch has one step a stream m, in order: f_m = g(h_m(x_m)), cross-entropy over the rows that
have m, a step of encoder h_m and head g. Before the head moves its gradient G (C, s) is projected:

    q = P h̄ / (α + h̄ᵀ P h̄),   P ← P − q h̄ᵀ P,   G ← G P,        h̄ = mean of h_m(x_m), P_0 = I
    logits = Σ_m λ_m f_m,   λ = softmax over present streams of −entropy(f_m), sample by sample

Paper: "Multimodal Representation Learning by Alternating Unimodal Adaptation" (CVPR 2024),
sections 3.2-3.4, equations 3-8. Where we differ, from the paper [P] and the public code [C]:
- The literal P shrinks without end (its noise fills every direction), so the head freezes. `p_norm`
  divides by the largest eigenvalue when projecting; `none` is the paper [P], `fro` the code's norm.
- The public code never projects (it looks for a parameter `module.weight` that is called `weight`)
  and its formula divides by an outer product instead of the scalar h̄ᵀ P h̄ [C]. P is kept in double
  precision: in single precision it loses positivity.
- The entropy in the public code runs over the batch (`dim=0`), one weight a batch [C].
- Rows without stream m are left out of step m; the code trains on zeros (`missing=zeros`) [C].
- Table 3's column without HGM and DF is the paper's late fusion, separate heads, not this with
  `hgm=false`; `shared=false` gives separate heads.
- Weight decay and momentum act after the projection, as in the code; plain SGD on the head.
- A step whose batch has no row with m leaves P and its counter alone and has a zero gradient, but
  momentum still moves the weights. α is constant; the code lets it fall within every epoch.
- Refuses a `value`: its entropy is not defined. For labels, the sum of the labels' entropies.
- Inputs are z-scored by default (ours): encoders meet streams of any scale with plain SGD.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError
from pipelines.batching import Batch
from pipelines.fusion import (
    Clean,
    Fused,
    FusionHead,
    Inputs,
    LinearStem,
    Norm,
    Stream,
    pooled,
    present_mean,
    slot,
)
from pipelines.objectives import entropy_weights
from pipelines.projection import Guard, Norming, Projection, projected

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


@dataclass(frozen=True)
class Body:
    """Encoders and heads; see `build`."""

    width: int
    encoder: str
    shared: bool
    norm: Norm


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

    def __init__(
        self,
        inputs: Inputs,
        body: Body,
        *,
        df: bool,
        zeros: bool,
        guard: Guard | None,
    ) -> None:
        super().__init__(inputs)
        self.df, self.zeros = df, zeros
        self.steps = inputs.names
        self.clean = Clean(inputs, body.norm)
        make = ENCODERS[body.encoder]
        each = {slot(name): make(stream, body.width) for name, stream in inputs.streams.items()}
        self.encoders = nn.ModuleDict(each)
        owners = ["shared"] if body.shared else list(each)
        heads = {owner: nn.Linear(body.width, inputs.outputs) for owner in owners}
        self.heads = nn.ModuleDict(heads)
        self.projection = None if guard is None else Projection(body.width, guard)

    def forward(self, batch: Batch) -> Fused:
        """Every stream's own logits and, weighed over what is present, the fused ones."""
        clean = self.clean(batch)
        each = [self.encoders[slot(n)](x, batch.frame_present.get(n)) for n, x in clean.items()]
        tokens = torch.stack(each, 1)  # (B, M, s)
        own = [self._head(n)(x) for n, x in zip(clean, each, strict=True)]
        logits = torch.stack(own, 1)  # (B, M, C)
        votes = torch.ones_like(batch.present) if self.zeros else batch.present
        if not self.df:
            weights = votes / votes.sum(1, keepdim=True).clamp(min=1).to(logits.dtype)
            return Fused(present_mean(logits, votes), tokens, logits, weights)
        weights = entropy_weights("labels" if self._labels else "classes", logits, votes)
        return Fused((weights[..., None] * logits).sum(1), tokens, logits, weights)

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """The task's loss of the step's stream alone, over the rows that have it."""
        number = self.steps.index(step)
        logits = torch.as_tensor(fused.stream_logits)[:, number]
        counted = None if self.zeros else batch.present[:, number]
        return self.task_loss(batch, logits, counted)

    def trains(self, name: str, step: str, stage: str) -> bool:
        """The step's encoder and its head; nothing of the other streams."""
        owner = name.split(".")[1] if name.startswith(("encoders.", "heads.")) else "shared"
        return owner in ("shared", slot(step))

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
        rows = batch.present.any(1) if self.zeros else batch.present[:, number]
        tokens = torch.as_tensor(fused.tokens)[:, number].detach().double()
        count = rows.sum()
        mean = torch.where(rows[:, None], tokens, 0).sum(0) / count  # NaN without rows
        state = {n.removeprefix("projection."): b for n, b in buffers.items()}
        use, after = self.projection.turn(state, mean, batch.numbers, first=number == 0)
        changed = projected(gradients, "heads.shared", use)
        kept = {f"projection.{name}": buffer for name, buffer in after.items()}
        return {**gradients, **changed}, {**buffers, **kept}

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """A warning where P, used as it is, has shrunk so far that the head no longer learns."""
        if self.projection is None or self.projection.guard.p_norm != "none":
            return ()
        matrices = state["projection.matrix"]  # (R, s, s)
        left = float(matrices.diagonal(dim1=-2, dim2=-1).mean(-1).min())
        if left >= FROZEN_BELOW:
            return ()
        return (
            f"the mean eigenvalue of P fell to {left:.1e}: with p_norm=none the shared head all "
            "but stops learning; p_norm=spectral keeps it going",
        )

    @property
    def _labels(self) -> bool:
        return self.inputs.task.kind == "labels"

    def _head(self, name: str) -> nn.Module:
        return self.heads["shared" if "shared" in self.heads else slot(name)]


def build(
    inputs: Inputs,
    *,
    width: int = 128,
    encoder: Literal["mlp3", "linear", "identity"] = "mlp3",
    shared: bool = True,
    hgm: bool = True,
    df: bool = True,
    alpha: float = 0.1,
    order: Literal["paper", "previous"] = "paper",
    p_norm: Norming = "spectral",
    reset: Literal["never", "cycle"] = "never",
    augment_bias: bool = False,
    missing: Literal["skip", "zeros"] = "skip",
    input_norm: Norm = "zscore",
) -> FusionHead:
    """A head over these streams, for classes and labels.

    Args:
        inputs: streams and task.
        width: s, input width of the shared head.
        encoder: three linear maps with ReLU (appendix A.3.2), one linear map, or the stream itself
            (as the code's CLIP classifier; every stream must have `width`).
        shared: one head for all streams, or one each.
        hgm: project the shared head's gradient.
        df: weigh streams by entropy, sample by sample; else their mean.
        alpha: α of the projection.
        order: absorb the step's mean before projecting (Algorithm 1), or after (the prose).
        p_norm: what P is divided by when projecting; `none` is the paper to the letter.
        reset: `cycle` forgets P at every batch.
        augment_bias: project the bias too, as the weight of a constant 1.
        missing: rows without a stream are left out of its step, or trained on as zeros.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for a `value`, for hgm without a shared head, or unequal widths of identity.
    """
    if inputs.task.kind == "value":
        raise MmfuseError(
            "mla fuses streams by the entropy of their classes, which a value does not have; "
            "take another method, such as late or clarga"
        )
    if hgm and not shared:
        raise MmfuseError("mla: separate heads share no gradient to project; add hgm=false")
    if encoder == "identity":
        width = next(iter(inputs.streams.values())).width
    return Mla(
        inputs,
        Body(width, encoder, shared, input_norm),
        df=df,
        zeros=missing == "zeros",
        guard=Guard(alpha, order, p_norm, reset, augment_bias) if hgm else None,
    )
