"""Baselines of every results table: majority class, logistic regression or ridge."""

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cache.baselines import Baselines
from cache.runs import Scores
from cache.samples import Task
from pipelines.device import threads_for
from pipelines.features.statistics import Moments, moments
from pipelines.features.table import FeatureTable, at_least_single
from pipelines.fusion.layers import pooled
from pipelines.metrics.metrics import replica_scores

PENALTIES = (1e0, 1e-1, 1e-2, 1e-3, 1e-4)
"""L2 penalties: λ / 2 · |weights|² is added to the mean loss per row; strongest first.

scikit-learn's C is 1 / (penalty × train rows); its Ridge alpha is penalty × train rows.
"""
VERSION = 1  # of how models are fitted; stored ones of another are not used
ITERATIONS = 100
MOST_ROWS = 50_000
"""Train rows that a linear model is fitted on at most, drawn at random from more."""
_VALUES = 1 << 22  # of features, made dense at a time
_UNSEEN = -10.0  # log-odds of a class that no train row has
_CACHED = 16  # fits of this process that are cached


@dataclass(frozen=True)
class Linear:
    """A linear model on the concatenation of some streams and a presence bit of each.

    Attributes:
        names: the streams.
        seen: moments of their train rows; features are z-scored, absent ones are then 0.
        weight: (D + 1, C), the last row is the bias.
        penalty: the best one on validation rows.
        rows: number of train rows that it was fitted on.
        of: number of train rows.
    """

    names: tuple[str, ...]
    seen: dict[str, Moments]
    weight: Tensor
    penalty: float
    rows: int
    of: int

    def outputs(self, table: FeatureTable) -> NDArray[np.float64]:
        """(N, C) logits; for `value` in units of the target."""
        weight = self.weight.double()
        parts = [design(p, self.names, self.seen).double() @ weight for p in _windows(table)]
        array = torch.cat(parts).cpu().numpy()
        if table.samples.task.kind == "value":
            array = array * table.scale.deviation + table.scale.mean
        return np.asarray(array)

    def remarks(self, task: Task) -> tuple[str, ...]:
        """A note where it was fitted on a part of the train rows."""
        if self.rows == self.of:
            return ()
        return (f"{linear_name(task)} is fitted on {self.rows:,} of {self.of:,} train rows",)


def linear_name(task: Task) -> str:
    """Name of the linear baseline of a task in tables and records."""
    return "ridge" if task.kind == "value" else "logistic"


_FITTED: OrderedDict[bytes, Linear] = OrderedDict()


def majority(
    table: FeatureTable, split: str, pattern: str = "complete", realised: float = 0.0
) -> Scores:
    """Scores of a constant: the train rows' majority class or labels, or median value."""
    task, train = table.samples.task, table.samples.targets[table.split("train")]
    rows = table.split(split)
    constant = _constant(task, train)
    outputs = np.broadcast_to(constant, (len(rows), task.outputs))
    return replica_scores(
        task,
        [outputs],
        table.samples.targets[rows],
        pattern=pattern,
        split=split,
        realised=realised,
    )


def fit_linear(
    table: FeatureTable, names: Sequence[str] | None = None, stored: Baselines | None = None
) -> Linear:
    """Logistic (or ridge) regression on train rows, its penalty chosen on validation rows.

    Args:
        table: train and validation rows at least; no others are looked at.
        names: of the streams to use; None = all.
        stored: models of earlier commands on these features.
    """
    names = tuple(table.features) if names is None else tuple(names)
    key = _content(table, names)
    if key not in _FITTED:
        found = None if stored is None else stored.get(key.hex())
        if found is not None:
            _FITTED[key] = _unpacked(*found, names, table.device)
        else:
            _FITTED[key] = _fit(table, names)
            if stored is not None:
                stored.put(key.hex(), *_packed(_FITTED[key]))
    _FITTED.move_to_end(key)
    while len(_FITTED) > _CACHED:
        _FITTED.popitem(last=False)
    return _FITTED[key]


