"""Plan: hyperparameters of training; `--set` words coerced to the types of what they set."""

import dataclasses
import inspect
import itertools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cache.errors import MmfuseError, unknown
from cache.runs import RunRecord
from pipelines.features.missing import Protocol
from pipelines.metrics.metrics import METRICS, PRIMARY, MetricName, TaskKind

Rule = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine", "plateau", "step"]
Monitor = Literal["task", "loss", "score"]
Fits = Callable[[float], bool]
Range = tuple[str, Fits]  # NaN fits none of them
COUNT: Range = ("at least 1", lambda value: value >= 1)
NONE_OR_MORE: Range = ("at least 0", lambda value: 0 <= value < math.inf)
POSITIVE: Range = ("above 0", lambda value: 0 < value < math.inf)
PROBABILITY: Range = ("from 0 to below 1", lambda value: 0 <= value < 1)
PLAN: dict[str, Range] = {
    "epochs": COUNT,
    "batch_size": COUNT,
    "learning_rate": POSITIVE,
    "weight_decay": NONE_OR_MORE,
    "momentum": PROBABILITY,
    "clip": ("above 0, or none", lambda value: value > 0),
    "plateau_patience": NONE_OR_MORE,
    "plateau_factor": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "step_every": COUNT,
    "patience": ("at least 1, or none", COUNT[1]),
    "min_delta": NONE_OR_MORE,
    "drop_rate": PROBABILITY,
    "missing_rate": PROBABILITY,
    "folds": (
        "0, or at least 3 (train, validation, test)",
        lambda value: value == 0 or value >= 3,
    ),
}
"""Valid ranges of the fields of a plan."""
OPTIONS: dict[str, Range] = {
    "width": COUNT,
    "hidden": COUNT,
    "translator_hidden": COUNT,
    "heads": COUNT,
    "rank": COUNT,
    "hardest": COUNT,
    "layers": NONE_OR_MORE,
    "dropout": PROBABILITY,
    "layer_dropout": PROBABILITY,
    "temperature": POSITIVE,
    "align_learning_rate": POSITIVE,
    "align_batch_size": COUNT,
    "align_patience": COUNT,
    "complete_rows": NONE_OR_MORE,
}
"""Valid ranges of methods' options: a name means the same in every method."""


@dataclass(frozen=True)
class Plan:
    """Hyperparameters of training; a method's module may set other defaults in its `PLAN`.

    Attributes:
        epochs: maximum, per stage.
        batch_size: rows per step.
        learning_rate: initial one.
        weight_decay: of parameters that the head `decays`; decoupled for adamw, coupled for sgd.
        optimizer: adamw or sgd.
        momentum: of sgd.
        clip: maximum gradient norm, or None.
        schedule: constant, cosine (to zero over the epochs), plateau, or step.
        plateau_patience: epochs without improvement before `plateau_factor` is applied.
        plateau_factor: factor on the learning rate at a plateau.
        step_every: epochs between divisions by ten of `step`.
        patience: early stopping: epochs without improvement before a replica stops, or None.
        min_delta: an improvement must be larger than this.
        monitor: what selects the best epoch on validation rows: `task` (task loss), `loss` (the
            head's own), `score` (the task's primary metric), or a metric by name, which then also
            selects among settings and runs; else those are selected by the primary metric.
        class_weights: weight classes (or positive labels) by inverse frequency in training.
        drop_rate: modality dropout: probability of hiding each present modality of a sample at
            every step.
        missing_rate: probability η of the data protocol, the same in every split.
        missing_protocol: bernoulli_guard, bernoulli or cpm_exact.
        missing_seed: random seed of the protocol, not of the replicas.
        folds: cross-validation over all rows instead of the dataset's splits; 0 for none. Each
            fold is a run of its own.
        fold: which of them is the test split; the next one is val. None = each in turn.
        seeds: random seeds, one replica each.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    optimizer: Rule = "adamw"
    momentum: float = 0.9
    clip: float | None = 1.0
    schedule: Schedule = "plateau"
    plateau_patience: int = 10
    plateau_factor: float = 0.1
    step_every: int = 70
    patience: int | None = 15
    min_delta: float = 0.0
    monitor: Literal[Monitor, MetricName] = "task"
    class_weights: bool = False
    drop_rate: float = 0.0
    missing_rate: float = 0.0
    missing_protocol: Protocol = "bernoulli_guard"
    missing_seed: int = 0
    folds: int = 0
    fold: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        """Check ranges and seeds."""
        for name in PLAN:
            check_range(name, getattr(self, name))
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise MmfuseError(f"seeds must be different numbers, at least one, not {self.seeds}")


def selecting_metric(kind: TaskKind, monitor: object) -> str:
    """The metric that selects among settings and runs on validation rows.

    Args:
        kind: of the task.
        monitor: of the plan; a metric's name selects, any other word leaves the primary metric.
    """
    return monitor if isinstance(monitor, str) and monitor in METRICS[kind] else PRIMARY[kind]


def selected_by(runs: Sequence[RunRecord]) -> str:
    """The metric that selects among runs of one task: their plans', else the primary one.

    The primary one, too, where the plans differ in it.
    """
    kind = runs[0].task.kind
    names = {selecting_metric(kind, run.plan.get("monitor")) for run in runs}
    return names.pop() if len(names) == 1 else PRIMARY[kind]


VECTOR_FIELDS = frozenset({"learning_rate", "weight_decay", "clip", "drop_rate", "momentum"})
"""Fields that may differ between replicas trained side by side."""


@dataclass(frozen=True)
class Setting:
    """Plan and head options of one run."""

    plan: Plan
    options: dict[str, object]


@dataclass(frozen=True)
class Untyped:
    """A word of `--set` that is not coerced yet: its type is known once the method is imported."""

    word: object


SettingValues = Mapping[str, Sequence[object] | Untyped]
"""By name of a plan field or option: its typed values, several for a grid, or a word."""


def settings(
    module: ModuleType, name: str, words: Mapping[str, object], plan: Plan | None = None
) -> list[Setting]:
    """`expand_grid` of words that are not coerced yet (or values as they are)."""
    untyped = {key: Untyped(word) for key, word in words.items()}
    return expand_grid(module, name, untyped, plan)


def expand_grid(
    module: ModuleType, name: str, values: SettingValues, plan: Plan | None = None
) -> list[Setting]:
    """One setting, or a grid of them where a setting has several values (`1e-3,3e-3`), by fold.

    Args:
        module: the method.
        name: what the method is called in errors.
        values: plan fields and options of `build` by name; untyped words are coerced here.
        plan: what the values change; None = the method's own defaults.

    Raises:
        MmfuseError: for an unknown name (with the valid ones) or a value that does not fit.
    """
    hints = option_types(module.build)
    kinds = get_type_hints(Plan) | hints
    axes: list[list[tuple[str, object]]] = []
    for key, found in values.items():
        if isinstance(found, Untyped):
            if key not in kinds:
                raise unknown(f"setting of {name}", key, kinds)
            found = values_of(key, found.word, kinds[key])
        axes.append([(key, value) for value in found])
    base = plan or base_plan(module, name)
    grid = []
    for chosen in itertools.product(*axes):
        changes: dict[str, Any] = {k: v for k, v in chosen if k not in hints}
        options = {k: v for k, v in chosen if k in hints}
        plan = replace(base, **changes)
        each = range(plan.folds) if plan.folds and plan.fold is None else [plan.fold]
        grid += [Setting(replace(plan, fold=fold), options) for fold in each]
    return grid


def base_plan(module: ModuleType, name: str) -> Plan:
    """Default plan of a method: its constant `PLAN` over Plan's defaults."""
    own = getattr(module, "PLAN", {})
    known = {field.name for field in dataclasses.fields(Plan)}
    for key in own:
        if key not in known:
            raise unknown(f"field of PLAN in {name}", key, known)
    return Plan(**own)


