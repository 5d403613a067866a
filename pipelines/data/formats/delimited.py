"""CSV and TSV files: cells are strings, and the separator is found by the header."""

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import polars as pl

from cache.errors import MmfuseError

Note = Callable[[str], None]
_SEPARATORS = ";\t|"  # tried for a .csv beside the comma
_RECORDS = 50  # lines that the separator is judged by
_STATED = re.compile(r'^"?sep=(.)"?\r?\n', re.IGNORECASE)  # the first line that Excel may write


def separator_of(start: str, suffix: str) -> str:
    """The mark between cells: the one that cuts the first records into most and equally many cells.

    A comma where none does, or the comma does as well.

    Args:
        start: the first lines of the file.
        suffix: `.tsv` states a tab.
    """
    if stated := _STATED.match(start):
        return stated.group(1)
    if suffix == ".tsv":
        return "\t"
    lines = start.split("\n")
    found, most = "", 1
    for mark in (",", *_SEPARATORS):
        records = list(_records("\n".join(lines[:_RECORDS]), mark)) if mark in lines[0] else []
        if len(lines) > _RECORDS and len(records) > 1:
            del records[-1]  # it may go on
        widths = {len(record) for record in records if record}
        if len(widths) == 1 and max(widths) > most:
            found, most = mark, max(widths)
    named = [mark for mark in _SEPARATORS if mark in lines[0]]
    return found or (named[0] if len(named) == 1 and "," not in lines[0] else ",")


def _records(text: str, separator: str) -> Iterator[list[str]]:
    """The records of a text, up to one that Python's csv module cannot read."""
    with contextlib.suppress(csv.Error):
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=separator)


def read_delimited(
    source: str | bytes, start: str, suffix: str, where: str, tell: Note
) -> pl.DataFrame:
    """Read a CSV or TSV file.

    Args:
        source: path of a file in UTF-8, or its bytes.
        start: its first lines.
        suffix: `.csv` or `.tsv`.
        where: its name, for messages.
        tell: called with sentences on records that lack cells, and on columns without a name.

    Raises:
        MmfuseError: for two columns of one name, since which one is meant would be a guess.
        polars.exceptions.PolarsError: for records of more cells than the header.
    """
    separator = separator_of(start, suffix)
    stated = _STATED.match(start)
    header = next(_records(start[stated.end() if stated else 0 :], separator), [])
    _check_names(header, where)
    frame = pl.read_csv(
        source, infer_schema=False, separator=separator, skip_lines=1 if stated else 0
    )
    if frame.width > 1 and frame.to_series(-1).null_count():
        _tell_short(source, separator, frame.width, tell)
    return _named(frame, header, tell)


def read_quotes(text: str, suffix: str, where: str, tell: Note) -> pl.DataFrame:
    """Read a file with quotes inside of cells, as in `5" pipe`, if that gives equal records.

    Args:
        text: of the file.
        suffix: `.csv` or `.tsv`.
        where: its name, for messages.
        tell: called with a sentence on the first such line.

    Raises:
        MmfuseError: naming the first record that has more or fewer cells than the header.
    """
    separator = separator_of(text, suffix)
    stated = _STATED.match(text)
    body = text[stated.end() if stated else 0 :]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, quoting=quoting)
        with contextlib.suppress(csv.Error):
            records = [record for record in reader if record]
            if records and {len(record) for record in records} == {len(records[0])}:
                _check_names(records[0], where)
                odd = next((n for n, line in enumerate(body.split("\n"), 1) if '"' in line), 0)
                tell(f"quotes inside of cells are kept as they are, the first in line {odd}")
                columns = zip(*records[1:], strict=True)
                frame = pl.DataFrame(
                    [pl.Series(str(n), cells, pl.String) for n, cells in enumerate(columns)]
                )
                return _named(frame, records[0], tell)
    why = next(_ragged_records(body, separator), "a cell begins with a quote that nothing closes")
    raise MmfuseError(f"{where} cannot be read as a table: {why}")


def _check_names(header: list[str], where: str) -> None:
    names = Counter(name for name in header if name.strip())
    if twice := [name for name, count in names.items() if count > 1]:
        raise MmfuseError(f"{where}: two columns are named {twice[0]!r}; rename one of them")


def _named(frame: pl.DataFrame, header: list[str], tell: Note) -> pl.DataFrame:
    """The table with the names of its header; nameless columns are numbered, empty ones dropped.

    A first column without a name that counts the rows is the index that pandas writes.
    """
    if len(header) != frame.width:
        return frame  # a header that Python's csv module cannot read
    columns = []
    for place, (name, column) in enumerate(zip(header, frame, strict=True)):
        if name.strip():
            columns.append(column.alias(name))
        elif place == 0 and _counts_rows(column):
            tell("the first column has no name and counts the rows; it is left out")
        elif column.null_count() < len(column) and (column != "").any():
            number = place + 1
            while f"column {number}" in header:
                number += len(header)
            tell(f"column {place + 1} has no name; it is called 'column {number}'")
            columns.append(column.alias(f"column {number}"))
    return pl.DataFrame(columns)


def _counts_rows(column: pl.Series) -> bool:
    numbers = column.cast(pl.Int64, strict=False)
    rows = pl.int_range(len(column), eager=True)
    return bool(len(column)) and any(bool((numbers == rows + first).all()) for first in (0, 1))


def _opened(source: str | bytes) -> TextIO:
    if isinstance(source, bytes):
        return io.TextIOWrapper(io.BytesIO(source), "utf-8", "replace", newline="")
    return Path(source).open(encoding="utf-8", errors="replace", newline="")


def _tell_short(source: str | bytes, separator: str, width: int, tell: Note) -> None:
    """Count the records that have fewer cells than the header."""
    count, first = 0, ""
    with _opened(source) as file, contextlib.suppress(csv.Error):  # a cell too long for csv
        records = csv.reader(file, delimiter=separator)
        next(records, None)
        for record in records:
            if 0 < len(record) < width:
                count += 1
                first = first or f"line {records.line_num} with {len(record)} of {width} cells"
    if count:
        verb = "record has" if count == 1 else "records have"
        tell(
            f"{count} {verb} fewer cells than the header has names, the first ends in {first}; "
            "what they lack counts as missing"
        )


def _ragged_records(text: str, separator: str) -> Iterator[str]:
    """Describe the records that have more cells than the header."""
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    with contextlib.suppress(csv.Error):
        width = len(next(records, []))
        for record in records:
            if len(record) > width:
                yield f"line {records.line_num} has {len(record)} cells, the header {width}"
