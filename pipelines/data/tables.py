"""Read the user's own table as a Dataset, guessing what the options leave out."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import Modality, Task
from pipelines.data import columns, guesses, splits
from pipelines.data.columns import ModalitySpec
from pipelines.data.dataset import Dataset
from pipelines.data.formats.nested import flattened
from pipelines.data.table_files import read_table, separator_of
from pipelines.data.targets import (
    EVENLY,
    TARGETS,
    encode_target,
    is_multi_label,
    odd_among_numbers,
    strata,
)
from pipelines.data.values.category_words import are_decimals, canonical_words
from pipelines.data.values.column_types import ColumnType, decimal_mark
from pipelines.data.values.mixed_cells import plain_columns, words_of
from pipelines.media.cells import FILES

SHARES = "0.8/0.1/0.1"
VAL_SHARE = 0.1  # of the train rows, where a split column or folder has no val
Note = Callable[[str], None]


@dataclass(frozen=True)
class TableOptions:
    """How to read the user's own data; what is left out is guessed and reported.

    Attributes:
        modalities: columns by kind; `columns.parse_modality` makes one from a word such as
            `poster=image` or `stats=tabular:height,weight`. Empty: guessed from the columns.
        target: the column to predict; else one named target, label, class or y.
        task: `classes`, `labels` or `value`; else guessed from the target's values.
        id: the column of ids; else one named id, else rows are numbered.
        split: a column of split words, or shares of train/val/test; else a column named split,
            else 0.8/0.1/0.1.
        group: a column; rows of equal value stay in one split.
        name: of the dataset; else the file's stem and six hex digits of its path.
        seed: of the split by shares.
        decimal: the decimal mark of numbers; else judged by all cells of the file.
        encoding: of a text file, such as `cp1252`; else UTF-8, or what its bytes look like.
        sheet: of an Excel workbook; else its first one with cells.
        root: folder that path cells are relative to; else that of the table. Absolute paths must
            lie inside of it.
        keep_unlabelled: whether rows without a target get features too; they are in no split.
    """

    modalities: tuple[ModalitySpec, ...] = ()
    target: str | None = None
    task: Literal["classes", "labels", "value"] | None = None
    id: str | None = None
    split: str | None = None
    group: str | None = None
    name: str | None = None
    seed: int = 0
    decimal: Literal[".", ","] | None = None
    encoding: str | None = None
    sheet: str | None = None
    root: str | None = None
    keep_unlabelled: bool = False


def load(path: Path, options: TableOptions, note: Note | None = None) -> Dataset:
    """Read a table file as a dataset.

    Args:
        path: the file; path cells are relative to its folder, or to `options.root`.
        options: which column is what.
        note: called with one sentence for each guess.

    Raises:
        MmfuseError: for anything that is wrong with it.
    """
    root = path_root(options, path.absolute().parent)
    frame = read_table(path, encoding=options.encoding, sheet=options.sheet, note=note)
    return assemble(frame, path, root, options, note, separator=separator_of(path))


def path_root(options: TableOptions, default: Path) -> Path:
    """The folder that path cells are relative to: `options.root`, else the default.

    Raises:
        MmfuseError: for a root that is no folder.
    """
    if options.root is None:
        return default
    root = Path(options.root).expanduser().absolute()
    if not root.is_dir():
        raise MmfuseError(f"--root {options.root}: no such folder")
    return root


def assemble(
    frame: pl.DataFrame,
    path: Path,
    root: Path | None,
    options: TableOptions,
    note: Note | None,
    *,
    separator: str = ",",
) -> Dataset:
    """Turn a data frame into a dataset.

    Args:
        frame: one row a sample; blank cells count as absent.
        path: its name in messages; its dataset is named after it.
        root: what path cells are relative to.
        options: which column is what.
        note: called with one sentence for each guess.
        separator: between the cells of the file; `;` speaks for decimal commas.

    Raises:
        MmfuseError: for anything that is wrong with it.
    """
    tell = note or (lambda _: None)
    where = str(path)
    if not len(frame):
        raise MmfuseError(f"{where} has no rows")
    frame = plain_columns(flattened(frame, where))
    for name in (options.id, options.target, options.group):
        if name is not None:
            _check(frame, name, where)
    frame = frame.with_columns(
        pl.when(pl.col(pl.String).str.strip_chars() != "").then(pl.col(pl.String)).name.keep()
    )
    if options.group:  # as the words that are stored, which decide which rows are one group
        frame = frame.with_columns(canonical_words(frame[options.group]))
    target_name = options.target or _find_target(frame, TARGETS, where)
    decimal = options.decimal or decimal_mark(frame.get_columns(), separator)
    labelled = _labelled(frame, target_name, options, decimal, tell)
    if not options.keep_unlabelled:
        frame, labelled = frame.filter(labelled), labelled.filter(labelled)
    if not len(frame):
        raise MmfuseError(f"{where}: no row has a {target_name!r}")
    ids, id_name = _ids(frame, options.id, where)
    known = frame.filter(labelled)
    target, task = encode_target(
        known[target_name], options.task, where, tell, ids.filter(labelled), decimal=decimal
    )
    split, split_name = _split(
        known, strata(target, task), options, where, evenly=EVENLY[task.kind], tell=tell
    )
    _report_unseen(split, target, task, tell)
    split = _spread(split, labelled).fill_null("")
    table = pl.DataFrame([ids, split, _spread(target, labelled)])
    if options.group:
        table = table.with_columns(canonical_words(frame[options.group]).alias("group"))
    taken = (target_name, id_name, split_name, options.group or "")
    parts: tuple[ModalitySpec, ...] = options.modalities
    written: Mapping[str, ColumnType] = {}
    if not parts:
        parts, written = _guessed(frame, taken, where, tell, decimal)
    types: dict[str, Mapping[str, ColumnType]] = {}
    for part in parts:
        _check_part(part, frame, (*table.columns, "group"), target_name, where)
        found = columns.cells(frame, part, types=written, decimal=decimal, ids=ids)
        if root is not None and part.kind in FILES:
            columns.check_paths(found.cells, root, where)
        for note_ in found.notes:
            tell(note_)
        table = table.with_columns(found.cells)
        types[part.name] = found.types
    return Dataset(
        name=options.name or store_name(path),
        table=table,
        modalities=tuple(Modality(part.name, part.kind) for part in parts),
        task=task,
        root=root,
        columns={part.name: part.columns for part in parts},
        column_types={name: known for name, known in types.items() if known},
    )


def _labelled(
    frame: pl.DataFrame, target: str, options: TableOptions, decimal: str | None, tell: Note
) -> pl.Series:
    """(N,) bool, the rows that have a target; multi-label rows may have none of the labels."""
    column = frame[target]
    if options.task == "labels" or (options.task is None and is_multi_label(column)):
        return pl.repeat(True, len(frame), eager=True)  # noqa: FBT003 - the value
    kept = "get features only" if options.keep_unlabelled else "are left out"
    hint = "" if options.keep_unlabelled else "; --keep-unlabelled gives them features"
    there = column.is_not_null()
    if (count := int((~there).sum())) not in (0, len(frame)):
        tell(f"{count} of {len(frame)} rows have no {target!r} and {kept}{hint}")
    odd = odd_among_numbers(column, options.task, decimal)
    if count := int(odd.sum()):
        first = words_of(column)[int(odd.arg_max() or 0)]
        tell(
            f"{count} of {len(frame)} rows have a {target!r} that is no number, such as "
            f"{first[:40]!r}, and {kept}{hint}"
        )
    return there & ~odd


def _spread(values: pl.Series, rows: pl.Series) -> pl.Series:
    """Values of the rows where `rows` is True, null elsewhere."""
    place = pl.select(pl.when(rows).then(rows.cum_sum() - 1)).to_series()
    return values.gather(place)


def _guessed(
    frame: pl.DataFrame, taken: Sequence[str], where: str, tell: Note, decimal: str | None
) -> tuple[tuple[ModalitySpec, ...], Mapping[str, ColumnType]]:
    found = guesses.guess_modalities(frame, taken, decimal)
    for line in found.notes:
        tell(f"guessed {line}")
    if not found.parts:
        raise MmfuseError(f"{where}: no column looks like a modality; name them by --modality")
    return found.parts, found.types


def _check_part(
    part: ModalitySpec, frame: pl.DataFrame, taken: Sequence[str], target: str, where: str
) -> None:
    known = set(frame.columns)
    for name in part.columns:
        if name not in known:
            _check(frame, name, where)
        if name == target:
            raise MmfuseError(f"{where}: {name!r} is the target; it cannot be a modality too")
    if part.name in taken:
        raise MmfuseError(
            f"{where}: a modality cannot be called {part.name!r}; "
            f"--modality OTHER={part.kind}:{','.join(part.columns)}"
        )


def store_name(path: Path) -> str:
    """Dataset name of a file: its stem and six hex digits of its absolute path."""
    full = str(path.expanduser().absolute())
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-") or "data"
    return f"{stem}-{hashlib.blake2b(full.encode(), digest_size=3).hexdigest()}"


def _check(frame: pl.DataFrame, name: str, where: str) -> None:
    if name not in frame.columns:
        raise unknown(f"column in {where}", name, frame.columns)


def _find_target(frame: pl.DataFrame, names: tuple[str, ...], where: str) -> str:
    found = [column for column in frame.columns if column.lower() in names]
    if len(found) != 1:
        listed = ", ".join(found or frame.columns)
        raise MmfuseError(f"{where}: which column is to be predicted? --target one of: {listed}")
    return found[0]


def _ids(frame: pl.DataFrame, name: str | None, where: str) -> tuple[pl.Series, str]:
    name = name or next((column for column in frame.columns if column.lower() == "id"), None)
    if name is None:
        return _numbered(len(frame)), ""
    ids = canonical_words(frame[name]).alias("id")
    if ids.null_count():
        raise MmfuseError(f"{where}: {ids.null_count()} rows have no {name!r}")
    if len(twice := ids.filter(ids.is_duplicated())):
        shown = ", ".join(twice.unique(maintain_order=True).head(3))
        raise MmfuseError(
            f"{where}: ids in column {name!r} are not unique: {shown}; "
            f"repair them, or name another column by --id"
        )
    return ids, name


@dataclass(frozen=True)
class SampleIds:
    """Names of new samples.

    Attributes:
        words: (N,).
        column: that they come from; "" where rows are numbered.
    """

    words: pl.Series
    column: str = ""


def sample_ids(
    samples: pl.DataFrame, named: str | None = None, known: Sequence[str] = ()
) -> SampleIds:
    """Names of new samples, the words that `load` would have made of the same cells.

    Args:
        samples: new rows; without a column of ids they are numbered as in `load`.
        named: the column of ids in training; else, and where it is not there, one named id.
        known: ids of the dataset: where all are decimals, `1` and `1.0` are one word.
    """
    names = [column for column in samples.columns if column.lower() == "id"]
    name = named if named in samples.columns else next(iter(names), None)
    numbered = _numbered(len(samples))
    if name is None:
        return SampleIds(numbered)
    stored = pl.Series("id", list(known), pl.String)
    were_numbered = bool(stored.str.contains(r"^row-\d+$").all())
    by_value = None if were_numbered else are_decimals(stored)
    words = canonical_words(samples[name], by_value=by_value)
    return SampleIds(words.fill_null(numbered).alias("id"), name)


def _numbered(count: int) -> pl.Series:
    width = len(str(count))
    rows = pl.int_range(count, eager=True).cast(pl.String).str.zfill(width)
    return ("row-" + rows).alias("id")


def _split(
    frame: pl.DataFrame,
    classes: list[int],
    options: TableOptions,
    where: str,
    *,
    evenly: str,
    tell: Note,
) -> tuple[pl.Series, str]:
    """The split words and the column they come from ("" where rows were split by shares)."""
    name = options.split or next((c for c in frame.columns if c.lower() == "split"), None)
    if name in frame.columns:
        words = splits.parse_split_words(frame[name], where)
        if blank := int((words == "").sum()):
            tell(
                f"{blank} of {len(frame)} rows have no {name!r}: they are in no split, and get "
                f"features only"
            )
        for split in ("train", "test"):
            if not (words == split).any():
                raise MmfuseError(
                    f"{where}: the {split} split is empty in column {name!r}; to split the rows "
                    f"anew, whatever the column says: --split {SHARES}"
                )
        if not (words == "val").any():
            words = _with_val(words, frame, classes, options, evenly=evenly, tell=tell)
        _report_groups(words, frame, options, str(name), tell)
        return words, str(name)
    parts = splits.parse_shares(name or SHARES)
    _report_groups(None, frame, options, "", tell)
    groups = frame[options.group].to_list() if options.group else None
    assigned = splits.assign_splits(parts, seed=options.seed, strata=classes, groups=groups)
    words = pl.Series("split", list(assigned), pl.String)
    sizes = {split: int((words == split).sum()) for split in ("train", "val", "test")}
    if not all(sizes.values()):
        raise MmfuseError(
            f"{where}: {len(frame)} rows are too few for --split {name or SHARES}"
            + ("" if options.group else _hint(classes))
        )
    how = f"groups of {options.group!r} whole" if options.group else evenly
    shown = ", ".join(f"{split} {size}" for split, size in sizes.items())
    tell(f"rows split {name or SHARES} ({shown}), {how}, seed {options.seed}")
    return words, ""


def _report_groups(
    words: pl.Series | None, frame: pl.DataFrame, options: TableOptions, name: str, tell: Note
) -> None:
    """Report rows of no group, and groups in several splits of a split column, which is kept."""
    if options.group is None:
        return
    groups = frame[options.group]
    if blank := groups.null_count():
        tell(f"{blank} of {len(groups)} rows have no {options.group!r}: each is a group of its own")
    if words is not None:
        seen = pl.DataFrame({"group": groups, "split": words}).filter(pl.col("split") != "")
        each = seen.drop_nulls().group_by("group").agg(pl.col("split").n_unique())
        if several := int((each["split"] > 1).sum()):
            tell(
                f"{several} of {len(each)} groups of {options.group!r} are in several splits of "
                f"column {name!r}, which is kept; to keep groups whole: --split {SHARES}"
            )


def _with_val(
    words: pl.Series,
    frame: pl.DataFrame,
    classes: list[int],
    options: TableOptions,
    *,
    evenly: str,
    tell: Note,
) -> pl.Series:
    """Validation rows taken from train, where a split column has none; never from test."""
    train = words == "train"
    rows = train.arg_true().to_list()
    groups = frame[options.group].gather(rows).to_list() if options.group else None
    drawn = splits.assign_splits(
        (1 - VAL_SHARE, VAL_SHARE, 0.0),
        seed=options.seed,
        strata=[classes[row] for row in rows],
        groups=groups,
    )
    words = words.scatter(rows, ["val" if split == "val" else "train" for split in drawn])
    how = f"groups of {options.group!r} whole" if options.group else evenly
    tell(
        f"no val rows: {int((words == 'val').sum())} of {len(rows)} train rows are taken as val "
        f"({VAL_SHARE:.0%}, {how}, seed {options.seed}); test rows stay as they are"
    )
    return words


def _report_unseen(split: pl.Series, target: pl.Series, task: Task, tell: Note) -> None:
    """Report classes without train rows: they cannot be predicted."""
    if task.kind != "classes":
        return
    seen = set(target.filter(split == "train"))
    unseen = {int(number) for number in target.filter(split.is_in(["val", "test"]))} - seen
    if unseen:
        shown = ", ".join(task.names[number] for number in sorted(unseen)[:5])
        tell(f"no train row has {len(unseen)} of the classes of val or test, such as: {shown}")


def _hint(classes: list[int]) -> str:
    """Why the rows are too few, where most are the only ones of their class."""
    count = len(set(classes))
    if 2 * count <= len(classes):
        return ""
    return f": the first row of each of the {count} classes goes to train"
