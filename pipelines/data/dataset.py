"""The Dataset class: raw samples, one polars row each, with their splits and targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import check_modality_name, check_name
from cache.samples import SPLITS, UNLABELLED, Modality, Samples, Task
from pipelines.data.values.column_types import ColumnType


@dataclass(frozen=True)
class Dataset:
    """A named table of samples, validated when it is built.

    Attributes:
        name: used on the command line and in paths, such as `mug/pkm_t1`.
        table: one row a sample. `id` (String, unique), `split` (String: train, val, test, or ""),
            `target` (Int64 class number | List(Int64) label numbers | Float64; null only in rows of
            no split), optionally `group` (String), and one column a modality; null = absent. Cells
            by kind: image, audio, video: a path relative to `root` (String) or the encoded bytes
            (Binary); text, code: the text itself (String); tabular: a Struct of numbers, strings
            and dates; series: List(Float32) or List(List(Float32)), time first.
        modalities: the modality columns, in order.
        task: what `target` means.
        root: folder that paths are relative to; `a/b.png` is looked for below it, else as the
            member `a/b.png` of `a.zip` there.
        source: real or synthetic data.
        licence: one line that exported features carry (`cache pack`).
        origin: for the user's own data: what it was read from and how, see `origins`.
        columns: modality → columns of the table that it was made of, where that is known.
        column_types: modality → column → how its cells were read, for `tabular` and `series` of
            several columns; fitted encoders keep it, so that new rows are read the same way.
    """

    name: str
    table: pl.DataFrame
    modalities: tuple[Modality, ...]
    task: Task
    root: Path | None = None
    source: Literal["real", "synthetic"] = "real"
    licence: str = ""
    origin: Mapping[str, object] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    column_types: Mapping[str, Mapping[str, ColumnType]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names, unique ids, known splits, and a target that varies."""
        check_name("dataset", self.name)
        for modality in self.modalities:
            check_modality_name(modality.name)
            if modality.name not in self.table.columns:
                raise MmfuseError(f"{self.name}: no column for modality {modality.name!r}")
        if not len(self.table):
            raise MmfuseError(f"{self.name}: the table has no rows")
        ids = self.table["id"]
        if ids.null_count() or ids.n_unique() != len(ids):
            twice = self.table.filter(ids.is_duplicated())["id"].head(3).to_list()
            raise MmfuseError(f"{self.name}: sample ids are not unique, for example {twice}")
        strange = set(self.table["split"].unique()) - {*SPLITS, ""}
        if strange:
            words = sorted(map(str, strange))
            raise MmfuseError(f"{self.name}: unknown split {words}; use {', '.join(SPLITS)}")
        for split in SPLITS:
            if not (self.table["split"] == split).any():
                raise MmfuseError(f"{self.name}: the {split} split is empty")
        train = self.table.filter(pl.col("split") == "train")["target"]
        if lacking := len(self.table.filter((pl.col("split") != "") & pl.col("target").is_null())):
            raise MmfuseError(f"{self.name}: {lacking} rows lack a target")
        if train.n_unique() < 2:
            raise MmfuseError(f"{self.name}: the target has only one value in the train split")

    def samples(self) -> Samples:
        """The same rows as arrays, for training and evaluation."""
        target = self.table["target"]
        if self.task.kind == "labels":
            targets = np.zeros((len(target), self.task.outputs), np.float32)
            for row, labels in enumerate(target.to_list()):
                targets[row, labels or []] = 1
        elif self.task.kind == "classes":
            targets = target.fill_null(UNLABELLED).to_numpy().astype(np.int64)
        else:
            targets = target.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)
        groups = self.table["group"] if "group" in self.table.columns else None
        return Samples(
            ids=np.array(self.table["id"].to_list(), object),
            splits=_words(self.table["split"]),
            targets=targets,
            groups=None if groups is None else np.array(groups.to_list(), object),
            task=self.task,
            modalities=self.modalities,
            source=self.source,
        )


def _words(column: pl.Series) -> NDArray[np.object_]:
    """A column of few distinct words as objects; equal words share one object."""
    found = np.empty(len(column), object)
    for word in column.unique().to_list():
        found[(column == word).to_numpy()] = word
    return found
