"""Nested columns of a table: the fields of objects become columns of their own."""

from collections.abc import Collection

import polars as pl

from cache.errors import MmfuseError
from pipelines.data.values.mixed_cells import MIXED

_NAMES = (pl.String, pl.Categorical, pl.Enum, pl.Null)  # types of file names


def flattened(frame: pl.DataFrame, where: str, keep: Collection[str] = ()) -> pl.DataFrame:
    """The table with each field of a nested object as a column `outer.inner`, at any depth.

    Objects that hold encoded media (binary `bytes`, as Hugging Face stores them) stay whole.

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
    """Whether cells are objects of encoded bytes and the name of their file.

    Their field `bytes` is binary; where no cell has any, they have no fields but `bytes` and
    `path`. A number or a word called `bytes` is a field like any other.
    """
    fields = dtype.fields if isinstance(dtype, pl.Struct) else []
    types = {field.name: field.dtype for field in fields}
    if types.get("path", pl.String) not in _NAMES:
        return False
    return types.get("bytes") == pl.Binary or (
        types.get("bytes") == pl.Null and types.keys() <= {"bytes", "path"}
    )


def _is_object(dtype: pl.DataType) -> bool:
    is_struct = isinstance(dtype, pl.Struct) and bool(dtype.fields)
    return is_struct and dtype != MIXED and not is_media(dtype)
