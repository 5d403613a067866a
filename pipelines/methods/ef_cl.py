"""EF-CL: contrastive alignment of weaker streams to image and text, then early fusion.

    align      r = P_E(x_E), the projector of a weaker stream E; a: an anchor stream, text or image
               l_i = −log( e^{s_ii} / (e^{s_ii} + Σ_{hardest k} e^{s_ij}) ),  s = cos(a_i, r_j)/τ
               mean over anchors; only projectors train, for as long as validation improves
    classify   two blocks and a linear layer on [P_E(x_E) ‖ x_text ‖ x_image]; projectors are frozen

Paper: Wernlein, Jana, Sikdar, "Early Fusion with Contrastive Learning" (LREC 2026), section 3.
`preset=paper` is what the paper states, `preset=official` what the authors' code does
(fWern/MasterThesis at 95d7653); the printed numbers most likely come from the latter. Where they
differ, each with an option of its own:
- E1 the code leaves the positive out of the denominator (utils.py:565), so its loss has no lower
  bound (`loss`);
- E2 its projector has a second linear map and a LayerNorm (`projector`): only so do the published
  parameter counts come out; E3 its classifier has dropout .2 and LeakyReLU (`classifier`);
- E4 its rows are the enhanced stream, the paper's are the anchor (`anchor`);
- E13 most of its runs train on noise, of which the paper says nothing: of every batch and stream
  15 % of the rows become zeros and another 15 % get N(0, 1) added (`noise`); here after the
  projector, and the rows of a batch are sampled anew at every step.
Bugs of the code that are not repeated: E5 "best" weights were the last ones; E6 text stored as
images; E7 validation anchors taken from training; E8 cache files read but never written; E9 labels
encoded from raw floats; E10 dropout active while features were projected; E11 graphs kept through
the frozen projector; E12 one seed whatever was asked; E14 failed samples became zero vectors.
Ours: the loss in log space without the printed 1e-7; rows without E or without the anchor are out,
anchor by anchor, and so are batches with fewer than two; the anchors are the streams of modalities
`text` and `image`, or the first stream where there is neither; anchors of another width have a
projector of their own; several weaker streams are allowed. Absent streams are zeros after the
projector (`fill`), as in the code. Pooled features only: frames are averaged. Inputs are z-scored
unless `preset=official`: raw features are of one scale in CLIP alone, and on `digits` raw ones cost
six points of accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError, unknown
from pipelines import counter_rng
from pipelines.counter_rng import dropout
from pipelines.features.statistics import Moments
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm, Stage
from pipelines.fusion.layers import BatchNorm, Clean, module_key, pooled
from pipelines.fusion.losses import cosines, masked_mean, nt_xent

PLAN = {
    "epochs": 500,
    "learning_rate": 3e-4,
    "patience": 15,
    "min_delta": 1e-3,
    "schedule": "plateau",
    "clip": None,
}
Chosen = Literal["preset", "paper", "code"]
STRONG = ("text", "image")
Fill = Literal["zero", "mean", "learned"]
Form = Literal["paper", "code"]


class Filler(nn.Module):
    """Fill absent streams: with zeros, the train mean, or a learned vector.

    Zeros and learned vectors are put in after the projector, since its output for zeros is not
    zero; means before it. With `learned` the head also gets presence bits.
    """

    def __init__(self, inputs: Inputs, fill: Fill, joined: Mapping[str, int]) -> None:
        super().__init__()
        self.fill = fill
        for name, stream in inputs.streams.items() if fill == "mean" else ():
            self.register_buffer(f"mean_{module_key(name)}", torch.zeros(stream.width))
        if fill == "learned":
            made = {module_key(n): nn.Parameter(torch.randn(w) * 0.02) for n, w in joined.items()}
            self.learned = nn.ParameterDict(made)

    def before(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        """Fill the projector's input, pooled features (B, D)."""
        if self.fill != "mean":
            return x
        return torch.where(present[:, None], x, self.get_buffer(f"mean_{module_key(name)}"))

    def behind(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        """Fill the classifier's input, (B, D)."""
        if self.fill == "mean":
            return x
        filler = self.learned[module_key(name)] if self.fill == "learned" else 0
        return torch.where(present[:, None], x, filler)

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Set the train rows' means."""
        for name, seen in moments.items() if self.fill == "mean" else ():
            self.get_buffer(f"mean_{module_key(name)}").copy_(seen.mean)


def corrupt_rows(key: Tensor, place: str, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Row corruption for augmentation: choose rows to zero, and others to add noise to.

    Args:
        key: `batch.numbers`.
        place: a name that no other random numbers of the same head have.
        count: B, rows of the batch.
        share: of each kind; int(share · B) rows, sampled without replacement, none twice.

    Returns:
        Two (B,) bool.
    """
    order, some = counter_rng.permutation(key, place, count), int(share * count)
    return order < some, (order >= some) & (order < 2 * some)


@dataclass(frozen=True)
class Contrast:
    """Options of the contrastive alignment.

    Attributes:
        form: NT-Xent with the positive in the denominator (`paper`) or without (`code`).
        rows: rows of the similarity matrix: the anchor's, or the enhanced stream's.
        hardest: k negatives per row.
        temperature: τ.
        drop_duplicates_above: pairs whose anchors have a larger cosine are not negatives.
        exclude_same_label: pairs of one class or label are not negatives.
    """

    form: Form
    rows: Literal["target", "enhanced"]
    hardest: int
    temperature: float
    drop_duplicates_above: float | None
    exclude_same_label: bool


class Projector(nn.Module):
    """Project a weaker stream into the space of an anchor: (B, D) → (B, d_p)."""

    def __init__(self, width: int, onto: int, form: Form, place: str) -> None:
        super().__init__()
        self.place = place
        self.first = nn.Linear(width, onto)
        self.second = nn.Linear(onto, onto) if form == "code" else None
        self.norm = nn.LayerNorm(onto) if form == "code" else None

    def forward(self, x: Tensor, numbers: Tensor, *, training: bool) -> Tensor:
        """Linear, tanh, residual; dropout only in the align stage."""
        first = self.first(x)
        turned = torch.tanh(first)
        if self.second is not None:
            turned = self.second(turned)
        out = dropout(turned, 0.1, numbers, self.place, training=training) + first
        return torch.as_tensor(out if self.norm is None else self.norm(out))


def contrast_loss(
    contrast: Contrast, made: Tensor, target: Tensor, keep: Tensor, targets: Tensor
) -> Tensor:
    """NT-Xent between a projector's output and its anchor, (); 0 for fewer than two rows.

    Args:
        contrast: options.
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


class Classifier(nn.Module):
    """MLP classifier of two blocks with batch norm: (B, inputs) → (B, C)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, form: Form) -> None:
        super().__init__()
        self.form = form
        self.blocks = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)])
        self.norms = nn.ModuleList([BatchNorm(hidden), BatchNorm(hidden)])
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, rows: Tensor, key: Tensor) -> Tensor:
        """Logits; rows with nothing present do not count in batch norm."""
        for number, (linear, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            x = norm(linear(x), rows)
            if self.form == "code":
                x = counter_rng.dropout(x, 0.2, key, f"ef_cl.block{number}", training=self.training)
                x = nn.functional.leaky_relu(x, 0.01)
            else:
                x = torch.relu(x)
        return torch.as_tensor(self.out(x))


class EfCl(FusionHead):
    """Projectors, then a classifier on the concatenation: enhanced streams, then anchors."""

    frozen: Mapping[str, str] = {
        "classifier.blocks.0.bias": "BatchNorm subtracts it again",
        "classifier.blocks.1.bias": "BatchNorm subtracts it again",
    }

    def __init__(
        self,
        inputs: Inputs,
        anchors: Sequence[str],
        contrast: Contrast | None,
        *,
        norm: Norm,
        forms: tuple[Form, Form],
        hidden: int,
        fill: Fill,
        noise: float,
        stages: tuple[Stage, Stage],
    ) -> None:
        super().__init__(inputs)
        self.noise = noise
        self.anchors, self.contrast = tuple(anchors), contrast
        self.weaker = tuple(name for name in inputs.names if name not in anchors)
        self.stages = stages if contrast and self.weaker else stages[1:]
        self.clean = Clean(inputs, norm)
        widths = {name: inputs.streams[name].width for name in (*self.weaker, *anchors)}
        onto = dict.fromkeys(widths[name] for name in anchors)
        self.projectors = nn.ModuleDict()
        for name in self.weaker if contrast else ():
            places = {str(to): f"ef_cl.{name}.{to}" for to in onto}
            made = {to: Projector(widths[name], int(to), forms[0], at) for to, at in places.items()}
            self.projectors[module_key(name)] = nn.ModuleDict(made)
            widths[name] = sum(onto)
        self.filler = Filler(inputs, fill, widths)
        total = sum(widths.values()) + (len(widths) if fill == "learned" else 0)
        self.classifier = Classifier(total, hidden, inputs.outputs, forms[1])

    def forward(self, batch: Batch) -> Fused:
        """Logits from the frozen projectors' outputs and the anchors."""
        present, noisy = self._corrupted(batch)  # (B, M) each
        values = self._values(batch, present)
        parts = []
        for name in (*self.weaker, *self.anchors):
            value, number = values[name], self.inputs.names.index(name)
            if module_key(name) in self.projectors:
                made = self._project(name, value, batch, training=False).values()
                value = torch.cat(list(made), 1).detach()
            if noisy is not None:
                noise = counter_rng.normal(batch.numbers, f"ef_cl.noise {name}", value.shape)
                value = torch.where(noisy[:, number, None], value + noise.to(value.dtype), value)
            parts.append(self.filler.behind(name, value, present[:, number]))
        if self.filler.fill == "learned":
            parts.append(present.to(parts[0].dtype))
        joined = torch.cat(parts, 1)
        return Fused(self.classifier(joined, batch.present.any(1), batch.numbers))

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Contrastive loss in the align stage, then the task's loss."""
        if step != "align" or self.contrast is None:
            return self.task_loss(batch, fused.logits)
        values = self._values(batch, batch.present)
        losses, counted = [], []
        for name in self.weaker:
            made = self._project(name, values[name], batch, training=self.training)
            for anchor in self.anchors:
                keep = batch.present[:, [self.inputs.names.index(n) for n in (name, anchor)]].all(1)
                target = values[anchor]
                onto = made[str(target.shape[1])]
                losses.append(contrast_loss(self.contrast, onto, target, keep, batch.targets))
                counted.append(keep.sum() > 1)
        return masked_mean(torch.stack(losses), torch.stack(counted))

    def trains(self, name: str, step: str, stage: str) -> bool:
        """Projectors in the align stage, everything else in the classify stage."""
        return name.startswith("projectors.") == (step == "align")

    def _corrupted(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """(B, M) presence after zeroing some rows per stream, and (B, M) which rows get noise."""
        if not self.training or self.noise == 0:
            return batch.present, None
        count = len(batch.present)
        each = [
            corrupt_rows(batch.numbers, f"ef_cl.{n}", count, self.noise) for n in self.inputs.names
        ]
        zeroed, noisy = (torch.stack(rows, 1) for rows in zip(*each, strict=True))
        return batch.present & ~zeroed, noisy

    def _values(self, batch: Batch, present: Tensor) -> dict[str, Tensor]:
        """Pooled features (B, D) by stream."""
        values = {}
        for (name, x), there in zip(self.clean(batch).items(), present.mT, strict=True):
            x = pooled(x, batch.frame_present.get(name))
            values[name] = self.filler.before(name, x, there)
        return values

    def _project(self, name: str, x: Tensor, batch: Batch, *, training: bool) -> dict[str, Tensor]:
        parts = self.projectors[module_key(name)].items()  # type: ignore[operator]
        return {onto: part(x, batch.numbers, training=training) for onto, part in parts}


def build(
    inputs: Inputs,
    *,
    preset: Literal["paper", "official"] = "paper",
    projector: Chosen = "preset",
    loss: Chosen = "preset",
    classifier: Chosen = "preset",
    anchor: Literal["preset", "target", "enhanced"] = "preset",
    anchors: tuple[str, ...] = (),
    contrast: bool = True,
    hidden: int = 256,
    hardest: int = 5,
    temperature: float = 0.07,
    fill: Fill = "zero",
    noise: float | Literal["preset"] = "preset",
    drop_duplicates_above: float | None = None,
    exclude_same_label: bool = False,
    align_learning_rate: float = 1e-4,
    align_batch_size: int = 64,
    align_patience: int = 10,
    input_norm: Norm | Literal["preset"] = "preset",
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        preset: defaults of `projector`, `loss`, `classifier`, `anchor`, `noise` and `input_norm`.
        projector: as in the paper (linear, tanh, dropout, residual) or the code (E2).
        loss: positive in the denominator, or not (E1).
        classifier: BatchNorm and ReLU, or with dropout and LeakyReLU (E3).
        anchor: rows of the similarity matrix: the anchor's, or the enhanced stream's (E4).
        anchors: modalities (or streams) that the others are aligned to.
        contrast: false concatenates the raw streams: plain early fusion.
        hidden: H of the classifier.
        hardest: k negatives per row.
        temperature: τ of the contrast.
        fill: of absent streams: zeros, the train mean, or a learned vector and presence bits.
        noise: share of a training batch's rows that are zeroed in each stream, and of as many
            others that get N(0, 1) added, in the classify stage; .15 in `official` (E13), else 0.
        drop_duplicates_above: pairs whose anchors have a larger cosine are not negatives.
        exclude_same_label: pairs of one class or label are not negatives (supervised contrast).
        align_learning_rate: of the align stage.
        align_batch_size: of the align stage.
        align_patience: of the align stage.
        input_norm: none, l2, or zscore by the train rows; `official` has none, `paper` zscore.

    Raises:
        MmfuseError: for unknown anchors, or settings that exclude each other.
    """
    if exclude_same_label and inputs.task.kind == "value":
        raise MmfuseError("ef_cl: exclude_same_label needs classes or labels, not a value")
    form: Form = "code" if preset == "official" else "paper"
    norm: Norm = "none" if form == "code" else "zscore"
    norm = norm if input_norm == "preset" else input_norm
    corrupted = (0.15 if form == "code" else 0.0) if noise == "preset" else noise
    if not 0 <= corrupted <= 0.5:
        raise MmfuseError(f"ef_cl: noise is a share from 0 to .5, not {corrupted}")
    options = Contrast(
        form if loss == "preset" else loss,
        ("enhanced" if form == "code" else "target") if anchor == "preset" else anchor,
        hardest,
        temperature,
        drop_duplicates_above,
        exclude_same_label,
    )
    align = {
        "learning_rate": align_learning_rate,
        "batch_size": align_batch_size,
        "patience": align_patience,
        "plateau_factor": 0.8,
    }
    return EfCl(
        inputs,
        find_anchors(inputs, anchors),
        options if contrast else None,
        norm=norm,
        forms=(
            form if projector == "preset" else projector,
            form if classifier == "preset" else classifier,
        ),
        hidden=hidden,
        fill=fill,
        noise=corrupted,
        stages=(
            Stage("align", ("align",), "loss", align),
            Stage("classify", ("classify",), "score" if form == "code" else None),
        ),
    )


def find_anchors(inputs: Inputs, words: Sequence[str]) -> list[str]:
    """Anchor streams, in their order, from names of modalities or streams."""
    known = {stream.modality for stream in inputs.streams.values()} | set(inputs.names)
    for word in words:
        if word not in known:
            raise unknown("anchor", word, known)
    chosen = [n for n, s in inputs.streams.items() if {n, s.modality} & set(words or STRONG)]
    return chosen or [inputs.names[0]]
