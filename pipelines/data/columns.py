"""Columns of the user's own table as cells of modalities."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import KINDS, Kind
from pipelines.data.file_names import is_url, without_missing_words
from pipelines.data.formats.nested import is_media
from pipelines.data.values.column_types import ColumnType, infer, read_column
from pipelines.data.values.mixed_cells import each_leaf, is_mixed, leaf_of, words_of
from pipelines.data.values.series import AXES, any_value, is_odd, number, row_of_numbers
from pipelines.media.cells import TEXTS, locate
from pipelines.media.payloads import Unreadable

_LOOK = 200  # cells that a guess looks at, for speed
_LONGEST_NAME = 80  # letters of a modality's name that is made of a column's


@dataclass(frozen=True)
class ModalitySpec:
    """A modality asked for by the user: its name, its kind, and its columns."""

    name: str
    kind: Kind
    columns: tuple[str, ...]


def parse_modality(words: str) -> ModalitySpec:
    """Parse `poster=image`, `plot=text:summary` or `stats=tabular:height,weight` as a ModalitySpec.

    Raises:
        MmfuseError: for anything else, or an unknown kind.
    """
    name, equals, rest = words.partition("=")
    kind, colon, columns = rest.partition(":")
    if not (name and equals and kind) or (colon and not columns):
        raise MmfuseError(
            f"--modality {words!r} must be NAME=KIND or NAME=KIND:COLUMN[,COLUMN…], "
            f"such as poster=image or stats=tabular:height,weight"
        )
    name = unicodedata.normalize("NFC", name.strip())
    if (plain := as_name(name)) != name:
        raise MmfuseError(
            f"--modality {words!r}: no name of a modality; the column may have any: "
            f"--modality '{plain}={kind}:{columns or name}'"
        )
    known = {kind: kind for kind in KINDS}
    if kind not in known:
        raise unknown("kind", kind, KINDS)
    return ModalitySpec(name, known[kind], tuple(columns.split(",")) if colon else (name,))


@dataclass(frozen=True)
class ModalityCells:
    """A modality's cells as one column of `Dataset.table`.

    Attributes:
        cells: (N,) one cell a row; null where absent.
        types: how its columns were read, by name; of `tabular` and `series` columns of a table.
        notes: one sentence for every column with cells that count as missing.
    """

    cells: pl.Series
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def cells(
    frame: pl.DataFrame,
    part: ModalitySpec,
    *,
    types: Mapping[str, ColumnType] | None = None,
    decimal: str | None = None,
    ids: pl.Series | None = None,
) -> ModalityCells:
    """Read the cells of a modality from its columns.

    Args:
        frame: the table.
        part: the modality and its columns.
        types: how columns were read before; those without one are judged by their own cells.
        decimal: the decimal mark of the file, where it is known.
        ids: (N,) names of the rows, for the notes.

    Raises:
        MmfuseError: where the columns cannot be of that kind.
    """
    if part.kind == "tabular" or (part.kind == "series" and len(part.columns) > 1):
        return _read_columns(frame, part, types or {}, decimal, ids)
    if len(part.columns) > 1:
        raise MmfuseError(
            f"{part.kind} {part.name!r} is made of one column, not {len(part.columns)}"
        )
    name = part.columns[0]
    column = frame[name].alias(part.name)
    if column.dtype == pl.Null:  # nothing but missing cells, in a file that has types
        return ModalityCells(column.cast(pl.String))
    if part.kind == "series":
        written = (types or {}).get(name) or ColumnType("series", decimal or ".")
        return _series(column, part, written, ids)
    if part.kind in TEXTS:
        if is_nested(column):
            raise MmfuseError(f"column {name!r} holds {column.dtype}, not {part.kind}")
        return ModalityCells(words_of(column))
    return _media(column, part)


def _media(column: pl.Series, part: ModalitySpec) -> ModalityCells:
    if is_media(column.dtype):  # as Hugging Face stores media: bytes inline, or the file's name
        inline = column.struct.field("bytes").alias(part.name)
        names = file_names(column).alias(part.name)
        if inline.null_count() == len(inline):
            return ModalityCells(names)
        if not (inline.is_null() & names.is_not_null()).any():
            return ModalityCells(inline)
        both = pl.DataFrame([inline.alias("bytes"), names.alias("path")])
        there = pl.any_horizontal(pl.all().is_not_null())
        cell = pl.when(there).then(pl.struct(pl.all())).alias(part.name)
        return ModalityCells(both.select(cell).to_series())
    if is_mixed(column):
        column = words_of(column)
    if column.dtype not in (pl.String, pl.Binary):
        raise MmfuseError(
            f"column {part.columns[0]!r} holds {column.dtype}, not paths of {part.kind}"
        )
    if column.dtype == pl.Binary:
        return ModalityCells(column)
    cells = without_missing_words(column)
    count = cells.null_count() - column.null_count()
    lost = f"{part.kind} {part.name}: {count} of {len(cells)} cells are words such as NA, no files"
    return ModalityCells(cells, notes=(lost,) if count else ())


def is_nested(column: pl.Series) -> bool:
    """Whether cells are lists, objects or bytes."""
    return column.dtype == pl.Binary or (column.dtype.is_nested() and not is_mixed(column))


def file_names(media: pl.Series) -> pl.Series:
    """(N,) the file names in cells of encoded media; null where there are none."""
    if "path" in media.struct.fields:
        return media.struct.field("path").cast(pl.String)
    return pl.Series([None], dtype=pl.String).new_from_index(0, len(media))


def check_paths(column: pl.Series, root: Path, where: str) -> None:
    """Check that path cells stay inside the root, and that some of the first ones exist.

    Raises:
        MmfuseError: with the first offending cells.
    """
    if isinstance(column.dtype, pl.Struct):
        column = column.struct.field("path").alias(column.name)
    if column.dtype != pl.String:
        return
    cells = column.drop_nulls()
    urls = cells.filter(is_url(cells))
    if len(urls):
        raise MmfuseError(
            f"{where}: {len(urls)} cells of {column.name!r} are URLs, such as {urls[0][:60]!r}; "
            f"they are not fetched: download the files and put their paths into the table"
        )
    suspect = cells.filter(cells.str.contains(r"^[/~]|\.\.|^file:"))
    outside = [cell for cell in suspect if _fault(cell, root) == "outside-root"]
    if outside:
        shown = ", ".join(map(repr, outside[:3]))
        raise MmfuseError(
            f"{where}: {len(outside)} paths in {column.name!r} lead out of {root}, such as "
            f"{shown}; --root DIR names the folder that holds them all (--root / allows any)"
        )
    first = cells.head(_LOOK).to_list()
    if first and all(_fault(cell, root) == "missing-file" for cell in first):
        raise MmfuseError(
            f"{where}: none of the first {len(first)} files in {column.name!r} exists, such as "
            f"{first[0]!r}; they are looked for below {root}; --root DIR names another folder"
        )


def _read_columns(
    frame: pl.DataFrame,
    part: ModalitySpec,
    types: Mapping[str, ColumnType],
    decimal: str | None,
    ids: pl.Series | None,
) -> ModalityCells:
    """A table's columns as one struct a row, or as the variables of one time step."""
    found: dict[str, ColumnType] = {}
    fields, notes = [], []
    for name in part.columns:
        column = frame[name]
        if is_nested(column):
            raise MmfuseError(f"column {name!r} holds {column.dtype}, which is not tabular")
        kind = types.get(name) or infer(column, decimal=decimal)
        if part.kind == "series" and kind.kind != "number":
            raise MmfuseError(f"column {name!r} of series {part.name!r} holds no numbers")
        reading = read_column(column, kind)
        found[name] = kind
        fields.append(reading.values.alias(name))
        if said := reading.describe_unfit(column, ids):
            notes.append(f"column {name} is read as {kind}: {said}")
    if part.kind == "series":
        values = [each.cast(pl.Float32) for each in fields]
        cells = pl.select(pl.concat_list(values).alias(part.name)).to_series()
        return ModalityCells(cells, found, tuple(notes))
    some = pl.any_horizontal(pl.all().is_not_null())
    record = pl.when(some).then(pl.struct(pl.all())).alias(part.name)
    return ModalityCells(pl.DataFrame(fields).select(record).to_series(), found, tuple(notes))


