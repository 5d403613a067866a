"""Nested columns of a table: the fields of objects become columns of their own."""

from collections.abc import Collection

import polars as pl

from cache.errors import MmfuseError
from pipelines.data.mixed_cells import MIXED


def flattened(frame: pl.DataFrame, where: str, keep: Collection[str] = ()) -> pl.DataFrame:
    """The table with each field of a nested object as a column `outer.inner`, at any depth.

    Objects that hold encoded media (`bytes`, as Hugging Face stores them) stay whole.

    Args:
        frame: the table.
        where: its name, for the message.
        keep: names of columns that stay as they are.

    Raises:
        MmfuseError: where such a column has the name of another one.
    """
    while names := {c.name for c in frame if c.name not in keep and _is_object(c.dtype)}:
        columns: list[pl.Series] = []
        for column in frame:
            if column.name not in names:
                columns.append(column)
                continue
            inner = column.struct.unnest()
            columns += [part.alias(f"{column.name}.{part.name}") for part in inner]
        found = [column.name for column in columns]
        if twice := {name for name in found if found.count(name) > 1}:
            raise MmfuseError(f"{where}: two columns are named {min(twice)!r}; rename one of them")
        frame = pl.DataFrame(columns)
    return frame


def is_media(dtype: pl.DataType) -> bool:
    """Whether cells are objects of encoded bytes and the name of their file."""
    return isinstance(dtype, pl.Struct) and "bytes" in {field.name for field in dtype.fields}


def _is_object(dtype: pl.DataType) -> bool:
    is_struct = isinstance(dtype, pl.Struct) and bool(dtype.fields)
    return is_struct and dtype != MIXED and not is_media(dtype)
