"""Read files as data frames: CSV, TSV, Excel, JSON, JSON lines, Parquet, Arrow; also gzipped."""

import contextlib
import gzip
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError
from pipelines.data.formats import delimited, json_files
from pipelines.data.formats.encodings import decode, marked_encoding
from pipelines.data.formats.excel_files import read_excel
from pipelines.data.formats.parquet_files import read_arrow, read_parquet

JSON = (".json", ".jsonl", ".ndjson")
TEXTS = (".csv", ".tsv", *JSON)  # may be gzipped, in any encoding
EXCEL = (".xlsx", ".xlsm", ".xls")
SUFFIXES = (*TEXTS, ".parquet", ".arrow", ".feather", *EXCEL)
_LOOK = 1 << 16  # bytes searched for the header
_LONGEST_HEADER = 1 << 26
Note = Callable[[str], None]


def is_table_file(path: Path) -> bool:
    """Whether a file's name ends as that of a table, gzipped or not."""
    return _suffix(path) in SUFFIXES


def read_table(
    path: Path, *, encoding: str | None = None, sheet: str | None = None, note: Note | None = None
) -> pl.DataFrame:
    """Read a table file; cells of CSV, TSV and Excel are strings.

    A CSV whose header holds no comma may be separated by semicolons, tabs or bars, as spreadsheets
    save it. Blanks around the names of columns are dropped.

    Args:
        path: of one of `SUFFIXES`; `.csv.gz` and other gzipped text too.
        encoding: of text, Python's name; else UTF-8, or what the bytes look like.
        sheet: of a workbook; else its first one with cells.
        note: called with one sentence for each guess.

    Raises:
        MmfuseError: for a file that is not there, cannot be read, or is of another kind.
    """
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "no such file"
        raise MmfuseError(f"{what}: {path} (looked for {path.absolute()})")
    tell, suffix = note or (lambda _: None), _suffix(path)
    if suffix not in SUFFIXES:
        raise MmfuseError(f"{path}: a table ends in {', '.join(SUFFIXES)}")
    if encoding is not None and suffix not in TEXTS:
        raise MmfuseError(f"{path}: --encoding is for {', '.join(TEXTS)}")
    if sheet is not None and suffix not in EXCEL:
        raise MmfuseError(f"{path}: --sheet is for {', '.join(EXCEL)}")
    try:
        if suffix in EXCEL:
            return read_excel(path, sheet, tell)
        if suffix in TEXTS:
            frame = _read_text(path, suffix, encoding, tell)
        else:
            frame = read_parquet(path) if suffix == ".parquet" else read_arrow(path)
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        message = " ".join(str(error).split("\n", 1)[0].split())
        raise MmfuseError(f"{path} cannot be read as a table: {message}") from error
    return _with_plain_names(frame, path)


def separator_of(path: Path) -> str:
    """The mark between the cells of a CSV or TSV; a comma for other kinds of files."""
    suffix = _suffix(path)
    if suffix not in (".csv", ".tsv"):
        return ","
    start = _start(path)
    return delimited.separator_of(
        start.decode(marked_encoding(start) or "utf-8", "replace"), suffix
    )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if name.endswith(".gz") else path.suffix.lower()


def _start(path: Path) -> bytes:
    """The first bytes of a text, with its whole first line."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        start = file.read(_LOOK)
        while b"\n" not in start[-_LOOK:] and len(start) < _LONGEST_HEADER:
            more = file.read(_LOOK)
            if not more:
                break
            start += more
        return start


def _read_text(path: Path, suffix: str, encoding: str | None, tell: Note) -> pl.DataFrame:
    """Read text where it lies if it is plain UTF-8, else decode it first."""
    start = _start(path)
    is_json = suffix in JSON
    packed = path.name.lower().endswith(".gz")
    plain = encoding is None and marked_encoding(start) is None and b"\n" in start
    if plain and suffix != ".json" and not packed:
        with contextlib.suppress(pl.exceptions.PolarsError, UnicodeDecodeError):
            # not UTF-8, or damaged: what is wrong is found in the text
            if is_json:
                return json_files.read_lines(path, str(path), tell)
            return delimited.read_delimited(
                str(path), start.decode(errors="replace"), suffix, str(path), tell
            )
    with gzip.open(path) if packed else path.open("rb") as file:
        data = file.read()
    text, _ = decode(data, str(path), encoding, tell)
    if is_json:
        read = json_files.read_json if suffix == ".json" else json_files.read_lines
        return read(text.encode(), str(path), tell)
    if not text.strip():
        raise MmfuseError(f"{path} cannot be read as a table: empty {suffix[1:].upper()}")
    if "\n" not in text:
        text = text.replace("\r", "\n")  # line ends of old Macs, and of Excel there
    try:
        return delimited.read_delimited(text.encode(), text[: len(start)], suffix, str(path), tell)
    except pl.exceptions.PolarsError:
        return delimited.read_quotes(text, suffix, str(path), tell)


def _with_plain_names(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table with no blanks around the names of its columns, and letters in Unicode form C."""
    plain = {name: unicodedata.normalize("NFC", name.strip()) or name for name in frame.columns}
    names = {name: word for name, word in plain.items() if name != word}
    taken = list(plain.values())
    if names and len(set(taken)) < len(taken):
        twice = next(name for name in taken if taken.count(name) > 1)
        raise MmfuseError(f"{path}: two columns are named {twice!r}; rename one of them")
    return frame.rename(names) if names else frame