def _series(
    column: pl.Series, part: ModalitySpec, written: ColumnType, ids: pl.Series | None
) -> ModalityCells:
    if isinstance(column.dtype, pl.List | pl.Array):
        return _series_of_lists(column, part, ids)
    if column.dtype == pl.String or is_mixed(column):
        cells = words_of(column)
        mark = written.decimal
        rows = [None if c is None else row_of_numbers(c, least=1, decimal=mark) for c in cells]
        values = pl.Series(part.name, rows, pl.List(pl.Float32))
        if values.null_count() < len(values) or cells.null_count() == len(cells):
            odd = cells.is_not_null() & values.is_null()
            notes = _odd_series(part.name, odd, cells.filter(odd), ids)
            return ModalityCells(values, {part.columns[0]: written}, notes)
    raise _no_series(column, part)


def _series_of_lists(column: pl.Series, part: ModalitySpec, ids: pl.Series | None) -> ModalityCells:
    """Lists of numbers, or of as many numbers each; a list with a word is missing."""
    leaf, depth = leaf_of(column.dtype)
    if depth > AXES or not (leaf.is_numeric() or leaf in (pl.String, pl.Boolean, pl.Null)):
        raise _no_series(column, part)
    notes: tuple[str, ...] = ()
    if leaf == pl.String:
        odd = any_value(column, is_odd)
        if odd.any() and odd.sum() == len(column) - column.null_count():
            raise _no_series(column, part)
        words = column.filter(odd).head(1)
        for _ in range(depth):
            words = words.explode()
        words = words.to_frame().filter(is_odd(pl.col(column.name))).to_series()
        notes = _odd_series(part.name, odd, words, ids)
        numbers = each_leaf(column, number)
        column = pl.select(pl.when(~odd).then(numbers).alias(column.name)).to_series()
    values = each_leaf(column, lambda value: value.cast(pl.Float32))
    return ModalityCells(values.alias(part.name), notes=notes)


