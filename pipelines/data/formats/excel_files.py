"""Excel workbooks: one sheet as a table, by the package fastexcel."""

import importlib
import logging
import posixpath
import re
import zipfile
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from cache.errors import MmfuseError, unknown
from pipelines.data.values.mixed_cells import mixed_column, words_of

_CELL = re.compile(rb"""\sr\s*=\s*["']([A-Z]{1,3})([0-9]{1,7})["']""")
_ERROR = re.compile(rb"""<(?:\w+:)?c\s[^<>]*?\bt\s*=\s*["']e["'][^<>]*>""")
_BLOCK = 1 << 22  # bytes of a sheet that are searched at a time
_CELL_BYTES = 32  # of an empty cell within the used range, in memory
_LEAST = 1 << 30  # bytes that any sheet may take
_LARGEST_LIST = 1 << 24  # bytes of a workbook's list of sheets
_DAY = 86_400_000  # milliseconds
_GROWTH = 100  # bytes in memory for one of the sheet's XML


def read_excel(path: Path, sheet: str | None, tell: Callable[[str], None]) -> pl.DataFrame:
    """Read a sheet; cells are what they are stored as, errors such as #N/A missing, and counted.

    A column of cells of several types is mixed, see `data.values.mixed_cells`. Durations and times
    of day are numbers, of seconds.

    The header is the first row that fills at least half of the used columns; what stands above it,
    empty rows and empty columns are left out.

    Args:
        path: an `.xlsx`, `.xlsm` or `.xls` file.
        sheet: its name; the first visible one with several columns and rows if left out.
        tell: called with one sentence on the sheet, one on errors in its cells, one on what stands
            above the header.

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
        if errors := _errors(path, name):
            some = f"{len(errors)} of {_count(filled[name]) + len(errors)} cells"
            tell(
                f"{path}, sheet {name!r}: {some} are errors of Excel and count as missing, such as "
                f"that in {errors[0]}"
            )
        return _table(book, name, filled[name], f"{path}, sheet {name!r}", tell)
    except fastexcel.FastExcelError as error:
        first = str(error).split("\n", 1)[0]
        raise MmfuseError(f"{path} cannot be read as a workbook: {first}") from error


def _count(cells: pl.DataFrame) -> int:
    """Cells that are not blank."""
    return sum(column.count() for column in cells.drop(""))


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


@dataclass(frozen=True)
class _Rows:
    """Rows of a sheet from one on, as fastexcel loads them."""

    book: Any  # the package is optional
    sheet: str
    start: int

    def cells(self, dtype: str) -> pl.DataFrame:
        """(N, columns) what converts to a type, else null."""
        sheet = self.book.load_sheet(self.sheet, header_row=None, skip_rows=0, dtypes=dtype)
        found: pl.DataFrame = sheet.to_polars()
        return found[self.start :]

    def types(self, columns: list[str], row: int | None = None) -> pl.Schema | None:
        """Types that these columns, or their cells of one row, are stored as.

        A column of several types is of words, but fastexcel refuses durations beside others, and
        some of Excel's errors: None then.
        """
        fastexcel = importlib.import_module("fastexcel")
        try:
            sheet = self.book.load_sheet(
                self.sheet,
                header_row=None,
                skip_rows=self.start + (row or 0),
                n_rows=None if row is None else 1,
                use_columns=columns,
                schema_sample_rows=None,
            )
        except (fastexcel.UnsupportedColumnTypeCombinationError, fastexcel.CalamineCellError):
            return None
        found: pl.DataFrame = sheet.to_polars()
        return found.schema


def _stored(rows: _Rows, words: pl.DataFrame) -> list[pl.Series]:
    """Columns in the types that their cells are stored as.

    What a cell converts to tells its type: to a boolean, only a number or boolean does; to a
    duration, only a date, a time of day or a duration.

    Args:
        rows: of the sheet, below its header.
        words: (N, columns) the same cells as words.
    """
    numbers, flags, spans = rows.cells("float"), rows.cells("boolean"), rows.cells("duration")
    timed = spans.select(span.name for span in spans if span.null_count() < len(span))
    seconds = _seconds(rows, timed)
    datetimes = rows.cells("datetime") if timed.width else timed
    columns = []
    for word in words:
        name = word.name
        is_flag = flags[name].is_not_null() & word.is_in(["true", "false"])
        number = numbers[name].set(flags[name].is_null() | is_flag, None)
        dated = pl.Series([None], dtype=pl.Datetime("ms")).new_from_index(0, len(word))
        if name in seconds:
            is_date = timed[name].is_not_null() & seconds[name].is_null()
            dated = datetimes[name].set(~is_date, None)
            number = number.fill_null(seconds[name])
            word = words_of(seconds[name]).zip_with(seconds[name].is_not_null(), word)
        columns.append(_column(word, number, dated, is_flag))
    return columns


def _column(word: pl.Series, number: pl.Series, dated: pl.Series, is_flag: pl.Series) -> pl.Series:
    """A column of its cells by type; mixed where they have several.

    Args:
        word: (N,) of all cells.
        number: of cells that are stored as numbers, else null.
        dated: of cells that are stored as dates, else null.
        is_flag: whether cells are stored as booleans.
    """
    counts = {"number": number.count(), "dated": dated.count(), "flag": int(is_flag.sum())}
    sole = [kind for kind, count in counts.items() if count and count == word.count()]
    if sole:
        return {"number": number, "dated": dated, "flag": word == "true"}[sole[0]]
    if not (counts["number"] or counts["dated"]):
        return word
    days = word.str.strip_suffix(" 00:00:00")
    words = days.zip_with(dated.is_not_null(), word)
    return mixed_column(word.name, number, dated.dt.replace_time_zone("UTC"), words)


def _seconds(rows: _Rows, spans: pl.DataFrame) -> dict[str, pl.Series]:
    """By column (N,) seconds of durations and times of day; null for dates.

    A cell of less than a day has no date, whatever its format.

    Args:
        rows: of the sheet.
        spans: (N, columns) time since the day 0 of Excel, for dates too.
    """
    milliseconds = spans.select(pl.all().dt.total_milliseconds())
    long = [column.name for column in milliseconds if (column >= _DAY).any()]
    types = rows.types(long) if long else None
    found = {}
    for column in milliseconds:
        is_date = column >= _DAY
        if column.name in long:
            own = types or rows.types([column.name])
            if own is None:
                is_date &= ~_are_durations(rows, column)
            elif own[column.name] == pl.Duration:
                is_date &= False
        found[column.name] = (column / 1e3).set(is_date, None)
    return found


def _are_durations(rows: _Rows, column: pl.Series) -> pl.Series:
    """(N,) whether cells of a day or more are durations, and not dates.

    A column may have both: durations are then shorter than any date, which is searched for.

    Args:
        rows: of the sheet.
        column: (N,) milliseconds since the day 0 of Excel.
    """
    order = [row for row in column.arg_sort().to_list() if (column[row] or 0) >= _DAY]

    def is_duration(row: int) -> bool:
        types = rows.types([column.name], row)
        return types is not None and types[column.name] == pl.Duration

    first = is_duration(order[0])
    if is_duration(order[-1]) == first:
        return pl.Series([first]).new_from_index(0, len(column))
    end = bisect_left(order, 1, key=lambda row: int(is_duration(row) != first))
    shorter: pl.Series = column < column[order[end]]
    return shorter if first else ~shorter


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
        zip(words, _stored(_Rows(book, name, header + 1), below), strict=True), 1
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


def _errors(path: Path, sheet: str) -> list[str]:
    """Cells of a sheet that hold an error, such as `B7`; fastexcel has nothing there.

    Of .xlsx and .xlsm only.
    """
    if not zipfile.is_zipfile(path):
        return []
    found: list[str] = []
    with zipfile.ZipFile(path) as archive:
        part = _part(archive, sheet)
        if part is None:
            return []
        with archive.open(part) as file:
            rest = b""
            while block := file.read(_BLOCK):
                whole, mark, rest = (rest + block).rpartition(b"<")
                rest = mark + rest
                cells = [_CELL.search(tag) for tag in _ERROR.findall(whole)]
                found += [b"".join(cell.groups()).decode() for cell in cells if cell]
    return found


def _part(archive: zipfile.ZipFile, sheet: str) -> str | None:
    """The file of a sheet within a workbook, None where it is not found."""
    files = set(archive.namelist())
    root, links = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
    if not {root, links} <= files:
        return None
    if max(archive.getinfo(name).file_size for name in (root, links)) > _LARGEST_LIST:
        return None
    try:
        sheets = ElementTree.fromstring(archive.read(root)).iterfind(".//{*}sheet")
        targets = {
            link.get("Id"): link.get("Target", "")
            for link in ElementTree.fromstring(archive.read(links))
        }
    except ElementTree.ParseError:
        return None
    own = next((found for found in sheets if found.get("name") == sheet), None)
    keys = [] if own is None else [key for name, key in own.items() if name.endswith("}id")]
    parts = [posixpath.join("/xl", targets.get(key, "")).strip("/") for key in keys]
    return next((part for part in map(posixpath.normpath, parts) if part in files), None)
