"""Excel workbooks: one sheet as a table, by the package fastexcel."""

import importlib
import logging
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cache.errors import MmfuseError, unknown
from pipelines.data.mixed_cells import mixed_column

_CELL = re.compile(rb"""\sr\s*=\s*["']([A-Z]{1,3})([0-9]{1,7})["']""")
_BLOCK = 1 << 22  # bytes of a sheet that are searched at a time
_CELL_BYTES = 32  # of an empty cell within the used range, in memory
_LEAST = 1 << 30  # bytes that any sheet may take
_LAST_DAY = 2_958_465  # that Excel has: the end of the year 9999
_GROWTH = 100  # bytes in memory for one of the sheet's XML


def read_excel(path: Path, sheet: str | None, tell: Callable[[str], None]) -> pl.DataFrame:
    """Read a sheet; cells are what they are stored as, errors such as #N/A missing.

    A column of cells of several types is mixed, see `pipelines.data.mixed_cells`.

    The header is the first row that fills at least half of the used columns; what stands above it,
    empty rows and empty columns are left out.

    Args:
        path: an `.xlsx`, `.xlsm` or `.xls` file.
        sheet: its name; the first visible one with several columns and rows if left out.
        tell: called with one sentence on the sheet, one on what stands above the header.

    Raises:
        MmfuseError: where the package is not installed, the file is damaged, there is no such
            sheet, or a stray cell would make it take gigabytes.
    """
    try:
        fastexcel = importlib.import_module("fastexcel")
    except ModuleNotFoundError as error:
        message = f'{path} needs the package fastexcel; run: pip install "mmfuse[excel]"'
        raise MmfuseError(message) from error
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of columns without cells
    _check_extent(path)
    try:
        book = fastexcel.read_excel(path)
        names = book.sheet_names
        if sheet is not None and sheet not in names:
            raise unknown(f"sheet of {path}", sheet, names)
        sheets = {name: _words(book, name) for name in (names if sheet is None else [sheet])}
        filled = {name: found.cells for name, found in sheets.items() if len(found.cells)}
        if not filled:
            raise MmfuseError(f"{path} has no cells" + (f" in sheet {sheet!r}" if sheet else ""))
        # A cover sheet with a line or two is no table; the first that has columns and rows is one.
        visible = [name for name in filled if sheets[name].visible] or list(filled)
        tables = [n for n in visible if len(filled[n]) > 1 and filled[n].width > 2]
        name = next(iter(tables or visible))
        if sheet is None and len(names) > 1:
            others = ", ".join(repr(other) for other in names if other != name)
            tell(f"{path}: sheet {name!r} is read, not {others}; --sheet NAME for another")
        return _table(book, name, filled[name], f"{path}, sheet {name!r}", tell)
    except fastexcel.FastExcelError as error:
        first = str(error).split("\n", 1)[0]
        raise MmfuseError(f"{path} cannot be read as a workbook: {first}") from error


@dataclass(frozen=True)
class _Sheet:
    """Cells of a sheet as words, blank ones null, with the row number of the sheet as ""."""

    cells: pl.DataFrame
    visible: bool


def _words(book: Any, name: str) -> _Sheet:  # noqa: ANN401 - the package is optional
    sheet = book.load_sheet(name, header_row=None, skip_rows=0, dtypes="string")
    cells: pl.DataFrame = sheet.to_polars()
    visible = sheet.visible == "visible"
    if not cells.width:
        return _Sheet(cells, visible)
    stripped = pl.all().str.strip_chars()
    filled = cells.with_columns(pl.when(stripped != "").then(pl.all()).name.keep())
    return _Sheet(filled.with_row_index("", offset=1), visible)