def _no_series(column: pl.Series, part: ModalitySpec) -> MmfuseError:
    return MmfuseError(f"column {part.columns[0]!r} holds {column.dtype}, not rows of numbers")


def _odd_series(
    name: str, odd: pl.Series, words: pl.Series, ids: pl.Series | None
) -> tuple[str, ...]:
    """One sentence on cells that are no rows of numbers, if there are any.

    Args:
        name: of the modality.
        odd: (N,) bool, those cells.
        words: of them, the first of which is shown.
        ids: (N,) names of the rows; else they are numbered from 0.
    """
    if not (count := int(odd.sum())):
        return ()
    row = int(odd.arg_max() or 0)
    at = row if ids is None else ids[row]
    verb, counts = ("is", "counts") if count == 1 else ("are", "count")
    said = f"series {name}: {count} of {len(odd)} cells {verb} no row of numbers and {counts} as"
    return (f"{said} missing, such as {words[0][:40]!r} in row {at}",)


def _fault(cell: str, root: Path) -> str:
    try:
        locate(cell, root)
    except Unreadable as fault:
        return fault.reason
    return ""


def as_name(name: str) -> str:
    """A column's name as that of a modality: without the signs that have a meaning elsewhere."""
    name = unicodedata.normalize("NFC", name)
    name = re.sub(r"[/,=:@\\]|%(?=[0-9A-Fa-f]{2})|[^ \S]+", "_", name)
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    return name.lstrip(".-_ ").rstrip()[:_LONGEST_NAME].rstrip() or "column"
