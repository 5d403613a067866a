"""Read a folder per class (optionally below a folder per split) as a Dataset."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.data import splits
from pipelines.data.columns import ModalitySpec
from pipelines.data.dataset import Dataset
from pipelines.data.table_files import is_table_file
from pipelines.data.tables import Note, TableOptions, assemble
from pipelines.media.file_kinds import SUFFIXES


def load_folder(path: Path, options: TableOptions, note: Note | None = None) -> Dataset:
    """Read files by class (`cats/a.png`), or by split and class (`train/cats/a.png`).

    Files of one folder and stem are modalities of one sample: `cats/a.png` and `cats/a.wav`.

    Raises:
        MmfuseError: for a folder without such files, or with two of one kind and stem.
    """
    root = path.expanduser().absolute()
    for option in ("root", "encoding", "sheet"):
        if getattr(options, option) is not None:
            raise MmfuseError(f"--{option} is for tables; {path} is a folder per class")
    try:
        files = sorted(root.rglob("*"))
    except OSError as error:
        raise MmfuseError(f"{root} cannot be listed: {error}") from error
    folders = [folder for folder in sorted(root.iterdir()) if _shown(folder) and folder.is_dir()]
    by_split = bool(folders) and all(folder.name.lower() in splits.WORDS for folder in folders)
    rows, left_out = _samples(root, files, by_split)
    labels = {row["label"] for row in rows.values()}
    _check_classes(root, labels, files)
    empty = _classes(folders, by_split) - labels
    if empty and note is not None:
        shown = ", ".join(sorted(empty)[:5])
        note(f"left out {len(empty)} folders without a file that can be read, such as: {shown}")
    if left_out and note is not None:
        shown = ", ".join(f"{count} {why}" for why, count in left_out.most_common(6))
        note(f"left out {left_out.total()} files: {shown}")
    kinds = [kind for kind in SUFFIXES if any(kind in row for row in rows.values())]
    names = ["label", *(["split"] if by_split else []), *kinds]
    frame = pl.DataFrame(
        {"id": list(rows), **{name: [row.get(name) for row in rows.values()] for name in names}},
        schema=dict.fromkeys(["id", *names], pl.String),
    )
    if not options.modalities:
        alone = tuple(ModalitySpec(kind, kind, (kind,)) for kind in kinds)
        options = replace(options, modalities=alone)
    return assemble(frame, root, root, options, note)


def _samples(
    root: Path,
    files: Sequence[Path],
    by_split: bool,  # noqa: FBT001
) -> tuple[dict[str, dict[str, str]], Counter[str]]:
    """By id, the label, split and files of each sample; and why other files are left out."""
    rows: dict[str, dict[str, str]] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        if not file.is_file():
            continue
        kind = _kind(file)
        parts = file.relative_to(root).parts
        if kind is None or len(parts) < 2 + by_split:
            left_out[_why_left_out(file, shallow=len(parts) < 2 + by_split)] += 1
            continue
        place = file.relative_to(root)
        if os.fsencode(place) != str(place).encode(errors="replace"):
            raise MmfuseError(f"{root} holds {str(place)!a}, a name not in UTF-8; rename it")
        row = rows.setdefault(place.with_suffix("").as_posix(), {"label": parts[by_split]})
        if by_split:
            row["split"] = parts[0]
        if kind in row:
            raise MmfuseError(f"{root} holds {row[kind]} and {place}: two of one name and kind")
        row[kind] = place.as_posix()
    return rows, left_out


def _check_classes(root: Path, labels: set[str], files: Sequence[Path]) -> None:
    """Refuse a folder without classes, and name the table that it may be meant to be."""
    tables = [file for file in files if file.parent == root and is_table_file(file)]
    if len(labels) < 2 and tables:
        what = f"one class folder only, {min(labels)}" if labels else "no class folders"
        raise MmfuseError(f"{root} holds {what}; to read its table: --dataset {tables[0]}")
    if not labels:
        endings = " ".join(ending for endings in SUFFIXES.values() for ending in endings)
        raise MmfuseError(f"{root} holds no class folders with files in them ({endings})")


def _classes(folders: Sequence[Path], by_split: bool) -> set[str]:  # noqa: FBT001
    """Names of the class folders."""
    inner = (
        inside for folder in folders for inside in (folder.iterdir() if by_split else [folder])
    )
    return {folder.name for folder in inner if _shown(folder) and folder.is_dir()}


def _kind(file: Path) -> Kind | None:
    if not _shown(file):
        return None
    ending = file.suffix.lower()
    return next((kind for kind, endings in SUFFIXES.items() if ending in endings), None)


def _why_left_out(file: Path, *, shallow: bool) -> str:
    if not _shown(file):
        return "hidden"
    ending = file.suffix.lower() or "without an ending"
    if _kind(file) is None:
        return f"{ending} (no known kind)" if file.suffix else ending
    return f"{ending} outside any class folder" if shallow else ending


def _shown(file: Path) -> bool:
    return not file.name.startswith((".", "__"))
