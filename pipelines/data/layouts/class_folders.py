"""Read a folder per class (optionally below a folder per split) as a Dataset."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
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

_SYSTEM = ("lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini")


def load_folder(path: Path, options: TableOptions, note: Note | None = None) -> Dataset:
    """Read files by class (`cats/a.png`), or by split and class (`train/cats/a.png`).

    Files of one folder and stem are modalities of one sample: `cats/a.png` and `cats/a.wav`.

    Raises:
        MmfuseError: for a folder without such files.
    """
    root = path.expanduser().absolute()
    for option in ("root", "encoding", "sheet"):
        if getattr(options, option) is not None:
            raise MmfuseError(f"--{option} is for tables; {path} is a folder per class")
    tell = note or (lambda _: None)
    files = _files(root)
    splits_of = _split_folders(root, files)
    rows, left_out = _samples(root, files, splits_of)
    labels = {row["label"] for row in rows.values()}
    _check_classes(root, labels, files)
    _tell_structure(root, rows, splits_of, tell)
    if left_out:
        shown = ", ".join(f"{count} {why}" for why, count in left_out.most_common(6))
        tell(f"left out {left_out.total()} files: {shown}")
    kinds = [kind for kind in SUFFIXES if any(kind in row for row in rows.values())]
    names = ["label", *(["split"] if splits_of else []), *kinds]
    frame = pl.DataFrame(
        {"id": list(rows), **{name: [row.get(name) for row in rows.values()] for name in names}},
        schema=dict.fromkeys(["id", *names], pl.String),
    )
    if not options.modalities:
        alone = tuple(ModalitySpec(kind, kind, (kind,)) for kind in kinds)
        options = replace(options, modalities=alone)
    return assemble(frame, root, root, options, note)


def _files(root: Path) -> list[Path]:
    """All files below a folder, also those that links lead to, sorted.

    Raises:
        MmfuseError: for a folder that cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise MmfuseError(f"{error.filename} cannot be listed: {error.strerror}") from error

    found: list[Path] = []
    above: dict[str, frozenset[str]] = {str(root): frozenset([os.path.realpath(root)])}
    for place, folders, names in os.walk(root, onerror=fail, followlinks=True):
        for name in list(folders):
            inner = os.path.join(place, name)  # noqa: PTH118 - a million files pass here
            real = os.path.realpath(inner)
            if real in above[place]:
                folders.remove(name)  # a link to a folder that it lies in
            else:
                above[inner] = above[place] | {real}
        found += [Path(place, name) for name in names]
    return sorted(found)


def _split_folders(root: Path, files: Sequence[Path]) -> dict[str, str]:
    """The split of each folder below the root, where they are splits and not classes.

    They are where all folders with files are called as splits, or where train and another split
    are among them and hold folders in turn: `seg_train/cats/1.jpg` beside `seg_test` and
    `unlabelled`.
    """
    parts = [file.relative_to(root).parts for file in files if _is_shown(file, root)]
    folders = {each[0] for each in parts if len(each) > 1}
    if folders and all(name.lower() in splits.WORDS for name in folders):
        return {name: splits.WORDS[name.lower()] for name in folders}
    found = {name: split for name in folders if (split := _split_in(name))}
    inside = [each for each in parts if each[0] in found]
    nested = sum(len(each) > 2 for each in inside)
    is_layout = "train" in found.values() and len(set(found.values())) > 1
    return found if is_layout and 2 * nested > len(inside) else {}


def _split_in(name: str) -> str:
    """The one split that a folder's name mentions, such as `seg_train`; else ""."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {splits.WORDS[word] for word in words if word in splits.WORDS}
    return found.pop() if len(found) == 1 else ""


def _samples(
    root: Path, files: Sequence[Path], splits_of: Mapping[str, str]
) -> tuple[dict[str, dict[str, str]], Counter[str]]:
    """By id, the label, split and files of each sample; and why other files are left out."""
    rows: dict[str, dict[str, str]] = {}
    left_out: Counter[str] = Counter()
    depth = 2 if splits_of else 1  # of a class folder
    for file in files:
        place = file.relative_to(root)
        kind = _kind(file)
        beside = bool(splits_of) and place.parts[0] not in splits_of
        if not file.is_file():
            left_out["broken link" if file.is_symlink() else "no plain file"] += 1
        elif not _is_shown(file, root):
            left_out["hidden"] += 1
        elif kind is None or len(place.parts) <= depth or beside:
            left_out[_why_left_out(file, kind, beside=place.parts[0] if beside else "")] += 1
        else:
            if os.fsencode(place) != str(place).encode(errors="replace"):
                raise MmfuseError(f"{root} holds {str(place)!a}, a name not in UTF-8; rename it")
            name = place.with_suffix("").as_posix()
            if kind in rows.get(name, ()):  # `1.jpg` and `1.png` are two samples
                name = place.as_posix()
            row = rows.setdefault(name, {"label": place.parts[depth - 1]})
            if splits_of:
                row["split"] = splits_of[place.parts[0]]
            row[kind] = place.as_posix()
    return rows, left_out


def _tell_structure(
    root: Path, rows: Mapping[str, Mapping[str, str]], splits_of: Mapping[str, str], tell: Note
) -> None:
    """Name what the folders mean, where it is not plain to see."""
    labels = {row["label"] for row in rows.values()}
    if renamed := {name: split for name, split in splits_of.items() if name.lower() != split}:
        shown = ", ".join(f"{name} is {split}" for name, split in sorted(renamed.items())[:5])
        tell(f"folders by split: {shown}")
    places = [root / name for name in splits_of] or [root]
    folders = {f.name for p in places for f in p.iterdir() if f.is_dir() and _is_shown(f, root)}
    if empty := folders - labels:
        shown = ", ".join(sorted(empty)[:5])
        tell(f"left out {len(empty)} folders without a file that can be read, such as: {shown}")
    deeper = [name for name in rows if name.count("/") > 1 + bool(splits_of)]
    if deeper:
        level = "second" if splits_of else "first"
        tell(
            f"{len(deeper)} of {len(rows)} samples lie in folders below that of their class, such "
            f"as {deeper[0]}; the {level} folder is the label"
        )


def _check_classes(root: Path, labels: set[str], files: Sequence[Path]) -> None:
    """Refuse a folder without classes, and name the table that it may be meant to be."""
    tables = [file for file in files if file.parent == root and is_table_file(file)]
    if len(labels) < 2 and tables:
        what = f"one class folder only, {min(labels)}" if labels else "no class folders"
        raise MmfuseError(f"{root} holds {what}; to read its table: --dataset {tables[0]}")
    if not labels:
        endings = " ".join(ending for endings in SUFFIXES.values() for ending in endings)
        raise MmfuseError(f"{root} holds no class folders with files in them ({endings})")


def _kind(file: Path) -> Kind | None:
    ending = file.suffix.lower()
    return next((kind for kind, endings in SUFFIXES.items() if ending in endings), None)


def _why_left_out(file: Path, kind: Kind | None, *, beside: str) -> str:
    ending = file.suffix.lower() or "without an ending"
    if beside:
        return f"in {beside}, beside the splits"
    if kind is None:
        return f"{ending} (no known kind)" if file.suffix else ending
    return f"{ending} outside any class folder"


def _is_shown(file: Path, root: Path) -> bool:
    """Whether neither a file nor a folder that it lies in is hidden or made by a system."""
    return not any(
        part.startswith((".", "__", "@")) or part.lower() in _SYSTEM
        for part in file.relative_to(root).parts
    )
