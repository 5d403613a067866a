"""CSV and TSV files: cells are strings, and the separator is found by the header."""

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator

import polars as pl

from cache.errors import MmfuseError

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


def read_delimited(source: str | bytes, start: str, suffix: str, where: str) -> pl.DataFrame:
    """Read a CSV or TSV file.

    Args:
        source: path of a file in UTF-8, or its bytes.
        start: its first lines.
        suffix: `.csv` or `.tsv`.
        where: its name, for messages.

    Raises:
        MmfuseError: for two columns of one name, since which one is meant would be a guess.
        polars.exceptions.PolarsError: for records of more cells than the header.
    """
    separator = separator_of(start, suffix)
    stated = _STATED.match(start)
    header = next(_records(start[stated.end() if stated else 0 :], separator), [])
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise MmfuseError(f"{where}: two columns are named {twice[0]!r}; rename one of them")
    return pl.read_csv(
        source, infer_schema=False, separator=separator, skip_lines=1 if stated else 0
    )


def ragged_records(text: str, suffix: str) -> Iterator[str]:
    """Describe the records that have more cells than the header."""
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text, suffix))
    with contextlib.suppress(csv.Error):  # a cell too long for Python's csv module
        width = len(next(records, []))
        for record in records:
            if len(record) > width:
                yield f"line {records.line_num} has {len(record)} cells, the header {width}"
