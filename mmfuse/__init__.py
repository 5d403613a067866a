"""The library door: `import mmfuse` has the verbs of the command line, imported when first used."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Hook = Callable[[type[BaseException], BaseException, Any], object]  # sys.excepthook

_DOORS = {  # name → module, or module:name where the verb is called otherwise there
    "Dataset": "pipelines.data.dataset",
    "ExtractOptions": "pipelines.extract.options",
    "FeatureStore": "cache.feature_store",
    "Home": "cache.layout",
    "MissingPattern": "pipelines.features.missing",
    "MmfuseError": "cache.errors",
    "Modality": "cache.samples",
    "Plan": "pipelines.training.plan",
    "TableOptions": "pipelines.data.tables",
    "Task": "cache.samples",
    "audit": "pipelines.audit.audit",
    "build_encoder": "pipelines.encoding.encoder",
    "check": "pipelines.contracts.head",
    "check_encoder": "pipelines.contracts.encoder:check",
    "compare": "pipelines.reports.compare",
    "evaluate": "pipelines.evaluation.evaluate",
    "extract": "pipelines.extract.extract",
    "latest_group": "cache.runs",
    "list_runs": "cache.runs",
    "load_run": "cache.runs",
    "new_id": "cache.runs",
    "open_dataset": "pipelines.data.sources",
    "plan": "pipelines.extract.plan",
    "predict": "pipelines.evaluation.predict",
    "report": "pipelines.reports.html:page",
    "sweep": "pipelines.training.sweep",
    "train": "pipelines.training.train",
    "train_all": "pipelines.training.train",
}
__all__ = sorted(_DOORS)


class InTheWayError(ImportError):
    """A file of the user's that Python finds in place of one of our packages."""


def _check_names() -> None:
    """Refuse to run on somebody else's `cache` or `pipelines`: both are common names of files.

    Raises:
        InTheWayError: naming the file that is in the way.
    """
    ours = Path(__file__).resolve().parent.parent
    for name in ("cache", "pipelines"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(f"mmfuse is not whole: its package {name} is missing; install again")
        if Path(spec.origin).resolve() != ours / name / "__init__.py":
            sys.excepthook = partial(_say, sys.excepthook)
            raise InTheWayError(
                f"{spec.origin} is in the way: mmfuse has a package named {name}, and Python finds "
                f"your file first; rename it, or run from another folder"
            )


def _say(otherwise: Hook, kind: type[BaseException], error: BaseException, trace: Any) -> None:  # noqa: ANN401 - as sys.excepthook
    """Where a script ends in this error, its sentence alone: a traceback would lead into ours."""
    if isinstance(error, InTheWayError):
        sys.stderr.write(f"error: {error}\n")
    else:
        otherwise(kind, error, trace)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _DOORS:
        raise AttributeError(f"mmfuse has no {name!r}; it has: {', '.join(__all__)}")
    module, _, there = _DOORS[name].partition(":")
    return getattr(importlib.import_module(module), there or name)


def __dir__() -> list[str]:
    return __all__


_check_names()
