"""Columns of the user's own table: guess their kinds and convert their cells."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import KINDS, Kind
from pipelines.data.targets import TARGETS
from pipelines.media.cells import TEXTS, locate
from pipelines.media.payloads import Unreadable

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff"),
    "video": (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"),
}
_SEPARATED = re.compile(r"[,;\s]+")
_LOOK = 200  # cells that a guess looks at, for speed


@dataclass(frozen=True)
class ModalitySpec:
    """A modality asked for by the user: its name, its kind, and its columns."""

    name: str
    kind: Kind
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ColumnGuess:
    """Guessed modalities of a table, and one sentence on each column."""

    parts: tuple[ModalitySpec, ...]
    notes: tuple[str, ...]


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
    if (plain := as_name(name)) != name:
        raise MmfuseError(
            f"--modality {words!r}: letters, digits, '.', '_' and '-' make a name; "
            f"the column may have any: --modality '{plain}={kind}:{columns or name}'"
        )
    known = {kind: kind for kind in KINDS}
    if kind not in known:
        raise unknown("kind", kind, KINDS)
    return ModalitySpec(name, known[kind], tuple(columns.split(",")) if colon else (name,))


def guess_modalities(frame: pl.DataFrame, taken: Sequence[str]) -> ColumnGuess:
    """Guess the kinds of all columns not in `taken`; tabular ones become one modality, `table`.

    File names go by their endings; lists of numbers are series; numbers, dates and words of few
    distinct values are tabular; other words are text, or code where lines and brackets abound.
    """
    parts: list[ModalitySpec] = []
    notes, record = [], []
    for column in frame:
        if column.name in taken:
            continue
        kind, reason = _reserved(column.name) or _kind(column)
        notes.append(f"{column.name}: {kind or 'left out'} ({reason})")
        if kind == "tabular":
            record.append(column.name)
        elif kind:
            parts.append(ModalitySpec(_fresh(as_name(column.name), parts), kind, (column.name,)))
    if record:
        parts.append(ModalitySpec(_fresh("table", parts), "tabular", tuple(record)))
    return ColumnGuess(tuple(parts), tuple(notes))


def cells(frame: pl.DataFrame, part: ModalitySpec) -> pl.Series:
    """The cells of a modality as one column of `Dataset.table`.

    Raises:
        MmfuseError: where the columns cannot be of that kind.
    """
    if part.kind == "tabular":
        return _records(frame, part)
    if part.kind == "series" and len(part.columns) > 1:
        values = [_numeric(frame[column], part) for column in part.columns]
        return pl.select(pl.concat_list(values).alias(part.name)).to_series()
    if len(part.columns) > 1:
        raise MmfuseError(
            f"{part.kind} {part.name!r} is made of one column, not {len(part.columns)}"
        )
    column = frame[part.columns[0]].alias(part.name)
    if part.kind == "series":
        return _series(column, part)
    if part.kind in TEXTS:
        if column.dtype.is_nested() or column.dtype == pl.Binary:
            raise MmfuseError(f"column {part.columns[0]!r} holds {column.dtype}, not {part.kind}")
        return column.cast(pl.String)
    if isinstance(column.dtype, pl.Struct) and "bytes" in column.struct.fields:
        column = column.struct.field("bytes").alias(part.name)  # as Hugging Face stores media
    if column.dtype not in (pl.String, pl.Binary):
        raise MmfuseError(
            f"column {part.columns[0]!r} holds {column.dtype}, not paths of {part.kind}"
        )
    return column


def check_paths(column: pl.Series, root: Path, where: str) -> None:
    """Check that path cells stay inside the root, and that some of the first ones exist.

    Raises:
        MmfuseError: with the first offending cells.
    """
    if column.dtype != pl.String:
        return
    suspect = column.filter(column.str.contains(r"^[/~]|\.\.")).drop_nulls()
    outside = [cell for cell in suspect if _fault(cell, root) == "outside-root"]
    if outside:
        shown = ", ".join(map(repr, outside[:3]))
        raise MmfuseError(
            f"{where}: {len(outside)} paths in {column.name!r} lead out of {root}, such as "
            f"{shown}; paths are relative to the table, so put the files below its folder"
        )
    first = column.drop_nulls().head(_LOOK).to_list()
    if first and all(_fault(cell, root) == "missing-file" for cell in first):
        raise MmfuseError(
            f"{where}: none of the first {len(first)} files in {column.name!r} exists, such as "
            f"{first[0]!r}; they are looked for below {root}"
        )


def numbers(column: pl.Series) -> pl.Series | None:
    """The column as Float64 where every cell that is not null is a number, else None."""
    if column.dtype == pl.Boolean or not (column.dtype.is_numeric() or column.dtype == pl.String):
        return None
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    cast = column.cast(pl.Float64, strict=False)
    return None if (cast.is_null() & column.is_not_null()).any() else cast


def _reserved(name: str) -> tuple[None, str] | None:
    """Why a column is left out for its name alone: it may leak the target."""
    if name.lower() in TARGETS:
        return None, "it is named like a target"
    if name.lower().startswith("split"):
        return None, "it is named like a split"
    return None


def _kind(column: pl.Series) -> tuple[Kind | None, str]:
    values = column.drop_nulls()
    if not len(values):
        return None, "it is empty"
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        return _kind_of_nested(values)
    distinct = values.n_unique()
    if distinct == 1:
        return None, "it has one value only"
    if (as_numbers := numbers(column)) is not None:
        whole = bool((as_numbers.drop_nulls() % 1 == 0).all())
        numbering = whole and distinct == len(column) and column.name.lower().endswith("id")
        return (None, "it numbers the rows") if numbering else ("tabular", "numbers")
    if column.dtype != pl.String or _dates(column) is not None:
        return "tabular", "dates" if column.dtype != pl.Boolean else "yes and no"
    return _kind_of_words(values, distinct)


def _kind_of_nested(values: pl.Series) -> tuple[Kind | None, str]:
    if isinstance(values.dtype, pl.List | pl.Array):
        inner = values.dtype.inner
        while isinstance(inner, pl.List | pl.Array):
            inner = inner.inner
        return ("series", "lists of numbers") if inner.is_numeric() else (None, "lists of words")
    if values.dtype == pl.Binary:
        return _sniffed(values)
    media = isinstance(values.dtype, pl.Struct) and "bytes" in values.struct.fields
    return _sniffed(values.struct.field("bytes")) if media else (None, "nested")


def _kind_of_words(values: pl.Series, distinct: int) -> tuple[Kind | None, str]:
    first = values.head(_LOOK)
    for kind, endings in SUFFIXES.items():
        if sum(cell.lower().endswith(endings) for cell in first) > 0.9 * len(first):
            return kind, f"names of files like {first[0][-24:]!r}"
    if all(_row_of_numbers(cell) is not None for cell in first):
        return "series", "numbers in a row"
    words = float(first.str.count_matches(r"\S+").mean() or 0)  # type: ignore[arg-type]
    lined = first.str.contains("\n").mean() or 0
    marks = first.str.count_matches(r"[;{}()=\[\]]").sum() / int(first.str.len_chars().sum())
    if float(lined) > 0.5 and marks > 0.03:  # type: ignore[arg-type]
        return "code", "lines with many brackets"
    share = distinct / len(values)
    if (share > 0.01 and words >= 3) or share > 0.5:
        return "text", f"{words:.0f} words a cell"
    return "tabular", f"{distinct} different words"


def _sniffed(values: pl.Series) -> tuple[Kind | None, str]:
    heads = [bytes(value[:12]) for value in values.drop_nulls().head(_LOOK)]
    marks: dict[Kind, tuple[bytes, ...]] = {
        "image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
        "audio": (b"fLaC", b"OggS", b"ID3", b"\xff\xfb"),
    }
    for kind, starts in marks.items():
        if heads and all(head.startswith(starts) for head in heads):
            return kind, "encoded bytes"
    riff = {head[8:12] for head in heads if head.startswith(b"RIFF")}
    if heads and len(riff) == 1 and all(head.startswith(b"RIFF") for head in heads):
        return ("audio" if riff == {b"WAVE"} else "image"), "encoded bytes"
    return None, "bytes of no known format"


def _records(frame: pl.DataFrame, part: ModalitySpec) -> pl.Series:
    fields = []
    for name in part.columns:
        column = frame[name]
        if column.dtype.is_nested() or column.dtype == pl.Binary:
            raise MmfuseError(f"column {name!r} holds {column.dtype}, which is not tabular")
        as_numbers = numbers(column)
        if as_numbers is not None:
            fields.append(as_numbers.set(as_numbers.is_nan(), None))
        else:
            as_dates = _dates(column)
            fields.append(column if as_dates is None else as_dates)
    some = pl.any_horizontal(pl.all().is_not_null())
    record = pl.when(some).then(pl.struct(pl.all())).alias(part.name)
    return pl.DataFrame(fields).select(record).to_series()


def _dates(column: pl.Series) -> pl.Series | None:
    """The column as ISO dates or datetimes, or None unless every cell is one."""
    if column.dtype != pl.String or not column.str.contains(r"^\d{4}-\d\d-\d\d").all():
        return None
    for parsed in (column.str.to_date(strict=False), column.str.to_datetime(strict=False)):
        if not (parsed.is_null() & column.is_not_null()).any():
            return parsed
    return None


def _series(column: pl.Series, part: ModalitySpec) -> pl.Series:
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if isinstance(column.dtype, pl.List):
        inner = column.dtype.inner
        if isinstance(inner, pl.List | pl.Array):
            return column.cast(pl.List(pl.List(pl.Float32)))
        return column.cast(pl.List(pl.Float32))
    if column.dtype == pl.String:
        rows = [None if cell is None else _row_of_numbers(cell, least=1) for cell in column]
        if not any(
            row is None and cell is not None for row, cell in zip(rows, column, strict=True)
        ):
            return pl.Series(part.name, rows, pl.List(pl.Float32))
    raise MmfuseError(f"column {part.columns[0]!r} holds {column.dtype}, not rows of numbers")


def _row_of_numbers(cell: str, least: int = 8) -> list[float | None] | None:
    words = _SEPARATED.split(cell.strip().strip("[]").strip())
    try:
        row = [None if word in ("", "null") else float(word) for word in words]
    except ValueError:
        return None
    return row if len(row) >= least else None


def _numeric(column: pl.Series, part: ModalitySpec) -> pl.Series:
    values = numbers(column)
    if values is None:
        raise MmfuseError(f"column {column.name!r} of series {part.name!r} holds no numbers")
    return values.cast(pl.Float32)


def _fault(cell: str, root: Path) -> str:
    try:
        locate(cell, root)
    except Unreadable as fault:
        return fault.reason
    return ""


def _fresh(word: str, parts: Sequence[ModalitySpec]) -> str:
    """The name, with a number appended where another modality has it already."""
    taken = {part.name for part in parts} | {"id", "split", "target", "group"}
    numbered = (f"{word}_{number}" for number in range(2, len(taken) + 3))
    return word if word not in taken else next(name for name in numbered if name not in taken)


def as_name(name: str) -> str:
    """A column's name with only the characters that a modality's name may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-") or "column"
