"""One sample from named cells, as a table with that row would have it."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import Kind
from pipelines.data.columns import as_name
from pipelines.data.values.series import row_of_numbers
from pipelines.media.cells import FILES, MAX_SERIES, TEXTS, file_path

ROOT = Path("/")
"""What the paths of a sample are relative to: they are absolute."""
_SERIES_FILES = (".npy", ".csv")


@dataclass(frozen=True)
class KnownCells:
    """Names that the cells of a sample may have.

    Attributes:
        kinds: kind of each modality.
        made_of: by modality, the columns it was made of in training, where they are known.
    """

    kinds: Mapping[str, Kind]
    made_of: Mapping[str, tuple[str, ...]]

    def modality_of(self, name: str) -> str | None:
        """The modality that a cell belongs to: its own name, or one of its columns."""
        if name in self.kinds and not self.columns_of(name):
            return name
        owners = [m for m, own in self.made_of.items() if name in own and m in self.kinds]
        if owners:
            return owners[0]
        plain = as_name(name)
        if plain in self.kinds and not self.columns_of(plain):
            return plain
        rest = [m for m, kind in self.kinds.items() if kind == "tabular" and m not in self.made_of]
        return rest[0] if rest and name not in self.kinds else None

    def columns_of(self, modality: str) -> tuple[str, ...]:
        """Columns that are given in place of a modality: those of a table; () for others."""
        own = self.made_of.get(modality, ())
        is_record = self.kinds[modality] == "tabular" or len(own) > 1
        return own if is_record and own != (modality,) else ()

    def names(self) -> list[str]:
        """Every name that a cell may have."""
        return [
            name for modality in self.kinds for name in self.columns_of(modality) or (modality,)
        ]


def read_sample(cells: Mapping[str, object], known: KnownCells, run: str) -> pl.DataFrame:
    """A table of one row, its paths relative to `ROOT`.

    Args:
        cells: by modality, or by column of a tabular one. Images, audio and video: a path, or the
            file's bytes; text: itself, or `@FILE` (`@@` for a text that begins with `@`); columns:
            words as in a CSV, or values; series: numbers joined by commas, a list or an array, or a
            .npy or .csv file. None is absent.
        known: the names that cells may have.
        run: for messages.

    Raises:
        MmfuseError: for an unknown name, a modality given twice, or a file that is not there.
    """
    columns: dict[str, pl.Series] = {}
    given: dict[str, str] = {}  # modality → the name it was given by
    for name, cell in cells.items():
        if isinstance(cell, Mapping) and known.kinds.get(name) == "tabular":
            columns[name] = pl.Series(name, [dict(cell)])
            continue
        modality = known.modality_of(name)
        if modality is None:
            raise _unknown(name, known, run)
        if cell is None:
            continue
        whole = name not in known.columns_of(modality)
        kind = known.kinds[modality]
        if whole and kind != "tabular":
            if modality in given:
                raise MmfuseError(f"{given[modality]} and {name} are the same modality; give one")
            given[modality] = name
            columns[modality] = _read_cell(name, kind, cell).alias(modality)
        else:
            columns[name] = pl.Series(name, [cell], strict=False)
    if not columns:
        raise MmfuseError(f"a sample needs one of {', '.join(known.names())}")
    return pl.DataFrame(list(columns.values()))


def _unknown(name: str, known: KnownCells, run: str) -> MmfuseError:
    if name in known.kinds:
        own = ", ".join(known.columns_of(name))
        return MmfuseError(f"{name} is made of columns; give them by their names: {own}")
    return unknown(f"modality or column of {run}", name, known.names())


def _read_cell(name: str, kind: Kind, cell: object) -> pl.Series:
    if kind in FILES:
        return pl.Series([cell if isinstance(cell, bytes) else _place(name, cell)])
    if kind in TEXTS:
        return pl.Series([_text(name, cell)], dtype=pl.String)
    return _series(name, cell)


def _place(name: str, cell: object) -> str:
    """Absolute path of a file.

    Raises:
        MmfuseError: where there is none.
    """
    if not isinstance(cell, str | Path):
        raise MmfuseError(f"{name} is a file; give its path, not a {type(cell).__name__}")
    if isinstance(cell, str) and "://" in cell and not cell.startswith("file:"):
        raise MmfuseError(f"{name}={cell}: nothing is fetched; download the file and give its path")
    path = Path(cell).expanduser()
    if not path.is_file():
        path = Path(file_path(str(path), os.getcwd()))  # noqa: PTH109 - a string is needed
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "no such file"
        raise MmfuseError(f"{name}={cell}: {what} (looked for {path.absolute()})")
    return str(path.absolute())


def _text(name: str, cell: object) -> str:
    if not isinstance(cell, str | Path):
        return str(cell)
    word = f"@{cell}" if isinstance(cell, Path) else cell
    if not word.startswith("@") or word.startswith("@@"):
        return word.removeprefix("@")
    path = Path(word[1:]).expanduser()
    if not path.is_file():
        raise MmfuseError(
            f"{name}={word}: no such file: {path} (looked for {path.absolute()}); "
            f"a text that begins with @ is written with @@"
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise MmfuseError(f"{name}={word}: {path} cannot be read as UTF-8: {error}") from error


def _series(name: str, cell: object) -> pl.Series:
    """Values over time: a list, a list of rows, or words as a table has them."""
    if isinstance(cell, Path) or (isinstance(cell, str) and cell.lower().endswith(_SERIES_FILES)):
        path = Path(_place(name, cell))
        values = _matrix(name, path)
    elif isinstance(cell, str):
        if row_of_numbers(cell, least=1) is None:
            raise MmfuseError(
                f"{name}={cell[:40]}: a series is numbers joined by commas, or a .npy or .csv file"
            )
        return pl.Series([cell])
    else:
        try:
            values = np.asarray(cell, np.float32)
        except (TypeError, ValueError) as error:
            raise MmfuseError(f"{name}: a series is numbers: {error}") from error
    if values.ndim not in (1, 2) or not values.size:
        raise MmfuseError(f"{name}: a series has shape (T,) or (T, V), this has {values.shape}")
    rows = values.tolist()
    missing = [[None if x != x else x for x in np.atleast_1d(row)] for row in rows]  # noqa: PLR0124 - NaN
    if values.ndim == 1:
        flat = [row[0] for row in missing]
        return pl.Series([flat], dtype=pl.List(pl.Float32))
    return pl.Series([missing], dtype=pl.List(pl.List(pl.Float32)))


def _matrix(name: str, path: Path) -> Any:  # noqa: ANN401 - an array of any dtype
    """Values of a .npy or .csv file, (T,) or (T, V); missing ones are NaN."""
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise MmfuseError(f"{name}: {path} cannot be read: {error}") from error
        if values.dtype.kind not in "fiub":
            raise MmfuseError(f"{name}: {path} holds {values.dtype}, not numbers")
        if values.size > MAX_SERIES:
            raise MmfuseError(f"{name}: {path} holds more than {MAX_SERIES:,} values")
        return np.asarray(values, np.float32)
    if path.stat().st_size > 32 * MAX_SERIES:
        raise MmfuseError(f"{name}: {path} holds more than {MAX_SERIES:,} values")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    if rows and _numbers(rows[0]) is None:
        del rows[0]  # the names of the columns
    found = [_numbers(row) for row in rows]
    odd = next((n for n, row in enumerate(found) if row is None or len(row) != len(rows[0])), None)
    if odd is not None or not found:
        where = f"row {odd + 1} of {path}: {','.join(rows[odd])[:40]}" if odd is not None else path
        raise MmfuseError(f"{name}: a series is rows of numbers, equally many in each; {where}")
    values = np.array(found, np.float32)  # (T, V)
    return values[:, 0] if values.shape[1] == 1 else values


def _numbers(row: list[str]) -> list[float] | None:
    try:
        return [float(cell) if cell.strip() else float("nan") for cell in row]
    except ValueError:
        return None
