"""Samples: ids, splits, targets and groups of a dataset's rows, and their snapshots on disk."""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import DatasetPaths
from cache.storage.objects import content_digest, get_record, put, put_record

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["image", "text", "audio", "video", "code", "tabular", "series", "layout"]
KINDS: tuple[Kind, ...] = (
    "image", "text", "audio", "video", "code", "tabular", "series", "layout",
)  # fmt: skip
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Modality:
    """A named column of a dataset; the name is a word of the command line and a path part."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Task:
    """What is predicted.

    `classes`: one of C, cross-entropy; `labels`: any of C, each on its own; `value`: one number.
    `names` are the class or label names in logit order; for `value`, the name of the target.
    """

    kind: Literal["classes", "labels", "value"]
    names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Width C of the logits; 1 for `value`."""
        return 1 if self.kind == "value" else len(self.names)


@dataclass(frozen=True)
class Samples:
    """The rows of a dataset as stage 2 sees them, in the dataset's order.

    Attributes:
        ids: (N,) unique strings, object dtype.
        splits: (N,) of `train`, `val`, `test` or "" (in no split), object dtype.
        targets: (N,) int64 class numbers, (N, C) float32 zeros and ones for `labels`,
            (N,) float64 for `value`.
        groups: (N,) strings that keep rows together in folds, or None.
        task: what is predicted.
        modalities: every modality of the dataset, encoded or not.
        source: `real` or `synthetic` data.
    """

    ids: NDArray[np.object_]
    splits: NDArray[np.object_]
    targets: NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]
    groups: NDArray[np.object_] | None
    task: Task
    modalities: tuple[Modality, ...]
    source: Literal["real", "synthetic"]

    def __len__(self) -> int:
        return len(self.ids)


def snapshot_id(samples: Samples) -> str:
    """16 hex digits that change with any id, split, target, group, task or modality, or order."""
    modalities = json.dumps(_description(samples)["modalities"])
    return hashlib.blake2b((core_id(samples) + modalities).encode()).hexdigest()[:16]


def core_id(samples: Samples) -> str:
    """The same without the modalities: snapshots that share it have the same rows."""
    description = {k: v for k, v in _description(samples).items() if k != "modalities"}
    state = hashlib.blake2b(json.dumps(description, sort_keys=True).encode())
    for column in (samples.ids, samples.splits, samples.groups):
        words = [] if column is None else [str(word) for word in column.tolist()]
        state.update(str(None if column is None else len(words)).encode())
        state.update("\0".join(words).encode())
    state.update(str((samples.targets.dtype.str, samples.targets.shape)).encode())
    state.update(np.ascontiguousarray(samples.targets).tobytes())
    return state.hexdigest()[:16]


def write_snapshot(samples: Samples, paths: DatasetPaths) -> str:
    """Keep the samples as parquet and JSON, once; returns the id that streams name them by."""
    import polars as pl

    name = snapshot_id(samples)
    record = paths.snapshots / f"{name}.json"
    if record.exists():
        return name
    columns = {
        "id": pl.Series(samples.ids.tolist(), dtype=pl.String),
        "split": pl.Series(samples.splits.tolist(), dtype=pl.String),
        "target": pl.Series(values=samples.targets),
    }
    if samples.groups is not None:
        columns["group"] = pl.Series(samples.groups.tolist(), dtype=pl.String)
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer, compression="zstd", statistics=False)
    put(paths.snapshots / f"{name}.parquet", buffer.getbuffer(), paths.scratch)
    digest = content_digest(buffer.getbuffer())
    about = {**_description(samples), "core": core_id(samples), "table": digest}
    put_record(record, about, paths.scratch)
    return name


def snapshot_modalities(name: str, paths: DatasetPaths) -> tuple[str, tuple[Modality, ...]]:
    """Core and modalities of a snapshot, without its rows; ("", ()) if there is none.

    Raises:
        Damaged: if its record is not what was written.
    """
    record = get_record(paths.snapshots / f"{name}.json")
    if record is None:
        return "", ()
    return record["core"], tuple(Modality(m, kind) for m, kind in record["modalities"])


def snapshot_task(name: str, paths: DatasetPaths) -> str:
    """The kind of task of a snapshot, without its rows; "" if there is none.

    Raises:
        Damaged: if its record is not what was written.
    """
    record = get_record(paths.snapshots / f"{name}.json")
    return "" if record is None else str(record["task"])


def read_snapshot(name: str, paths: DatasetPaths) -> Samples:
    """The samples that were kept under an id.

    Raises:
        MmfuseError: if there are none, or their bytes are not what was written.
    """
    import polars as pl

    record = get_record(paths.snapshots / f"{name}.json")
    table = paths.snapshots / f"{name}.parquet"
    if record is None or not table.exists():
        raise MmfuseError(f"{table} is missing; run the extract command of this dataset again")
    data = table.read_bytes()
    if content_digest(data) != record["table"]:
        raise MmfuseError(f"{table} is damaged; run the extract command of this dataset again")
    frame = pl.read_parquet(io.BytesIO(data))
    task = Task(record["task"], tuple(record["names"]))
    return Samples(
        ids=_words(frame["id"]),
        splits=_words(frame["split"]),
        targets=frame["target"].to_numpy(),
        groups=_words(frame["group"]) if "group" in frame.columns else None,
        task=task,
        modalities=tuple(Modality(m, kind) for m, kind in record["modalities"]),
        source=record["source"],
    )


def _description(samples: Samples) -> dict[str, object]:
    return {
        "task": samples.task.kind,
        "names": list(samples.task.names),
        "modalities": [[m.name, m.kind] for m in samples.modalities],
        "source": samples.source,
    }


def _words(column: "pl.Series") -> NDArray[np.object_]:
    words = np.empty(len(column), object)
    words[:] = column.to_list()
    return words
