"""Losses and entropy weights: task, InfoNCE, NT-Xent and matching losses, as pure functions.

Every function is pure and of fixed shape: rows are chosen by `where` and masked means, never by
indexing, so it runs under `torch.func.vmap`, and a row that is left out changes neither value nor
gradient. Similarities are computed in at least single precision.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cache.samples import Task

TaskKind = Literal["classes", "labels", "value"]

SHORTEST = 1e-8
"""Length below which a vector counts as zero: its cosine with anything is 0."""


def task_loss(
    task: Task, logits: Tensor, targets: Tensor, rows: Tensor, class_weight: Tensor | None = None
) -> Tensor:
    """Mean task loss over the counted rows; 0 with zero gradient where there are none.

    Args:
        task: `classes` cross-entropy, `labels` binary cross-entropy (mean over C), `value`
            squared error.
        logits: (B, C).
        targets: as in `Batch`.
        rows: (B,) bool, which rows count.
        class_weight: (C,) or None; as in `nn.CrossEntropyLoss`, the mean is weighted too. For
            `labels` it weights the positive term.
    """
    if task.kind == "classes":
        # As F.cross_entropy, whose decomposition under vmap is slower and imports sympy.
        each = -logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]  # (B,)
        weight = torch.ones_like(each) if class_weight is None else class_weight[targets]
    elif task.kind == "labels":
        target = targets.to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(
            logits, target, reduction="none", pos_weight=class_weight
        ).mean(-1)
        weight = torch.ones_like(each)
    else:
        each = (logits[:, 0] - targets.to(logits.dtype)) ** 2
        weight = torch.ones_like(each)
    weight = torch.where(rows, weight.to(each.dtype), 0)
    total = torch.where(rows, each, 0) * weight
    count = weight.sum()
    return total.sum() / torch.where(count > 0, count, 1)


def info_nce(
    anchors: Tensor,
    fused: Tensor,
    present: Tensor,
    *,
    temperature: float,
    weighting: Literal["stream", "flat"] = "stream",
    both_ways: bool = False,
    negatives: Tensor | None = None,
) -> Tensor:
    """InfoNCE on cosines between each present stream and its own row's fused vector.

    The candidates of an anchor are the fused vectors of all rows with any stream present.

    Args:
        anchors: (B, M, H) one vector per stream, before fusion.
        fused: (B, H).
        present: (B, M) bool; absent streams are never anchors.
        temperature: divides the cosines.
        weighting: mean over streams of the mean over rows, or the mean over all pairs at once.
        both_ways: also from fused vector to stream, averaged with the first direction.
        negatives: (B, B) bool, False for pairs that must not serve as negatives; None = all serve.

    Returns:
        (), at least 0; 0 where there is no anchor.
    """
    keep = present.mT  # (M, B)
    alive = present.any(-1).expand_as(keep)  # (M, B)
    scores = cosines(anchors.transpose(0, 1), fused) / temperature  # (M, B, B)
    losses = diagonal_cross_entropy(scores, alive, negatives)  # (M, B)
    if both_ways:
        losses = (losses + diagonal_cross_entropy(scores.mT, keep, negatives)) / 2
    if weighting == "flat":
        return masked_mean(losses, keep)
    return masked_mean(masked_mean(losses, keep, dim=-1), keep.any(-1))


def nt_xent(
    cosine: Tensor,
    keep: Tensor,
    *,
    temperature: float,
    hardest: int,
    form: Literal["paper", "code"] = "paper",
    negatives: Tensor | None = None,
) -> Tensor:
    """NT-Xent loss against the k hardest negatives of each row, in log space.

    `paper`: −log(pos / (pos + sum of the hardest)), in [0, log(1 + k) + 2/temperature];
    `code`: −log(pos / sum of the hardest), the decoupled form, without a lower bound.
    The published 1e-7 in the denominator is not needed here: it only makes a logarithm finite.

    Args:
        cosine: (B, B); row = anchor, column = candidate, the diagonal holds the positives.
        keep: (B,) bool; other rows are neither anchors nor candidates.
        temperature: divides the cosines.
        hardest: k, the number of negatives per row; fewer where the batch has fewer.
        form: see above.
        negatives: (B, B) bool, False for pairs that must not serve as negatives.

    Returns:
        () mean over the rows in `keep` that have a negative; 0 where there is none.
    """
    scores = at_least_float32(cosine) / temperature
    allowed = keep.unsqueeze(-1) & keep & off_diagonal(scores)
    if negatives is not None:
        allowed = allowed & negatives
    floor = torch.finfo(scores.dtype).min / 2
    top = scores.masked_fill(~allowed, floor).topk(max(1, min(hardest, scores.shape[-1] - 1)), -1)
    positive = scores.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)  # (B, 1)
    against = torch.cat([positive, top.values], -1) if form == "paper" else top.values
    usable = allowed.any(-1)
    against = torch.where(usable.unsqueeze(-1), against, positive.detach())
    losses = against.logsumexp(-1) - positive.squeeze(-1)
    return masked_mean(losses, usable)


def semantic_matching(
    made: Tensor, real: Tensor, keep: Tensor, *, temperature: float, both_ways: bool = True
) -> Tensor:
    """Cross-entropy of the similarity matrix between made and real vectors against the diagonal.

    Args:
        made: (B, D).
        real: (B, D).
        keep: (B,) bool; other rows are neither anchors nor candidates.
        temperature: divides the cosines; not below 0.01.
        both_ways: rows against columns and columns against rows, averaged.

    Returns:
        (), at least 0; exactly 0 with a zero gradient where `keep` has fewer than two rows.
    """
    scores = cosines(made, real) / max(temperature, 0.01)
    losses = diagonal_cross_entropy(scores, keep)
    if both_ways:
        losses = (losses + diagonal_cross_entropy(scores.mT, keep)) / 2
    return torch.where(keep.sum() > 1, masked_mean(losses, keep), 0)


def entropy_weights(kind: TaskKind, stream_logits: Tensor, present: Tensor) -> Tensor:
    """(B, M) stream weights: softmax of minus entropy over present streams; zeros where none is.

    Args:
        kind: `classes` or `labels`.
        stream_logits: (B, M, C).
        present: (B, M) bool.
    """
    return masked_softmax(-entropy(kind, stream_logits), present)


def batch_entropy_weights(stream_logits: Tensor, present: Tensor, size: int = 64) -> Tensor:
    """(B, M) stream weights by an entropy over groups of rows, as in MLA's public code.

    Rows are grouped by `size` in their order. The softmax runs over the rows of a group, class by
    class; its entropies are summed over classes to one value per stream; the weights are a
    softmax of minus those values over the present streams.

    Args:
        stream_logits: (B, M, C).
        present: (B, M) bool.
        size: rows of a group; the last group may have fewer.
    """
    count, streams, outputs = stream_logits.shape
    short = -count % size
    logits = F.pad(at_least_float32(stream_logits), (0, 0, 0, 0, 0, short)).view(
        -1, size, streams, outputs
    )
    keep = F.pad(present, (0, 0, 0, short)).view(-1, size, streams, 1)
    floor = torch.finfo(logits.dtype).min / 2
    logs = logits.masked_fill(~keep, floor).log_softmax(1)
    each = torch.where(keep, -(logs.exp() * logs), 0).sum((1, 3))  # (G, M)
    spread = each.unsqueeze(1).expand(-1, size, -1).flatten(0, 1)[:count]
    return masked_softmax(-spread, present)


def entropy(kind: TaskKind, logits: Tensor) -> Tensor:
    """Entropy in nats over the last axis: of the softmax, or the sum over independent labels."""
    logits = at_least_float32(logits)
    if kind == "classes":
        logs = logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)
    return (F.softplus(logits) - logits * logits.sigmoid()).sum(-1)


def diagonal_cross_entropy(
    scores: Tensor, candidates: Tensor, negatives: Tensor | None = None
) -> Tensor:
    """(…, B) cross-entropy of each row of `scores` (…, B, B) against its diagonal entry.

    Args:
        scores: (…, B, B).
        candidates: (…, B) bool; candidate columns. A row's own column always is one.
        negatives: (…, B, B) bool, False for pairs left out.
    """
    allowed = candidates.unsqueeze(-2).expand_as(scores)
    if negatives is not None:
        allowed = allowed & negatives
    shut = ~allowed & off_diagonal(scores)
    against = scores.masked_fill(shut, torch.finfo(scores.dtype).min / 2)
    return against.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """(…, B, B') cosine of every row (…, B, D) with every column (…, B', D)."""
    return unit(rows) @ unit(columns).mT


def unit(vectors: Tensor) -> Tensor:
    """Normalise to length 1 over the last axis; vectors below 1e-8 become 0, gradient too."""
    vectors = at_least_float32(vectors)
    square = vectors.square().sum(-1, keepdim=True)
    directed = square > SHORTEST**2
    return torch.where(directed, vectors, 0) * torch.where(directed, square, 1).rsqrt()


def masked_softmax(scores: Tensor, keep: Tensor, dim: int = -1) -> Tensor:
    """Softmax over the entries in `keep`; exact zeros elsewhere, also where there are none."""
    scores = at_least_float32(scores)
    floor = torch.finfo(scores.dtype).min / 2
    return torch.where(keep, scores.masked_fill(~keep, floor).softmax(dim), 0)


def masked_mean(values: Tensor, keep: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the values in `keep`, over all axes or one; 0 where there are none."""
    chosen = torch.where(keep, values, 0)
    count = keep.expand_as(values)
    if dim is None:
        return chosen.sum() / count.sum().clamp(min=1)
    return chosen.sum(dim) / count.sum(dim).clamp(min=1)


def off_diagonal(scores: Tensor) -> Tensor:
    """(B, B) bool, True off the diagonal, for a square matrix of that size."""
    return ~torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)


def at_least_float32(values: Tensor) -> Tensor:
    """Cast half precision to float32: its exponentials overflow at a cosine of 1."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
