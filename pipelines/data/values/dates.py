"""Dates of a table's columns: the forms they are written in, and cells read in one of them."""

from collections.abc import Sequence

import polars as pl

FORMS = (
    ("iso date", "%Y-%m-%d", r"^\d{4}-\d{1,2}-\d{1,2}$"),
    ("dd.mm.yyyy", "%d.%m.%Y", r"^\d{1,2}\.\d{1,2}\.\d{4}$"),
    ("dd/mm/yyyy", "%d/%m/%Y", r"^\d{1,2}/\d{1,2}/\d{4}$"),
    ("mm/dd/yyyy", "%m/%d/%Y", r"^\d{1,2}/\d{1,2}/\d{4}$"),
    ("yyyy/mm/dd", "%Y/%m/%d", r"^\d{4}/\d{1,2}/\d{1,2}$"),
    ("dd-mm-yyyy", "%d-%m-%Y", r"^\d{1,2}-\d{1,2}-\d{4}$"),
)
_TIME = r"[T ](\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)$"
_ISO = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?$"


def datetimes(words: pl.Series, name: str) -> pl.Series:
    """(N,) Date, or Datetime in UTC where cells have a time; null for what is no such date.

    Dates in ISO form mean one thing only and are read whatever the form of the others.
    """
    found = datetimes_in_form(words, name)
    left = words.set(found.is_not_null(), None)
    if left.null_count() == len(left):
        return found
    return one_type([found, _iso_datetimes(left), datetimes_in_form(left, "iso date")])


def one_type(parts: Sequence[pl.Series]) -> pl.Series:
    """(N,) the first that is not null, as Date where none has a time."""
    some = [part for part in parts if part.null_count() < len(part)] or [parts[0]]
    if any(part.dtype != pl.Date for part in some):
        utc = pl.Datetime("us", "UTC")
        some = [
            part.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            if part.dtype == pl.Date
            else part.cast(utc)
            for part in some
        ]
    found = some[0]
    for part in some[1:]:
        found = found.fill_null(part)
    return found


def datetimes_in_form(words: pl.Series, name: str) -> pl.Series:
    """(N,) Date, or Datetime in UTC where cells have a time; null for what is not in this form."""
    if name == "iso":
        return _iso_datetimes(words)
    _, form, shape = next(each for each in FORMS if each[0] == name)
    timed = words.str.contains(_TIME)
    if timed.any():
        day = words.str.replace(_TIME, "")
        clock = words.str.extract(_TIME)
        days = day.set(~day.str.contains(shape), None).str.to_datetime(form, strict=False)
        seconds = _seconds(clock.fill_null("0:00"))
        return days.dt.replace_time_zone("UTC") + seconds
    return words.set(~words.str.contains(shape), None).str.to_date(form, strict=False)


def _seconds(clock: pl.Series) -> pl.Series:
    parts = clock.str.split(":").list
    hours, minutes = (parts.get(n).cast(pl.Float64, strict=False) for n in (0, 1))
    rest = parts.get(2, null_on_oob=True).cast(pl.Float64, strict=False).fill_null(0.0)
    sound = (hours < 24) & (minutes < 60) & (rest < 60)
    total = (hours * 3600 + minutes * 60 + rest).set(~sound, None)
    return (total * 1_000_000).cast(pl.Int64).cast(pl.Duration("us"))


def _iso_datetimes(words: pl.Series) -> pl.Series:
    cells = words.set(~words.str.contains(_ISO), None)
    cells = cells.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    cells = cells.str.replace(r"T(\d{2}:\d{2})($|[+-])", "T${1}:00$2")
    zoned = cells.str.contains(r"[+-]\d{2}:?\d{2}$")
    cells = pl.select(
        pl.when(pl.Series(zoned)).then(pl.Series(cells)).otherwise(pl.Series(cells) + "+00:00")
    ).to_series()
    return cells.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_zone="UTC")


def typed_dates(column: pl.Series) -> pl.Series:
    """(N,) Date, or Datetime in UTC, of a column that is stored as one; null for other types."""
    if column.dtype == pl.Date:
        return column
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is None:
            return column.dt.replace_time_zone("UTC")
        return column.dt.convert_time_zone("UTC")
    return pl.Series(column.name, [None], pl.Date).new_from_index(0, len(column))
