"""Read a folder of tables: shards and splits by file name, as hubs and competitions offer them."""

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError
from pipelines.data import splits
from pipelines.data.dataset import Dataset
from pipelines.data.layouts.split_tables import joined
from pipelines.data.table_files import is_table_file, read_table, separator_of
from pipelines.data.tables import Note, TableOptions, assemble, path_root

_DEEPEST = 3  # folders below the named one in which tables are looked for
_PART = re.compile(r"^(.*?)[-_]?\d+(?:-of-\d+|-[0-9a-f-]{36}.*)?$")
_SPLIT = re.compile(rf"({'|'.join(sorted(splits.WORDS, key=len, reverse=True))})(?![a-z0-9])")


def table_files(folder: Path) -> list[Path]:
    """The tables that make up a dataset; none if the folder is another kind of dataset.

    Files named `metadata` (beside the media that their column `file_name` names), else files named
    after a split, or in a folder that is: `train.csv`, `data/train-00000-of-00002.parquet`,
    `test/0000.parquet`; else numbered parts of one table: `part-00000.parquet`.
    """
    found = _all_tables(folder)
    about_media = [file for file in found if file.name.split(".")[0] == "metadata"]
    return about_media or [file for file in found if _split(file, folder)] or _parts(found)


def _parts(files: Sequence[Path]) -> list[Path]:
    """The files, if they are numbered parts of one table; else none."""
    found = [_PART.match(file.name.split(".")[0].lower()) for file in files]
    pairs = zip(files, found, strict=True)
    names = {(file.parent, file.suffix, part and part[1]) for file, part in pairs}
    return list(files) if len(files) > 1 and len(names) == 1 and all(found) else []


def _all_tables(folder: Path) -> list[Path]:
    patterns = ("/".join("*" * depth) for depth in range(1, _DEEPEST + 1))
    return [
        file
        for pattern in patterns
        for file in sorted(folder.glob(pattern))
        if is_table_file(file) and not file.name.startswith((".", "_")) and file.is_file()
    ]


def load_tables(folder: Path, options: TableOptions, note: Note | None = None) -> Dataset:
    """Read the tables of a folder as one dataset; their paths are relative to the folder.

    Raises:
        MmfuseError: for tables of several datasets, and as `tables.assemble`.
    """
    tell = note or (lambda _: None)
    folder = folder.expanduser().absolute()
    files = table_files(folder)
    _check_one_dataset(files, folder)
    tell(f"{folder.name}: read {_listed(files, folder)}")
    if others := [file for file in _all_tables(folder) if file not in files]:
        tell(f"{folder.name}: left out {_listed(others, folder)}")
    tables = []
    for file in files:
        frame = read_table(file, encoding=options.encoding, sheet=options.sheet, note=note)
        tables.append((_split(file, folder), _with_places(frame, file, folder)))
    frame = joined(tables, options.target, tell)
    root = path_root(options, folder)
    return assemble(frame, folder, root, options, note, separator=separator_of(files[0]))


def _listed(files: Sequence[Path], folder: Path) -> str:
    shown = ", ".join(file.relative_to(folder).as_posix() for file in files[:3])
    return shown + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _split(file: Path, folder: Path) -> str:
    """The split word in a file's name or its folders'; "" if there is none."""
    stem, *outer = reversed(file.relative_to(folder).parts)
    for word in (stem.split(".")[0].lower(), *(part.lower() for part in outer)):
        if found := _SPLIT.match(word):
            return found.group(1)
    return ""


def _check_one_dataset(files: Sequence[Path], folder: Path) -> None:
    """Refuse tables in folders beside each other that are not named after splits."""
    places = {
        tuple(p for p in file.parent.relative_to(folder).parts if not _SPLIT.match(p.lower()))
        for file in files
    }
    if len(places) > 1:
        names = sorted("/".join(place) or "." for place in places)
        raise MmfuseError(
            f"{folder} holds tables of several datasets, in {', '.join(names[:5])}; "
            f"name one of them: --dataset {folder / names[-1]}"
        )


def _with_places(frame: pl.DataFrame, file: Path, folder: Path) -> pl.DataFrame:
    """The names in `metadata` files, which are relative to the file, as paths from the folder."""
    place = file.parent.relative_to(folder).as_posix()
    if file.name.split(".")[0] != "metadata" or place == ".":
        return frame
    names = [name for name in frame.columns if name.endswith("file_name")]
    return frame.with_columns((pl.lit(f"{place}/") + pl.col(n)).alias(n) for n in names)
