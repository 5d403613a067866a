"""Find plug-ins by name or path, and list them from their sources without importing them."""

import ast
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from cache.errors import MmfuseError, unknown

PluginGroup = Literal["datasets", "encoders", "methods"]
_FILES: dict[str, str] = {}
_OLD_NAMES = {  # modules that 0.1 told plug-in authors to import from → where their names are now
    "pipelines.batching": ("pipelines.features.table",),
    "pipelines.encoding": ("pipelines.encoding.encoder", "pipelines.media.payloads"),
    "pipelines.fusion": ("pipelines.fusion.head", "pipelines.fusion.layers"),
    "pipelines.normalising": ("pipelines.fusion.layers",),
    "pipelines.numbers": ("pipelines.counter_rng",),
    "pipelines.objectives": ("pipelines.fusion.losses",),
    "pipelines.samples": ("pipelines.data.dataset", "cache.samples"),
    "pipelines.stems": ("pipelines.fusion.stems",),
}


@dataclass(frozen=True)
class Entry:
    """A plug-in as read from its source, without importing it."""

    name: str
    summary: str
    path: Path | None
    constants: dict[str, object]
    module: str = ""


def entries(group: PluginGroup) -> dict[str, Entry]:
    """Every plug-in of a type by name: our folder, then entry points `mmfuse.<group>`."""
    folder = Path(__file__).parent / group
    files = sorted(p for p in folder.glob("*.py") if p.stem != "__init__")
    found = {p.stem: _entry(p.stem, p, f"pipelines.{group}.{p.stem}") for p in files}
    for point in entry_points(group=f"mmfuse.{group}"):
        package = getattr(point.dist, "name", "") or "another package"
        found.setdefault(point.name, Entry(point.name, f"from {package}", None, {}, point.value))
    return found


def read_source(word: str) -> Entry:
    """Read the source of an encoder, by its name or its path, without importing it.

    Raises:
        MmfuseError: for an unknown name, or a file that is not Python.
    """
    check("encoders", word)
    if not word.endswith(".py"):
        return entries("encoders")[word]
    path = Path(word)
    try:
        return _entry(path.stem, path, "")
    except SyntaxError as error:
        raise MmfuseError(f"{word}, line {error.lineno}: {error.msg}") from error


def split_encoder_word(word: str) -> tuple[str, str]:
    """Name or file of an encoder, and the model after it: `clip:RN50` → `clip`, `RN50`.

    `NAME/random` is short for `NAME:random`.
    """
    if word.endswith(".py"):
        return word, ""
    name, colon, model = word.partition(":")
    if not colon and name.endswith("/random"):
        return name.removesuffix("/random"), "random"
    return name, model


def check(group: PluginGroup, name: str) -> None:
    """Raise MmfuseError for an unknown name or a path without a file."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise MmfuseError(f"no such file: {name} (one of the {group})")
    elif name not in (known := entries(group)):
        raise unknown(group.removesuffix("s"), name, known)


def find(group: PluginGroup, name: str) -> ModuleType:
    """Import a plug-in's module by name, or by a path that ends in `.py`.

    Raises:
        MmfuseError: for an unknown name (with the nearest), a missing file or library, or a
            module without `build` (an encoder may have `encode` instead).
    """
    check(group, name)
    if name.endswith(".py"):
        path = Path(name)
        module = _imported(name, lambda: _from_path(f"mmfuse_{group}_{path.stem}", path))
    else:
        known = entries(group)
        module = _imported(name, lambda: importlib.import_module(known[name].module))
    functions = ("build", "encode") if group == "encoders" else ("build",)
    if not any(callable(getattr(module, function, None)) for function in functions):
        wanted = " or ".join(f"`{function}`" for function in functions)
        raise MmfuseError(f"{name}: a plug-in is a module with a function {wanted}; this has none")
    return module


def files() -> dict[str, str]:
    """Module → file of plug-ins imported by path, for `import_files` in another process."""
    return dict(_FILES)


def import_files(found: Mapping[str, str]) -> None:
    """Import what `files` returned in another process, so that its objects unpickle here."""
    for name, path in found.items():
        if name not in sys.modules:
            _from_path(name, Path(path))


def _entry(name: str, path: Path, module: str) -> Entry:
    summary, constants = _read(path.read_text(encoding="utf-8"))
    return Entry(name, summary, path, dict(constants), module)


@lru_cache(maxsize=128)
def _read(source: str) -> tuple[str, dict[str, object]]:
    """First line of the docstring of a source text, and its constants that are literals."""
    tree = ast.parse(source)
    constants: dict[str, object] = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name_)], value) | ast.AnnAssign(ast.Name(name_), _, value):
                if value is not None and name_.isupper():
                    with contextlib.suppress(ValueError, TypeError):  # not a literal
                        constants[name_] = ast.literal_eval(value)
    return (ast.get_docstring(tree) or "").split("\n", 1)[0], constants


def _imported(name: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        message = f"{name} needs the package {package}; run: pip install {package}"
        raise MmfuseError(message) from error
    except SyntaxError as error:
        raise MmfuseError(f"{error.filename}, line {error.lineno}: {error.msg}") from error


def _from_path(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MmfuseError(f"{path} cannot be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    _answer_old_names()
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up here
    spec.loader.exec_module(module)
    _FILES[name] = str(path.absolute())
    return module


def _answer_old_names() -> None:
    """Let plug-in files import from the modules of version 0.1: recorded runs keep such files."""
    for old, places in _OLD_NAMES.items():
        module = sys.modules.get(old)
        if module is None:
            is_package = importlib.util.find_spec(old) is not None
            module = importlib.import_module(old) if is_package else ModuleType(old)
            sys.modules[old] = module
        module.__dict__.setdefault("__getattr__", partial(_moved, old, places))


def _moved(old: str, places: Sequence[str], name: str) -> object:
    for place in places:
        module = importlib.import_module(place)
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module {old!r} has no attribute {name!r}")