def _stored(book: Any, name: str, skipped: int, words: pl.DataFrame) -> list[pl.Series]:  # noqa: ANN401
    """Columns of the rows below the header, in the types that the cells are stored as.

    fastexcel tells the type of a column where all of its cells have one; it drops words such as
    n/a beside numbers. In other columns a cell that converts to a date is stored as a number, and
    one that converts to a duration as a date.

    Args:
        book: the workbook.
        name: of the sheet.
        skipped: rows above.
        words: (N, columns) the same cells as words.
    """

    def load(dtype: str | None) -> pl.DataFrame:
        sheet = book.load_sheet(
            name, header_row=None, skip_rows=skipped, dtypes=dtype, schema_sample_rows=None
        )
        found: pl.DataFrame = sheet.to_polars()
        return found.tail(len(words)) if len(found) > len(words) else found

    typed = load(None)
    if (len(typed), typed.width) != (len(words), words.width):
        return words.get_columns()  # the shape of what is typed is another: words are sure
    lost = [(c.is_null() & w.is_not_null()).any() for c, w in zip(typed, words, strict=True)]
    sure = [c.dtype != pl.String and not odd for c, odd in zip(typed, lost, strict=True)]
    if all(sure):
        return [_seconds_or_moments(column) for column in typed]
    numbers, moments, spans = load("float"), load("datetime"), load("duration")
    columns = []
    for place, column in enumerate(typed):
        if sure[place]:
            columns.append(_seconds_or_moments(column))
            continue
        word = words.to_series(place)
        is_moment = spans.to_series(place).is_not_null() & moments.to_series(place).is_not_null()
        whole = word.str.contains(r"^-?\d+$") & (numbers.to_series(place).abs() > _LAST_DAY)
        is_number = (moments.to_series(place).is_not_null() | whole) & ~is_moment
        is_number &= numbers.to_series(place).is_not_null()
        if not (is_number | is_moment).any():
            columns.append(word)
            continue
        days = word.str.strip_suffix(" 00:00:00")
        columns.append(
            mixed_column(
                column.name,
                numbers.to_series(place).set(~is_number, None),
                moments.to_series(place).dt.replace_time_zone("UTC").set(~is_moment, None),
                pl.select(pl.when(is_moment).then(days).otherwise(word)).to_series(),
            )
        )
    return columns


def _seconds_or_moments(column: pl.Series) -> pl.Series:
    """A column as it is stored; times of day and durations in seconds."""
    return column.dt.total_milliseconds() / 1e3 if column.dtype == pl.Duration else column


def _table(
    book: Any,  # noqa: ANN401
    name: str,
    cells: pl.DataFrame,
    where: str,
    tell: Callable[[str], None],
) -> pl.DataFrame:
    row, cells = cells[""], cells.drop("")
    filled = pl.DataFrame([column.is_not_null() for column in cells]).sum_horizontal()
    used = sum(column.null_count() < len(column) for column in cells)
    header = int((2 * filled >= used).arg_max() or 0)
    above = [cell for line in cells[:header].rows() for cell in line if cell is not None]
    if above:
        tell(
            f"{where}: the header is row {row[header]}; what stands above it is left out, "
            f"such as {above[0][:40]!r}"
        )
    words = cells.row(header)
    below = cells[header + 1 :]
    some = filled[header + 1 :] > 0
    kept = {}
    for place, (word, column) in enumerate(
        zip(words, _stored(book, name, header + 1, below), strict=True), 1
    ):
        header_name = " ".join(word.split()) if word else f"column {place}"
        if word is None and below.to_series(place - 1).null_count() == len(column):
            continue
        if header_name in kept:
            raise MmfuseError(f"{where}: two columns are named {header_name!r}; rename one of them")
        kept[header_name] = column.filter(some)
    return pl.DataFrame(kept)


def _check_extent(path: Path) -> None:
    """Refuse a sheet whose used range is vast and empty: the range is held in memory whole.

    Raises:
        MmfuseError: with the corner of the range.
    """
    if not zipfile.is_zipfile(path):
        return  # .xls holds at most 65,536 × 256 cells
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".xml") or "sharedStrings" in info.filename:
                continue  # a sheet may lie anywhere
            rows, column, size = 0, "", 0
            with archive.open(info) as file:
                rest = b""
                while block := file.read(_BLOCK):
                    size += len(block)
                    found = _CELL.findall(rest + block)
                    rest = block[-16:]
                    rows = max([rows, *(int(number) for _, number in found[-1:])])
                    letters = {word.decode() for word, _ in found} | {column}
                    column = max(letters, key=lambda word: (len(word), word))
            columns = sum((ord(a) - 64) * 26**k for k, a in enumerate(reversed(column)))
            if rows * columns * _CELL_BYTES > max(_LEAST, _GROWTH * size):
                raise MmfuseError(
                    f"{path}: a sheet of {size:,} bytes has {rows:,} rows × {columns:,} columns, "
                    f"nearly all empty; delete the stray cells, up to {column}{rows}"
                )