def _packed(model: Linear) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Arrays and numbers of a model, for `Baselines`."""
    arrays = {"weight": model.weight.float().cpu().numpy()}
    for place, name in enumerate(model.names):
        seen = model.seen[name]
        arrays[f"mean {place}"] = seen.mean.float().cpu().numpy()
        arrays[f"deviation {place}"] = seen.deviation.float().cpu().numpy()
    return arrays, {"penalty": model.penalty, "rows": model.rows, "of": model.of}


def _unpacked(
    arrays: dict[str, NDArray[np.float32]],
    numbers: dict[str, float],
    names: tuple[str, ...],
    device: torch.device,
) -> Linear:
    """Inverse of `_packed`."""
    made = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
    seen = {n: Moments(made[f"mean {p}"], made[f"deviation {p}"]) for p, n in enumerate(names)}
    rows, of = int(numbers["rows"]), int(numbers["of"])
    return Linear(names, seen, made["weight"], numbers["penalty"], rows, of)


def _content(table: FeatureTable, names: Sequence[str]) -> bytes:
    """Digest of a fit's inputs: the methods of one command share their baselines by it.

    Undefined bytes behind absent cells are part of it: they may cost a fit, never a wrong one.
    """
    seen = table.take(np.flatnonzero(np.isin(table.samples.splits, ("train", "val"))))
    about = (VERSION, MOST_ROWS, PENALTIES, names, seen.samples.task, table.scale)
    found = blake2b(repr(about).encode(), digest_size=16)
    found.update("".join(split[0] for split in seen.samples.splits.tolist()).encode())
    tensors = [seen.targets, seen.present[:, [list(seen.features).index(n) for n in names]]]
    tensors += [seen.features[name] for name in names]
    tensors += [seen.frame_present[name] for name in names if name in seen.frame_present]
    for tensor in tensors:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().cpu().numpy().reshape(-1).view(np.uint8).data)
    return found.digest()


@threads_for(0)
def _fit(table: FeatureTable, names: tuple[str, ...]) -> Linear:
    rows, held = table.split("train"), table.take(table.split("val"))
    seen = {n: m for n, m in moments(table, rows).items() if n in names}
    chosen = rows
    if len(rows) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))
    train, task = table.take(chosen), table.samples.task
    x = design(train, names, seen)
    with threads_for(4.0 * x.numel() * task.outputs):  # of a loss and its gradient
        weights = [found.to(x) for found in _weights(x, train.targets, task)]
    losses = torch.zeros(len(weights), dtype=torch.float64)
    for part in _windows(held):
        shown = design(part, names, seen)
        each = [float(_loss(task, shown @ weight, part.targets)) for weight in weights]
        losses += torch.tensor(each, dtype=torch.float64) * len(part)
    best = int(torch.where(losses.isfinite(), losses, torch.inf).argmin())
    return Linear(names, seen, weights[best], PENALTIES[best], len(chosen), len(rows))


def _windows(table: FeatureTable) -> Iterator[FeatureTable]:
    """The table some rows at a time; at least one window."""
    width = sum(x[:1].numel() for x in table.features.values())
    step = max(1, _VALUES // max(width, 1))
    for start in range(0, max(len(table), 1), step):
        yield table.window(start, min(len(table), start + step))


def _weights(x: Tensor, y: Tensor, task: Task) -> Iterator[Tensor]:
    """(D + 1, C) at each penalty in turn, the bias last."""
    if task.kind == "value":
        yield from (_ridge(x, y, penalty) for penalty in PENALTIES)
        return
    rows, targets = x[:, :-1].cpu().numpy(), y.cpu().numpy()
    if task.kind == "classes":
        yield from _logistic(rows, targets, task.outputs)
        return
    each = [
        _logistic(rows, targets[:, c].astype(np.int64), 2, one_logit=True)
        for c in range(task.outputs)
    ]
    for found in zip(*each, strict=True):  # independent labels: the log-odds of each
        yield torch.stack([two[:, 1] - two[:, 0] for two in found], 1)


def linear_scores(
    model: Linear, table: FeatureTable, split: str, pattern: str = "complete", realised: float = 0.0
) -> Scores:
    """Scores of a linear model on the rows of a split, of a table that may have cells hidden."""
    part = table.take(table.split(split))
    return replica_scores(
        part.samples.task,
        [model.outputs(part)],
        part.samples.targets,
        pattern=pattern,
        split=split,
        realised=realised,
    )


def design(table: FeatureTable, names: Sequence[str], seen: dict[str, Moments]) -> Tensor:
    """Design matrix (N, D + 1): z-scored streams, 0 where absent, presence bits, and ones."""
    columns, bits = [], []
    for name in names:
        there = table.present[:, list(table.features).index(name)]
        frames = table.frame_present.get(name)
        shown = there if frames is None else there[:, None] & frames
        clean = torch.where(shown[..., None], at_least_single(table.features[name]), 0)
        x = pooled(clean, None if frames is None else shown)
        there = there if frames is None else shown.any(1)
        std = torch.where(seen[name].deviation > 1e-6, seen[name].deviation, 1)
        columns.append(torch.where(there[:, None], (x - seen[name].mean) / std, 0))
        bits.append(there)
    signs = torch.stack(bits, 1).to(columns[0])
    return torch.cat([*columns, signs, torch.ones_like(signs[:, :1])], 1)


def _constant(task: Task, train: NDArray[Any]) -> NDArray[np.float64]:
    if task.kind == "classes":
        counts = np.bincount(train, minlength=task.outputs)
        # Log frequencies: argmax is the majority class, and the log loss is the prior's.
        return np.log(np.maximum(counts, 1e-9) / len(train))
    if task.kind == "labels":
        share = train.mean(0).clip(1e-9, 1 - 1e-9)
        return np.asarray(np.log(share / (1 - share)), np.float64)
    # The median minimises the primary metric, the mean absolute error.
    return np.array([np.median(train)], np.float64)


def _loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    if task.kind == "classes":
        return F.cross_entropy(outputs, targets)
    if task.kind == "labels":
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))
    return F.mse_loss(outputs[:, 0], targets.to(outputs.dtype))


def _logistic(
    x: NDArray[np.float32], y: NDArray[np.int64], classes: int, *, one_logit: bool = False
) -> Iterator[Tensor]:
    """scikit-learn's logistic regression at each penalty, from the last one's weights on.

    mean loss + penalty / 2 · |weights|², bias not penalised; the two logits of two classes are
    opposite, as the penalty wants them. Classes without rows have no weights and a low bias.

    Args:
        x: (N, D).
        y: (N,) class numbers.
        classes: C.
        one_logit: whether the penalty is on the difference of the logits of two classes.
    """
    there = np.unique(y)
    if len(there) < 2:
        weight = torch.full((x.shape[1] + 1, classes), 0.0)
        weight[-1] = _UNSEEN
        weight[-1, there] = 0
        yield from [weight] * len(PENALTIES)
        return
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    for penalty in PENALTIES:
        model.set_params(C=(2 if len(there) == 2 and not one_logit else 1) / (penalty * len(x)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a weak penalty needs more iterations
            model.fit(x, y)
        found = np.concatenate([model.coef_.T, model.intercept_[None]])  # (D + 1, C or 1)
        if len(there) == 2:
            found = np.concatenate([-found, found], 1) / 2
        weight = torch.zeros(x.shape[1] + 1, classes)
        weight[-1] = float(found[-1].min()) + _UNSEEN
        weight[:, there] = torch.from_numpy(found.astype(np.float32))
        yield weight


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Ridge regression in closed form, double precision; the bias is not penalised."""
    a, b = x.double(), y.double()
    center, level = a[:, :-1].mean(0), b.mean()
    a, b = a[:, :-1] - center, b - level
    count = len(a)
    if a.shape[1] <= count:
        system = a.T @ a / count
        system.diagonal().add_(penalty)
        weight = torch.linalg.solve(system, a.T @ b / count)
    else:  # dual form: the kernel matrix is smaller
        system = a @ a.T / count
        system.diagonal().add_(penalty)
        weight = a.T @ torch.linalg.solve(system, b) / count
    bias = level - center @ weight
    return torch.cat([weight, bias[None]])[:, None].to(x.dtype)
