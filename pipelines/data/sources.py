"""Open datasets by word: a built-in name, `group/task`, or a path to the user's own data."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from cache.errors import MmfuseError, unknown
from cache.layout import Home
from pipelines import catalog
from pipelines.data import origins, tables
from pipelines.data.dataset import Dataset
from pipelines.data.layouts.class_folders import load_folder
from pipelines.data.layouts.huggingface import load_hub
from pipelines.data.layouts.table_folders import load_tables, table_files
from pipelines.data.table_files import is_table_file
from pipelines.data.tables import Note, TableOptions


def open_dataset(
    word: str,
    *,
    roots: Sequence[Path] = (),
    table: TableOptions | None = None,
    note: Note | None = None,
    home: Home | None = None,
) -> list[Dataset]:
    """Open the datasets that a word names; more than one for a group.

    Args:
        word: `digits`, `mug`, `mug/pkm_t1`, the file of a table, a folder of tables or with one
            folder per class, a task's folder in MuG's layout, `hf:org/name`, a plug-in's `.py`, or
            the name of features that were made of one of these.
        roots: folders that may hold `<name>/`, in the order they are searched.
        table: how to read own data; its `split` also chooses another split of a known dataset.
        note: called with one sentence for each guess about own data.
        home: whose features record what they were made of.

    Raises:
        MmfuseError: for an unknown word (with the nearest), data that is not there (with every
            folder tried, the source, and what works without data), or data that is wrong.
    """
    options = table or TableOptions()
    known = catalog.entries("datasets")
    name, _, task = word.partition("/")
    if name in known:
        return _named(name, task, roots, options)
    if (options.name or "").partition("/")[0] in known:
        raise MmfuseError(
            f"--name {options.name}: a built-in dataset has that name; choose another"
        )
    before = origins.load_origin(home, word, options) if home is not None else None
    if before is not None:  # a name, whatever file or folder is called like it
        place, options = before
        if note is not None:
            beside = f"; ./{word} for what lies here" if Path(word).exists() else ""
            note(f"{word}: {place}, read as it was extracted before{beside}")
        opened = _own(place, options, note)
        if opened is None:
            raise MmfuseError(
                f"{place}, which {word} was made of, is gone; say where it is now: "
                f"--dataset FILE --name {word}"
            )
        word = place
    else:
        opened = _own(word, options, note)
    if opened is not None:
        return [origins.with_origin(dataset, word, options) for dataset in opened]
    path = Path(word).expanduser()
    if home is not None and word in home.datasets():
        raise MmfuseError(
            f"{word} has features in {home.root}, but nothing says what data they were made of; "
            f"say so: --dataset FILE --name {word}"
        )
    folder = next((found for root in roots if (found := root / word).is_dir()), None)
    if folder is not None:
        raise MmfuseError(
            f"no dataset named {word!r}, but there is a folder {folder}; "
            f"say its path: --dataset {folder}"
        )
    if "/" in word or path.suffix:
        raise MmfuseError(f"no such dataset or file: {word} (looked for {path.absolute()})")
    raise unknown("dataset", word, known)


def new_rows(
    rows: pl.DataFrame, dataset: str, *, roots: Sequence[Path] = (), home: Home | None = None
) -> pl.DataFrame:
    """Convert new samples of a dataset; those in its own file layout become its modalities.

    Args:
        rows: one a sample, in columns of the dataset's own files or one a modality.
        dataset: whose modalities are wanted.
        roots: folders that may hold `<name>/`, as in `open_dataset`.
        home: whose features record what they were made of.
    """
    name, _, task = dataset.partition("/")
    if name in catalog.entries("datasets"):
        layout = catalog.find("datasets", name)
        top = _data_folder(name, roots, _patterns(layout)) if hasattr(layout, "new_rows") else None
        folder = layout.tasks(top).get(task) if top else None
    else:
        layout = catalog.find("datasets", "mug")
        before = origins.load_origin(home, dataset, TableOptions()) if home is not None else None
        folder = Path(before[0]) if before and (Path(before[0]) / "info.json").is_file() else None
    if folder is None:
        return rows
    found: pl.DataFrame = layout.new_rows(folder, rows)
    return found


def _own(word: str, options: TableOptions, note: Note | None) -> list[Dataset] | None:
    """Open the user's own data; None where the word names none."""
    path = Path(word).expanduser()
    if word.endswith(".py"):
        return _built(catalog.find("datasets", word), path.stem, None, "", options)
    if word.startswith("hf:"):
        return [load_hub(word.removeprefix("hf:"), options, note)]
    if path.is_dir() and (path / "info.json").is_file():
        layout = catalog.find("datasets", "mug")
        own = options.name or tables.store_name(path)
        return [layout.read(path, own, split=options.split)]
    if path.is_dir():
        load = load_tables if table_files(path) else load_folder
        return [load(path, options, note)]
    if path.exists() or is_table_file(path):
        return [tables.load(path, options, note)]
    return None


