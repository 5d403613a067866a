"""Request: what a training was asked for, checked before torch is imported.

What needs torch is in `pipelines.training.run`, so that a mistake is reported at once.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from cache.errors import MmfuseError, unknown
from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo
from cache.layout import Home
from cache.runs import check_writable
from cache.snapshots import snapshot_task
from pipelines import catalog
from pipelines.device import check_device
from pipelines.metrics.metrics import check_metric
from pipelines.training.plan import Monitor, Plan, SettingValues, Untyped, values_of

if TYPE_CHECKING:
    from pipelines.training.loop import Epoch

KEEP_SECONDS = 10.0
"""Seconds between two checkpoints."""


@dataclass(frozen=True)
class Request:
    """Checked arguments of a training, its settings typed.

    Attributes:
        method: name, or path of a file.
        dataset: its name.
        home: where features are and runs go.
        infos: the streams, complete and of the same samples.
        settings: typed values by name; words where the method must be imported to type them.
        plan: what the settings change, or None for the method's own.
        group: of runs; None makes one.
        device: auto, cpu, cuda.
        on_epoch: called after each epoch.
        keep_seconds: between two checkpoints.
        splits: whose rows are scored; a search leaves test out.
    """

    method: str
    dataset: str
    home: Home
    infos: tuple[StreamInfo, ...]
    settings: SettingValues
    plan: Plan | None
    group: str | None
    device: str
    on_epoch: "Callable[[Epoch], None] | None"
    keep_seconds: float = KEEP_SECONDS
    splits: tuple[str, ...] = ("val", "test")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What was encoded for each stream, see `FeatureStore.inputs_digest`."""
        store = FeatureStore(self.home, self.dataset)
        return tuple(store.inputs_digest(info) for info in self.infos)


def checked_request(
    method: str,
    dataset: str,
    *,
    home: Home,
    features: Sequence[str] | None = None,
    options: Mapping[str, object] | None = None,
    plan: Plan | None = None,
    group: str | None = None,
    device: str = "auto",
    on_epoch: "Callable[[Epoch], None] | None" = None,
    keep_seconds: float = KEEP_SECONDS,
    splits: tuple[str, ...] = ("val", "test"),
) -> Request:
    """Check what `train` or `sweep` was asked for, without importing torch.

    Args:
        method: name, or path of a file with `build`.
        dataset: name of a dataset with features under this home.
        home: where features are and runs go.
        features: streams; None = all there are.
        options: settings by name, as words or as they are.
        plan: as in `Request`; so are the others.
        group: of runs.
        device: auto, cpu, cuda.
        on_epoch: called after each epoch.
        keep_seconds: between two checkpoints.
        splits: whose rows are scored.

    Raises:
        MmfuseError: for unknown names or settings, features that are missing, a task that the
            method does not support, or a folder for runs that cannot be written.
    """
    check_device(device)
    settings = _typed_settings(method, options or {})
    store = FeatureStore(home, dataset)
    infos = sorted(store.resolve(features), key=lambda info: (info.key.name, info.key.label))
    task = snapshot_task(infos[0].snapshot, store.paths)
    _check_task(method, dataset, task)
    _check_monitor(task, plan, settings)
    check_writable(home)
    return Request(
        method,
        dataset,
        home,
        tuple(infos),
        settings,
        plan,
        group,
        device,
        on_epoch,
        keep_seconds,
        splits,
    )


def _check_task(method: str, dataset: str, task: str) -> None:
    """Refuse a task that is not in the method's constant `TASKS`."""
    entry = catalog.entries("methods").get(method)
    tasks = entry.constants.get("TASKS") if entry else None
    if task and isinstance(tasks, tuple) and task not in tasks:
        raise MmfuseError(
            f"{method} is for {' and '.join(tasks)}, and the target of {dataset} is a {task}; "
            "take another method, such as late or clarga"
        )


def _check_monitor(task: Any, plan: Plan | None, settings: SettingValues) -> None:  # noqa: ANN401
    """Refuse to select by a metric that the task does not have."""
    found = settings.get("monitor", [plan.monitor] if plan else [])
    for word in str(found.word).split(",") if isinstance(found, Untyped) else found:
        if task and word not in get_args(Monitor):
            check_metric(str(word), [task])


def _typed_settings(method: str, words: Mapping[str, object]) -> SettingValues:
    """Coerce the words whose types the method's source tells; its module is not imported.

    Raises:
        MmfuseError: for an unknown method, setting or value.
    """
    if method.endswith(".py"):
        path: Path | None = Path(method)
        if not Path(method).is_file():
            raise MmfuseError(f"no such file: {method} (asked for as one of the methods)")
    else:
        known = catalog.entries("methods")
        if method not in known:
            raise unknown("method", method, known)
        path = known[method].path
    if path is None:
        # From an entry point: coerced once it is imported.
        return {name: Untyped(word) for name, word in words.items()}
    try:
        options = _options(path)
    except SyntaxError as error:
        raise MmfuseError(f"{path}, line {error.lineno}: {error.msg}") from None
    fields = get_type_hints(Plan)
    settings: dict[str, Sequence[object] | Untyped] = {}
    for name, word in words.items():
        if name in options:
            kind = options[name]
            settings[name] = Untyped(word) if kind is None else values_of(name, word, kind)
        elif name in fields:
            settings[name] = values = values_of(name, word, fields[name])
            for value in values:
                Plan(**{name: value})  # type: ignore[arg-type]  # refuses what fits no plan
        else:
            raise unknown(f"setting of {method}", name, [*options, *fields])
    return settings


PLAIN = {"int": int, "float": float, "bool": bool, "str": str}
"""Annotations that are read without importing the method."""


def _options(path: Path) -> dict[str, type | None]:
    """Keyword-only parameters of `build` with their types; None where only the module knows it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "build":
            return {
                argument.arg: PLAIN.get(ast.unparse(argument.annotation))
                if argument.annotation
                else str
                for argument in node.args.kwonlyargs
            }
    raise MmfuseError(f"{path}: a plug-in is a module with a function `build`; it has none")
