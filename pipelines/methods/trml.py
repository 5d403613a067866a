"""TRML: absent streams and frames are imputed by translation from the present ones.

    ν_a   = mean of the present frames of stream a                                  (B, D_a)
    x̂_m  = mean over present a ≠ m of G_am(ν_a), G two linear maps with GELU        (B, D_m)
    frames of m that are absent become x̂_m; all of them where m is absent; then a GRU over frames
    logits = MLP([streams, virtual or not]);   loss = task loss + α · matching
    matching = cross-entropy of cos(G_am(ν_a), ν_m)/τ with its diagonal, rows and columns, over the
               rows that have both a and m; mean over ordered pairs

Paper: "Toward Robust Multimodal Learning using Multimodal Foundational Models" (arXiv 2401.13697).
Only a summary and review excerpts are available: that virtual modalities are made by MLPs, that an
RNN reads frames, that similarities under a temperature are matched by cross-entropy, that the
losses are added and that missing frames are supported, is the paper's; every size, α, τ, which pair
is matched, both directions, and the following are ours:
- More than two streams: a translator for every ordered pair and the mean of those present, which
  is the pair form at two; `translator=hub` has one latent space and a cost linear in streams.
- An absent frame is filled where another stream is present: up to the last present frame, so that
  padding stays padding; every slot where the stream has no frame at all. Where no other is,
  the GRU's state does not change at absent frames.
- In training a row with two streams or more loses one of them with probability `rho`, so that the
  head sees virtual inputs even in complete data.
- Rows with nothing present get zeros: a learned vector would be in no loss and never learn.
- Matching is exactly 0 for fewer than two rows, where its cross-entropy would be 0 or NaN.
- Inputs are z-scored by default: raw features of several encoders differ in scale by orders of
  magnitude, and on `digits` raw ones do not train at all.
- Matching compares complete rows alone. They are spread evenly over the batches, and each batch
  has at least `complete_rows` of them: with few of them they come more than once per epoch, since
  most batches would match nothing otherwise.
How well translators work alone is recorded with the scores: `match_r1`, `match_r5` (the share of
virtual vectors whose own real one is the nearest, or among five) and `match_cosine`, over the rows
with both of a pair, mean over ordered pairs. `detach=true` lets matching alone train them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError
from pipelines.counter_rng import dropout, uniform
from pipelines.features.statistics import Moments
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Clean, module_key, pooled
from pipelines.fusion.losses import masked_mean, semantic_matching
from pipelines.fusion.stems import Gru
from pipelines.metrics.metrics import mean_cosine, recall_at

PLAN = {"patience": 10}
Virtual = Literal["translated", "zero", "mean"]
Target = Literal["original", "prompt", "both"]
Pairs = dict[tuple[str, str], Tensor]


class Translators(nn.Module):
    """Translators G from one stream's mean to another's: per ordered pair, or over a hub."""

    def __init__(self, inputs: Inputs, hidden: int, kind: Literal["pairs", "hub"]) -> None:
        super().__init__()
        self.kind, names = kind, inputs.names
        widths = {name: stream.width for name, stream in inputs.streams.items()}
        if kind == "hub":
            self.up = nn.ModuleDict({module_key(a): nn.Linear(widths[a], hidden) for a in names})
            self.down = nn.ModuleDict({module_key(m): nn.Linear(hidden, widths[m]) for m in names})
            return
        pairs = [(a, m) for a in names for m in names if a != m]
        self.up = nn.ModuleDict({key(a, m): nn.Linear(widths[a], hidden) for a, m in pairs})
        self.down = nn.ModuleDict({key(a, m): nn.Linear(hidden, widths[m]) for a, m in pairs})

    def forward(self, means: Mapping[str, Tensor], batch: Batch, *, training: bool) -> Pairs:
        """(B, D_m) by ordered pair (a, m): stream m as predicted from a."""
        made = {}
        for a, x in means.items():
            for m in means:
                if a != m:
                    up, down = (
                        (module_key(a), module_key(m)) if self.kind == "hub" else (key(a, m),) * 2
                    )
                    hidden = nn.functional.gelu(self.up[up](x))
                    place = f"trml.{up}"
                    hidden = dropout(hidden, 0.1, batch.numbers, place, training=training)
                    made[a, m] = self.down[down](hidden)
        return made


def key(source: str, target: str) -> str:
    """Name of the translator from one stream to another."""
    return f"{module_key(source)}>{module_key(target)}"


class Placeholder(nn.Module):
    """Train means that fill absent streams where nothing is translated (`virtual=mean`)."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        for name, stream in inputs.streams.items():
            self.register_buffer(module_key(name), torch.zeros(stream.width))

    def observe(self, moments: Mapping[str, Moments]) -> None:
        """Set the train rows' means."""
        for name, seen in moments.items():
            self.get_buffer(module_key(name)).copy_(seen.mean)


@dataclass(frozen=True)
class Matching:
    """Options of the matching loss; see `build`."""

    alpha: float
    temperature: float
    target: Target
    by: Literal["entropy", "mse"]
    both_ways: bool