def option_types(build: Callable[..., object]) -> dict[str, Any]:
    """Keyword-only parameters of a method's `build`, with their annotations."""
    hints = get_type_hints(build)
    parameters = inspect.signature(build).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: hints.get(name, str) for name in names}


def option_defaults(build: Callable[..., object]) -> dict[str, object]:
    """Keyword-only parameters of a method's `build`, with their defaults."""
    parameters = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def coerce(key: str, word: str, kind: Any) -> object:  # noqa: ANN401 - any annotation
    """Convert a word to the type of an annotation.

    Raises:
        MmfuseError: naming the setting, what it takes and what it got.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _coerce_union(key, word, args)
    if origin is Literal:
        for value in args:
            if str(value) == word:
                return value
        raise MmfuseError(f"{key} is one of {', '.join(map(str, args))}, not {word!r}")
    if origin in (tuple, list):
        inner = args[0] if args else str
        return tuple(coerce(key, part.strip(), inner) for part in word.split(",") if part.strip())
    if kind is bool:
        spelled = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if word.lower() in spelled:
            return spelled[word.lower()]
        raise MmfuseError(f"{key} is true or false, not {word!r}")
    if kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise MmfuseError(f"{key} is {noun}, not {word!r}") from None
    return word


def _coerce_union(key: str, word: str, args: tuple[Any, ...]) -> object:
    if type(None) in args and word.lower() in ("none", ""):
        return None
    problems = []
    for kind in args:
        if kind is not type(None):
            try:
                return coerce(key, word, kind)
            except MmfuseError as error:
                problems.append(str(error))
    raise MmfuseError("; ".join(problems))


def values_of(key: str, word: object, kind: Any) -> list[object]:  # noqa: ANN401
    """Typed values of a word: one, or several where it lists them (`1e-3,3e-3`).

    Raises:
        MmfuseError: naming the setting, what it takes and what it got.
    """
    listed = get_origin(kind) in (tuple, list) or kind is str
    parts = [word] if listed or not isinstance(word, str) else word.split(",")
    found: list[object] = []
    for part in parts:
        value = coerce(key, part.strip(), kind) if isinstance(part, str) else part
        check_range(key, value)
        found.append(value)
    return found


def check_range(name: str, value: object) -> None:
    """Check that a plan's field or a method's option is in its range; None and words pass.

    Raises:
        MmfuseError: naming it, what it may be, and what it is.
    """
    known = PLAN.get(name) or OPTIONS.get(name)
    if known is None or isinstance(value, bool) or not isinstance(value, int | float):
        return
    valid, fits = known
    if not fits(value):
        raise MmfuseError(f"{name} must be {valid}, not {value}")
