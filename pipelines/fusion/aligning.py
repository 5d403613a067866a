"""Aligning: a stream is projected into the space of another and pulled towards it (EF-CL)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.counter_rng import dropout
from pipelines.fusion.losses import cosines, nt_xent

Form = Literal["paper", "code"]


@dataclass(frozen=True)
class Contrast:
    """How projectors are aligned.

    Attributes:
        form: with the positive in the denominator (`paper`) or without (`code`).
        rows: rows of the similarity matrix: the anchor's, or the enhanced stream's.
        hardest: k negatives a row.
        temperature: τ.
        drop_duplicates_above: pairs whose anchors have a larger cosine are no negatives.
        exclude_same_label: pairs of one class or label are no negatives.
    """

    form: Form
    rows: Literal["target", "enhanced"]
    hardest: int
    temperature: float
    drop_duplicates_above: float | None
    exclude_same_label: bool


class Projector(nn.Module):
    """A weaker stream into the space of its anchors: (B, D) → (B, d_p)."""

    def __init__(self, width: int, onto: int, form: Form, place: str) -> None:
        super().__init__()
        self.place = place
        self.first = nn.Linear(width, onto)
        self.second = nn.Linear(onto, onto) if form == "code" else None
        self.norm = nn.LayerNorm(onto) if form == "code" else None

    def forward(self, x: Tensor, numbers: Tensor, *, training: bool) -> Tensor:
        """Residual around tanh; dropout only while it is being aligned."""
        first = self.first(x)
        turned = torch.tanh(first)
        if self.second is not None:
            turned = self.second(turned)
        out = dropout(turned, 0.1, numbers, self.place, training=training) + first
        return torch.as_tensor(out if self.norm is None else self.norm(out))


def pull(contrast: Contrast, made: Tensor, target: Tensor, keep: Tensor, targets: Tensor) -> Tensor:
    """Contrast between what a projector made and its anchor, (); 0 without two rows.

    Args:
        contrast: how.
        made: (B, d) projections of the enhanced stream.
        target: (B, d) the anchor stream.
        keep: (B,) bool, rows that have both.
        targets: as in `Batch`.
    """
    negatives = torch.ones_like(keep).expand(len(keep), -1)
    if contrast.drop_duplicates_above is not None:
        negatives = negatives & (cosines(target, target) <= contrast.drop_duplicates_above)
    if contrast.exclude_same_label:
        same = targets[:, None] == targets if targets.ndim == 1 else targets @ targets.mT > 0
        negatives = negatives & ~same
    return nt_xent(
        cosines(target, made) if contrast.rows == "target" else cosines(made, target),
        keep,
        temperature=contrast.temperature,
        hardest=contrast.hardest,
        form=contrast.form,
        negatives=negatives,
    )
