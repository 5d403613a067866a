"""The library: `import mmfuse` has the functions of the command line, imported when first used.

The names and their modules are in `__init__.pyi`: type checkers and editors read it as it is, and
this file reads it to know what to import.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial, wraps
from os import PathLike
from pathlib import Path
from typing import Any

Hook = Callable[[type[BaseException], BaseException, Any], object]  # sys.excepthook


def _read_stub() -> dict[str, tuple[str, str]]:
    """Each public name with the module that it is imported from and its name there."""
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


_NAMES = _read_stub()
__all__ = sorted(_NAMES)


class InTheWayError(ImportError):
    """A user's file that Python finds in place of one of our packages."""


def _check_names() -> None:
    """Raise if `cache` or `pipelines` is a user's file: both are common names of files.

    Raises:
        InTheWayError: naming the file that is in the way.
    """
    ours = Path(__file__).resolve().parent.parent
    for name in ("cache", "pipelines"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(
                f"mmfuse is incomplete: its package {name} is missing; install it again"
            )
        if Path(spec.origin).resolve() != ours / name / "__init__.py":
            sys.excepthook = partial(_report, sys.excepthook)
            raise InTheWayError(
                f"{spec.origin} is in the way: mmfuse has a package named {name}, and Python finds "
                f"your file first; rename it, or run from another folder"
            )


def _report(usual: Hook, kind: type[BaseException], error: BaseException, trace: Any) -> None:  # noqa: ANN401 - as sys.excepthook
    """Exception hook that prints this error without a traceback."""
    if isinstance(error, InTheWayError):
        sys.stderr.write(f"error: {error}\n")
    else:
        usual(kind, error, trace)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the stub has its type
    if name == "__version__":
        return _version()
    if name not in _NAMES:
        raise AttributeError(f"mmfuse has no {name!r}; it has: {', '.join(__all__)}")
    _connect_tables()
    module, there = _NAMES[name]
    found = importlib.import_module(module)
    if not hasattr(found, there):
        return importlib.import_module(f"{module}.{there}")
    value = getattr(found, there)
    if "home" in getattr(getattr(value, "__code__", None), "co_varnames", ()):
        value = globals()[name] = _with_home(value)
    return value


def _connect_tables() -> None:
    """Tell results where their tables are made, a layer above their own."""
    from cache import shown

    shown.load_tables = partial(importlib.import_module, "pipelines.reports.results")


def _with_home(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its `home` a path or a string as well, or left out: ./artifacts.

    Where `home` comes first and is left out, the other arguments move to the front.
    """
    import inspect

    signature = inspect.signature(verb)
    parameter = signature.parameters.get("home")
    if parameter is None:
        return verb  # a local variable
    is_first = next(iter(signature.parameters)) == "home"
    is_needed = parameter.default is parameter.empty

    def fits(*given: Any, **named: Any) -> bool:  # noqa: ANN401 - any arguments
        try:
            signature.bind(*given, **named)
        except TypeError:
            return False
        return True

    @wraps(verb)
    def call(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - the stub has the types
        from cache.layout import Home

        if "home" in named:
            if is_needed or named["home"] is not None:
                named["home"] = Home.of(named["home"])
        elif (
            is_first
            and given
            and isinstance(given[0], (Home, str, PathLike))
            and fits(*given, **named)
        ):
            given = (Home.of(given[0]), *given[1:])
        elif is_needed and is_first and not (given and isinstance(given[0], Home)):
            given = (Home(), *given)
        elif is_needed and not is_first:
            named["home"] = Home()
        return verb(*given, **named)

    return call


def _version() -> str:
    """Version of the installed distribution; of a plain checkout, that of its pyproject.toml."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mmfuse")
    except PackageNotFoundError:
        import tomllib

        project = Path(__file__).parent.parent / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def __dir__() -> list[str]:
    return __all__


_check_names()
