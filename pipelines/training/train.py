"""train(): train a method on cached features, all seeds side by side, and record the run."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cache.layout import Home
from cache.runs import RunRecord
from pipelines.metrics.metrics import is_better_by
from pipelines.training.plan import Plan, selected_by
from pipelines.training.request import KEEP_SECONDS, checked_request

if TYPE_CHECKING:
    from pipelines.training.loop import Epoch


def train(
    method: str,
    dataset: str,
    *,
    home: Home,
    features: Sequence[str] | None = None,
    plan: Plan | None = None,
    options: Mapping[str, object] | None = None,
    group: str | None = None,
    on_epoch: "Callable[[Epoch], None] | None" = None,
    device: str = "auto",
    keep_seconds: float = KEEP_SECONDS,
) -> RunRecord:
    """Train a method on cached features, all seeds side by side, and record it.

    Args:
        method: name, or path of a file with `build`.
        dataset: name of a dataset with features under this home.
        home: where features are and runs go.
        features: streams, such as `clip/image` or `clip`; None = all there are.
        plan: hyperparameters; None = the method's own defaults.
        options: settings by name that change the plan (`epochs`, `drop_rate`, `seeds`) or the
            method (`width`); values as they are, or as words. A word with several values
            (`learning_rate=1e-3,3e-3`) trains every combination.
        group: name that joins the runs of one command.
        on_epoch: called after each epoch.
        device: auto, cpu, cuda.
        keep_seconds: between two checkpoints; the same call resumes from the last one.

    Returns:
        The run; of several settings the best one on validation rows.

    Raises:
        MmfuseError: for unknown names or settings, features that are missing, or training that
            diverged.
    """
    runs = train_all(
        method,
        dataset,
        home=home,
        features=features,
        plan=plan,
        options=options,
        group=group,
        on_epoch=on_epoch,
        device=device,
        keep_seconds=keep_seconds,
    )
    return best_of(runs)


def train_all(
    method: str,
    dataset: str,
    *,
    home: Home,
    features: Sequence[str] | None = None,
    plan: Plan | None = None,
    options: Mapping[str, object] | None = None,
    group: str | None = None,
    on_epoch: "Callable[[Epoch], None] | None" = None,
    device: str = "auto",
    keep_seconds: float = KEEP_SECONDS,
) -> list[RunRecord]:
    """As `train`, but return every setting's run, in the order of the grid."""
    request = checked_request(
        method,
        dataset,
        home=home,
        features=features,
        options=options,
        plan=plan,
        group=group,
        device=device,
        on_epoch=on_epoch,
        keep_seconds=keep_seconds,
    )
    from pipelines.training.run import run  # torch: not needed where something is wrong

    return run(request)


def best_of(runs: Sequence[RunRecord]) -> RunRecord:
    """The best run by `selected_by`, mean over replicas on validation rows; the first of ties."""
    name = selected_by(runs)
    is_better = is_better_by(name)
    best, value = runs[0], _validation(runs[0], name)
    for run in runs[1:]:
        other = _validation(run, name)
        if is_better(other, value):
            best, value = run, other
    return best


def _validation(run: RunRecord, name: str) -> float:
    found = next(scores for scores in run.scores if scores.split == "val")
    values = found.metrics.get(name, [math.nan])
    return sum(values) / len(values)
