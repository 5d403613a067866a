"""Training: train() checks what was asked for, then loads, fits and records; imports no torch.

What takes torch is in `pipelines.training.run`, so that a mistake is answered at once.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from cache.errors import MmfuseError, unknown
from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo
from cache.layout import Home
from cache.runs import check_writable
from cache.snapshots import snapshot_task
from pipelines import catalog
from pipelines.device import check_device
from pipelines.training.plan import Plan, values_of

if TYPE_CHECKING:
    from pipelines.training.loop import Epoch

KEEP_SECONDS = 10.0
"""Seconds between two records of how far training got."""


@dataclass(frozen=True)
class Request:
    """What `train` was asked for, checked.

    Attributes:
        method: name, or path of a file.
        dataset: its name.
        home: where features are and runs go.
        infos: the streams, complete and of the same samples.
        words: settings by name, see `plans.settings`.
        plan: what the words change, or None for the method's own.
        group: of runs; None makes one.
        device: auto, cpu, cuda.
        on_epoch: told about each epoch.
        keep_seconds: between two records of how far training got.
        splits: whose rows are scored; a search leaves test out.
    """

    method: str
    dataset: str
    home: Home
    infos: tuple[StreamInfo, ...]
    words: Mapping[str, object]
    plan: Plan | None
    group: str | None
    device: str
    on_epoch: "Callable[[Epoch], None] | None"
    keep_seconds: float = KEEP_SECONDS
    splits: tuple[str, ...] = ("val", "test")


def check(
    method: str,
    dataset: str,
    home: Home,
    features: Sequence[str] | None,
    words: Mapping[str, object],
    *,
    device: str = "auto",
) -> tuple[StreamInfo, ...]:
    """Check a request without torch; the streams that it means, by name.

    Raises:
        MmfuseError: for unknown names or settings, features that are missing, a task that the
            method does not have, or a place for runs that cannot be written.
    """
    check_device(device)
    _check_words(method, words)
    store = FeatureStore(home, dataset)
    infos = sorted(store.resolve(features), key=lambda info: (info.key.name, info.key.label))
    _check_task(method, dataset, snapshot_task(infos[0].snapshot, store.paths))
    check_writable(home)
    return tuple(infos)


def _check_task(method: str, dataset: str, task: str) -> None:
    """Refuse a task that a method's constant `TASKS` does not name."""
    entry = catalog.entries("methods").get(method)
    tasks = entry.constants.get("TASKS") if entry else None
    if task and isinstance(tasks, tuple) and task not in tasks:
        raise MmfuseError(
            f"{method} is for {' and '.join(tasks)}, and the target of {dataset} is a {task}; "
            "take another method, such as late or clarga"
        )


def _check_words(method: str, words: Mapping[str, object]) -> None:
    """Refuse an unknown method, setting or value by reading source alone."""
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
        return  # from an entry point: checked once it is imported
    try:
        options = _options(path)
    except SyntaxError as error:
        raise MmfuseError(f"{path}, line {error.lineno}: {error.msg}") from None
    hints = get_type_hints(Plan)
    for word, value in words.items():
        if word in options:
            values_of(word, value, options[word])
        elif word in hints:
            for one in values_of(word, value, hints[word]):
                Plan(**{word: one})  # type: ignore[arg-type]  # refuses what fits no plan
        else:
            raise unknown(f"setting of {method}", word, [*options, *hints])


PLAIN = {"int": int, "float": float, "bool": bool}
"""Annotations that are read without importing the method."""


def _options(path: Path) -> dict[str, Any]:
    """Keyword-only parameters of `build` by name, with the plain ones' types; str for others."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "build":
            return {
                argument.arg: PLAIN.get(ast.unparse(argument.annotation), str)
                if argument.annotation
                else str
                for argument in node.args.kwonlyargs
            }
    raise MmfuseError(f"{path}: a plug-in is a module with a function `build`; it has none")
