"""Excel workbooks: one sheet as a table, by the package fastexcel."""

import importlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from cache.errors import MmfuseError, unknown

_CELL = re.compile(rb' r="([A-Z]{1,3})([0-9]{1,7})"')
_BLOCK = 1 << 22  # bytes of a sheet that are searched at a time
_CELL_BYTES = 32  # of an empty cell within the used range, in memory
_LEAST = 1 << 30  # bytes that any sheet may take
_GROWTH = 100  # bytes in memory for one of the sheet's XML


def read_excel(path: Path, sheet: str | None, tell: Callable[[str], None]) -> pl.DataFrame:
    """Read a sheet; cells are strings, dates in ISO form, errors such as #N/A missing.

    The header is the first row that fills at least half of the used columns; what stands above it,
    empty rows and empty columns are left out.

    Args:
        path: an `.xlsx`, `.xlsm` or `.xls` file.
        sheet: its name; the first one with several columns and rows if left out.
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
    _check_extent(path)
    try:
        book = fastexcel.read_excel(path)
        names = book.sheet_names
        if sheet is not None and sheet not in names:
            raise unknown(f"sheet of {path}", sheet, names)
        sheets = {name: _cells(book, name) for name in (names if sheet is None else [sheet])}
    except fastexcel.FastExcelError as error:
        first = str(error).split("\n", 1)[0]
        raise MmfuseError(f"{path} cannot be read as a workbook: {first}") from error
    filled = {name: cells for name, cells in sheets.items() if len(cells)}
    if not filled:
        raise MmfuseError(f"{path} has no cells" + (f" in sheet {sheet!r}" if sheet else ""))
    # A cover sheet with a line or two is no table; the first that has columns and rows is one.
    name = next((n for n, c in filled.items() if len(c) > 1 and c.width > 2), next(iter(filled)))
    if sheet is None and len(names) > 1:
        others = ", ".join(repr(other) for other in names if other != name)
        tell(f"{path}: sheet {name!r} is read, not {others}; --sheet NAME for another")
    return _table(filled[name], f"{path}, sheet {name!r}", tell)


def _cells(book: Any, name: str) -> pl.DataFrame:  # noqa: ANN401 - the package is optional
    """All cells of a sheet as strings, blank ones null, with the row number of the sheet."""
    sheet = book.load_sheet(name, header_row=None, skip_rows=0, dtypes="string")
    cells: pl.DataFrame = sheet.to_polars()
    if not cells.width:
        return cells
    stripped = pl.all().str.strip_chars()
    filled = cells.with_columns(pl.when(stripped != "").then(pl.all()).name.keep())
    return filled.with_row_index("", offset=1)


def _table(cells: pl.DataFrame, where: str, tell: Callable[[str], None]) -> pl.DataFrame:
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
    body = cells[header + 1 :].filter(filled[header + 1 :] > 0)
    kept = {}
    for place, (word, column) in enumerate(zip(words, body, strict=True), 1):
        name = " ".join(word.split()) if word else f"column {place}"
        if word is None and column.null_count() == len(column):
            continue
        if name in kept:
            raise MmfuseError(f"{where}: two columns are named {name!r}; rename one of them")
        kept[name] = column
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
            if not re.fullmatch(r"xl/worksheets/[^/]+\.xml", info.filename):
                continue
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