def _named(name: str, task: str, roots: Sequence[Path], options: TableOptions) -> list[Dataset]:
    module = catalog.find("datasets", name)
    if not getattr(module, "NEEDS_DATA", False):
        return _built(module, name, None, task, options)
    folder = _data_folder(name, roots, _patterns(module))
    if folder is not None:
        return _built(module, name, folder, task, options)
    tried = [root.expanduser().absolute() / name for root in roots]
    places = "".join(f"\n  looked in {place}" for place in tried) or "\n  no folder to look in"
    source = getattr(module, "SOURCE", "its authors")
    raise MmfuseError(
        f"no data for {name}{places}\n  source: {source}\n"
        f"  to put it elsewhere: --data DIR, with {name}/ below it\n"
        f"  without any data: mmfuse demo"
    )


def _built(
    module: ModuleType, name: str, root: Path | None, task: str, options: TableOptions
) -> list[Dataset]:
    build: Callable[..., Dataset | list[Dataset]] = module.build
    accepted = inspect.signature(build).parameters
    given: dict[str, Any] = {"split": options.split} if options.split else {}
    if task:
        if "task" not in accepted:
            raise MmfuseError(
                f"{name} is one dataset without parts such as {task!r}; use --dataset {name}"
            )
        given["task"] = task
    if options != TableOptions(split=options.split):
        raise MmfuseError(f"{name} brings its own columns; only --split can choose another of them")
    if options.split and "split" not in accepted:
        raise MmfuseError(f"{name} has one split only; leave --split out")
    built = build(root, **given)
    return built if isinstance(built, list) else [built]


@dataclass(frozen=True)
class DatasetEntry:
    """One row of `mmfuse list datasets`."""

    name: str
    summary: str
    ready: bool
    where: str


def list_datasets(roots: Sequence[Path] = ()) -> list[DatasetEntry]:
    """Every known dataset: whether its data is here, and where it is or how to get it.

    Reads the plug-ins' sources and lists folders; imports none of them and opens no data.
    """
    found = []
    for name, entry in catalog.entries("datasets").items():
        constants = entry.constants
        if not constants.get("NEEDS_DATA", False):
            found.append(DatasetEntry(name, entry.summary, ready=True, where="built in"))
            continue
        patterns = constants.get("LOOKS_FOR", ("*",))
        assert isinstance(patterns, tuple)
        there = _data_folder(name, roots, patterns)
        source = str(constants.get("SOURCE", "see its module"))
        where = str(there) if there else f"put it into <data>/{name}; source: {source}"
        found.append(DatasetEntry(name, entry.summary, ready=there is not None, where=where))
    return found


def _data_folder(name: str, roots: Sequence[Path], patterns: Sequence[str]) -> Path | None:
    """The first `<root>/<name>` that holds a file of one of the patterns."""
    folders = (root.expanduser().absolute() / name for root in roots)
    return next((f for f in folders if any(any(f.glob(pattern)) for pattern in patterns)), None)


def _patterns(module: ModuleType) -> Sequence[str]:
    """What a dataset plug-in looks for in its folder; any file where it does not say."""
    found: Sequence[str] = getattr(module, "LOOKS_FOR", ("*",))
    return found
