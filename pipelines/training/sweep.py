"""Hyperparameter search (grid or random) by validation rows; each trial is an ordinary run.

A trial is identified by what it trains: dataset snapshot, streams, method, options, plan and
versions. So the same call after a kill trains only what is missing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from cache.layout import Home
from cache.runs import RunRecord, list_runs
from cache.shown import Shown
from pipelines.metrics.metrics import LOWER_IS_BETTER
from pipelines.training.plan import Setting, selected_by
from pipelines.training.request import KEEP_SECONDS, checked_request

if TYPE_CHECKING:
    from pipelines.training.loop import Epoch
    from pipelines.training.record import TrainingJob

TOGETHER = 8
"""Maximum number of settings trained side by side."""


@dataclass(frozen=True)
class Trial:
    """One setting, trained.

    Attributes:
        runs: one, or one a fold.
        value: mean of the sweep's metric on validation rows, over folds and seeds.
    """

    runs: tuple[RunRecord, ...]
    value: float


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """Result of a search.

    Attributes:
        trials: best on validation rows first; the first one is chosen.
        trained: runs that this call trained; the others existed.
        diverged: settings without a finite validation loss, and why.
        metric: that ranks them.
    """

    trials: tuple[Trial, ...]
    trained: int
    diverged: tuple[str, ...]
    metric: str

    def __repr__(self) -> str:
        best = self.trials[0]
        count = f"{len(self.trials)} setting{'' if len(self.trials) == 1 else 's'}"
        return f"<Sweep of {count}: best {best.runs[0].id}, {self.metric} {best.value:.3f}>"


def sweep(
    method: str,
    dataset: str,
    *,
    home: Home,
    features: Sequence[str] | None = None,
    options: Mapping[str, object] | None = None,
    trials: int | None = None,
    seed: int = 0,
    device: str = "auto",
    on_epoch: "Callable[[Epoch], None] | None" = None,
    on_trials: Callable[[int, int], None] | None = None,
    keep_seconds: float = KEEP_SECONDS,
) -> Sweep:
    """Train every setting of a grid that has no run yet, and rank them on validation rows.

    They are ranked by their `monitor` where it is a metric, else by the task's primary metric.
    Test rows are scored by the best setting alone.
    A setting that diverges is left out and named; the same call tries it again.

    Args:
        method: name, or path of a file with `build`.
        dataset: name of a dataset with features under this home.
        home: where features are and runs go.
        features: streams; None = all there are.
        options: as of `train`; words with several values make the grid.
        trials: this many of the grid, at random; None = all. More later include those of before.
        seed: random seed of that choice.
        device: auto, cpu, cuda.
        on_epoch: called after each epoch.
        on_trials: called with the number of runs there are, and of how many.
        keep_seconds: between two checkpoints.

    Raises:
        MmfuseError: as `train`, or if every setting diverged.
    """
    if trials is not None and trials < 1:
        raise MmfuseError(f"trials must be at least 1, not {trials}")
    request = checked_request(
        method,
        dataset,
        home=home,
        features=features,
        options=options,
        device=device,
        on_epoch=on_epoch,
        keep_seconds=keep_seconds,
        splits=("val",),
    )
    from pipelines.training import record  # torch: not needed where something is wrong
    from pipelines.training import run as running

    job = running.open_job(request)
    chosen = _choose(running.grid_of(request), trials, seed)
    wanted = {record.identity(job, one): one for folds in chosen for one in folds}
    job = replace(job, group=f"sweep-{fingerprint({'trials': sorted(wanted)})[:12]}")
    known = _known(home, wanted)
    missing = [one for name, one in wanted.items() if name not in known]
    diverged: list[str] = []
    if on_trials:
        on_trials(len(known), len(wanted))
    for together in _stacks(missing):
        for run in _attempt(job, together, diverged):
            known[record.identity_of(run)] = run
        if on_trials:
            on_trials(len(known), len(wanted))
    found: list[tuple[RunRecord, ...]] = []
    for folds in chosen:
        names = dict.fromkeys(record.identity(job, one) for one in folds)
        if all(name in known for name in names):
            found.append(tuple(known[name] for name in names))
    if not found:
        raise MmfuseError(f"no setting could be trained: {'; '.join(diverged)}")
    from pipelines.training.restore import score_test

    metric = selected_by([run for runs in found for run in runs])
    done = _ordered([Trial(runs, _value(runs, metric)) for runs in found], metric)
    for run in done[0].runs:
        score_test(home, run, device)
    return Sweep(done, len(missing) - len(diverged), tuple(diverged), metric)


def _choose(grid: Sequence[Setting], trials: int | None, seed: int) -> list[list[Setting]]:
    """Group a grid by setting, its folds together; a random sample of `trials`, in grid order."""
    whole: dict[str, list[Setting]] = {}
    for setting in grid:
        plan = {name: v for name, v in asdict(setting.plan).items() if name != "fold"}
        whole.setdefault(repr((plan, sorted(setting.options.items()))), []).append(setting)
    each = list(whole.values())
    if trials is None or trials >= len(each):
        return each
    order = np.random.default_rng(seed).permutation(len(each))
    return [each[place] for place in sorted(order[:trials])]


def _known(home: Home, wanted: Mapping[str, Setting]) -> dict[str, RunRecord]:
    """Existing runs of the wanted settings, the oldest of each."""
    from pipelines.training.record import identity_of

    found: dict[str, RunRecord] = {}
    for run in list_runs(home):
        name = identity_of(run)
        if name in wanted and name not in found and any(s.split == "val" for s in run.scores):
            found[name] = run
    return found


def _stacks(grid: Sequence[Setting]) -> Iterator[list[Setting]]:
    """Settings that are trained side by side, at most `TOGETHER` at a time."""
    from pipelines.training.run import stackable

    for numbers in stackable(grid):
        for start in range(0, len(numbers), TOGETHER):
            yield [grid[number] for number in numbers[start : start + TOGETHER]]


def _attempt(
    job: "TrainingJob", chosen: Sequence[Setting], diverged: list[str]
) -> Iterator[RunRecord]:
    """Train settings side by side; if one diverges, each alone."""
    from pipelines.training.loop import DivergedError
    from pipelines.training.run import train_together

    try:
        yield from train_together(job, chosen)
    except DivergedError as error:
        if len(chosen) > 1:
            for one in chosen:
                yield from _attempt(job, [one], diverged)
            return
        plan = chosen[0].plan
        varied = {"learning_rate": plan.learning_rate, **chosen[0].options}
        diverged.append(f"{', '.join(f'{name}={v}' for name, v in varied.items())}: {error}")


def _value(runs: Sequence[RunRecord], metric: str) -> float:
    """Mean of a metric on validation rows, over folds and seeds; NaN where it is not recorded."""
    found = [
        s.metrics.get(metric, [math.nan]) for run in runs for s in run.scores if s.split == "val"
    ]
    return float(np.mean(np.concatenate(found)))


def _ordered(trials: Sequence[Trial], metric: str) -> tuple[Trial, ...]:
    """Best first; ties as in the grid, undefined values last."""
    lower = metric in LOWER_IS_BETTER

    def place(trial: Trial) -> tuple[bool, float]:
        value = trial.value if lower else -trial.value
        return math.isnan(value), 0.0 if math.isnan(value) else value

    return tuple(sorted(trials, key=place))