class Trml(FusionHead):
    """Translators, a GRU for every stream with frames, and an MLP on the concatenation."""

    def __init__(
        self,
        inputs: Inputs,
        matching: Matching,
        translators: Translators | None,
        *,
        stand: Placeholder | None,
        norm: Norm,
        hidden: int,
        gru: bool,
        rho: float,
        detach: bool,
        drop: float,
        complete_rows: int,
    ) -> None:
        super().__init__(inputs)
        matches = translators is not None and matching.alpha > 0 and len(inputs.streams) > 1
        self.complete_rows = complete_rows if matches else 0
        self.few: int | None = None
        self.matching, self.rho, self.detach, self.drop = matching, rho, detach, drop
        self.clean, self.translators, self.stand = Clean(inputs, norm), translators, stand
        framed = {n: s for n, s in inputs.streams.items() if s.sequence and gru}
        self.temporal = nn.ModuleDict({module_key(n): Gru(s, s.width) for n, s in framed.items()})
        total = sum(stream.width for stream in inputs.streams.values())
        self.mix = nn.Linear(total, hidden)
        self.out = nn.Linear(hidden, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits from real and virtual streams; translations as `extras` for the loss."""
        values, present = self.clean(batch), has_frames(batch)
        means = self._means(values, batch)
        made = self._translated(means, batch)
        shown = self._shown(present, batch)  # (B, M)
        parts = []
        for number, (name, x) in enumerate(values.items()):
            virtual, known = self._virtual(name, means[name], made, shown)
            frames = batch.frame_present.get(name)
            if frames is None:
                part = torch.where(shown[:, number, None], x, virtual)
            else:
                part = self._sequence(name, x, frames & shown[:, number, None], virtual, known)
            parts.append(part)
        hidden = torch.relu(self.mix(torch.cat(parts, 1)))
        hidden = dropout(hidden, self.drop, batch.numbers, "trml.out", training=self.training)
        extras = made if self.training else {}
        return Fused(self.out(hidden), extras={key(*pair): x for pair, x in extras.items()})

    def observe_epoch_size(self, batches: int, complete_rows: int) -> None:
        """Note if complete rows are too few for every batch to have `complete_rows` once."""
        self.few = complete_rows if complete_rows < self.complete_rows * batches else None

    def remarks(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Note how few rows matching saw, if they had to come more than once per epoch."""
        if self.few is None or self.matching.alpha == 0 or self.translators is None:
            return ()
        return (f"{self.few:,} training rows have every stream, and matching compares those alone",)

    def measures(self, batch: Batch, fused: Fused) -> dict[str, float]:
        """Retrieval of real vectors by virtual ones (R@1, R@5, cosine), mean over ordered pairs."""
        if self.translators is None or len(batch.features) < 2:
            return {}
        present, means = has_frames(batch), self._means(self.clean(batch), batch)
        found: dict[str, list[float]] = {"match_r1": [], "match_r5": [], "match_cosine": []}
        for (a, m), made in self._translated(means, batch).items():
            both = present[:, [self.inputs.names.index(name) for name in (a, m)]].all(1)
            if both.sum() > 1:
                pair = [x[both].cpu().double().numpy() for x in (made, means[m])]
                found["match_r1"].append(recall_at(pair[0], pair[1], 1))
                found["match_r5"].append(recall_at(pair[0], pair[1], 5))
                found["match_cosine"].append(mean_cosine(*pair))
        return {name: fmean(each) if each else float("nan") for name, each in found.items()}

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Task loss over rows with any stream, plus α · matching over rows with both of a pair."""
        total = self.task_loss(batch, fused.logits)
        if self.translators is None or self.matching.alpha == 0 or len(batch.features) < 2:
            return total
        present, means = has_frames(batch), self._means(self.clean(batch), batch)
        made = {pair: fused.extras.get(key(*pair)) for pair in self._pairs()}
        if any(x is None for x in made.values()):
            made = dict(self._translated(means, batch))
        losses, counted = [], []
        for (a, m), x in made.items():
            both = present[:, [self.inputs.names.index(name) for name in (a, m)]].all(1)
            losses.append(self._match(torch.as_tensor(x), means[a], means[m], both))
            counted.append(both.sum() > 1)
        return total + self.matching.alpha * masked_mean(torch.stack(losses), torch.stack(counted))

    def _match(self, made: Tensor, prompt: Tensor, original: Tensor, keep: Tensor) -> Tensor:
        matching = self.matching
        targets = {"original": [original], "prompt": [prompt], "both": [original, prompt]}
        each = []
        for real in targets[matching.target]:
            if matching.by == "mse":
                gap = (made - real).square().mean(-1)
                each.append(torch.where(keep.sum() > 1, masked_mean(gap, keep), 0))
            else:
                each.append(
                    semantic_matching(
                        made,
                        real,
                        keep,
                        temperature=matching.temperature,
                        both_ways=matching.both_ways,
                    )
                )
        return torch.stack(each).mean()

    def _means(self, values: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {name: pooled(x, batch.frame_present.get(name)) for name, x in values.items()}

    def _translated(self, means: Mapping[str, Tensor], batch: Batch) -> Pairs:
        if self.translators is None:
            return {}
        made: Pairs = self.translators(means, batch, training=self.training)
        return made

    def _pairs(self) -> list[tuple[str, str]]:
        names = self.inputs.names
        return [(a, m) for a in names for m in names if a != m]

    def _shown(self, present: Tensor, batch: Batch) -> Tensor:
        """Presence; in training rows of two or more streams lose one with probability rho."""
        if not self.training or self.rho == 0:
            return present
        hides = uniform(batch.numbers, "trml.rho", (len(present), 1)) < self.rho
        order = uniform(batch.numbers, "trml.which", present.shape)
        last = torch.where(present, order, -1).argmax(1, keepdim=True)
        lost = torch.arange(present.shape[1], device=present.device) == last
        return present & ~(lost & hides & (present.sum(1, keepdim=True) > 1))

    def _virtual(
        self, name: str, like: Tensor, made: Pairs, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, D) virtual stream, and (B,) rows with another stream to make it from."""
        others = [i for i, other in enumerate(self.inputs.names) if other != name]
        known = shown[:, others].any(1)
        if self.translators is None:
            mean = torch.zeros_like(like[:1])
            if self.stand is not None:
                mean = self.stand.get_buffer(module_key(name)).to(like)
            return torch.where(known[:, None], mean, 0).expand_as(like), known
        translated = [made[self.inputs.names[i], name] for i in others]
        if not translated:
            return torch.zeros_like(like), known
        count = shown[:, others].sum(1, keepdim=True).clamp(min=1)
        total = torch.where(shown[:, others, None], torch.stack(translated, 1), 0).sum(1)
        virtual = total / count
        return (virtual.detach() if self.detach else virtual), known

    def _sequence(
        self, name: str, x: Tensor, there: Tensor, virtual: Tensor, known: Tensor
    ) -> Tensor:
        """(B, T, D) with absent frames filled → (B, D)."""
        later = there.flip(1).cumsum(1).flip(1) > 0  # up to the last present frame
        gaps = known[:, None] & ~there & (later | ~there.any(1, keepdim=True))
        x = torch.where(gaps[..., None], virtual[:, None], x)
        there = there | gaps
        x = torch.where(there[..., None], x, 0)
        if module_key(name) not in self.temporal:
            return pooled(x, there)
        return torch.as_tensor(self.temporal[module_key(name)](x, there))


def has_frames(batch: Batch) -> Tensor:
    """(B, M) presence; a sequence stream without a present frame is absent."""
    columns = []
    for name, present in zip(batch.features, batch.present.mT, strict=True):
        frames = batch.frame_present.get(name)
        columns.append(present if frames is None else present & frames.any(1))
    return torch.stack(columns, 1)


def build(
    inputs: Inputs,
    *,
    hidden: int = 256,
    translator_hidden: int = 512,
    translator: Literal["pairs", "hub"] = "pairs",
    virtual: Virtual = "translated",
    temporal: Literal["gru", "mean"] = "gru",
    alpha: float = 0.1,
    temperature: float = 0.07,
    target: Target = "original",
    matching: Literal["entropy", "mse"] = "entropy",
    both_ways: bool = True,
    rho: float = 0.5,
    detach: bool = False,
    dropout: float = 0.1,
    complete_rows: int = 8,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        hidden: width of the MLP.
        translator_hidden: width inside a translator.
        translator: one for every ordered pair of streams, or over a common latent space.
        virtual: translated, or (ablations) zeros or the train mean instead.
        temporal: how frames become one vector: GRU, or their mean.
        alpha: weight of matching; 0 is the ablation without it.
        temperature: τ of matching, at least 0.01.
        target: match the virtual stream with the original one, with its own prompt (streams of
            one width), or both.
        matching: cross-entropy of similarities, or (ablation) squared error.
        both_ways: rows against columns and columns against rows.
        rho: probability that a training row of two or more streams loses one.
        detach: do not train the translators by the task's loss.
        dropout: dropout probability before the last linear map.
        complete_rows: minimum number of rows with every stream in a training batch; 0 leaves
            batches at random.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for `target` prompt or both with streams of unequal widths.
    """
    if target != "original" and len({s.width for s in inputs.streams.values()}) > 1:
        raise MmfuseError(f"trml: target={target} compares streams of one width; use original")
    translated = virtual == "translated"
    return Trml(
        inputs,
        Matching(alpha, temperature, target, matching, both_ways),
        Translators(inputs, translator_hidden, translator) if translated else None,
        stand=Placeholder(inputs) if virtual == "mean" else None,
        norm=input_norm,
        hidden=hidden,
        gru=temporal == "gru",
        rho=rho,
        detach=detach,
        drop=dropout,
        complete_rows=complete_rows,
    )
