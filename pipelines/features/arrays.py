"""Cached features as arrays: one stream of a dataset in one call; torch only if asked for."""

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo, StreamValues
from cache.layout import Home
from cache.samples import SPLITS, Samples

if TYPE_CHECKING:
    import polars as pl

Split = Literal["train", "val", "test"]
FORMS = ("numpy", "torch", "polars")


@dataclass(frozen=True, repr=False)
class Features:
    """Features of one stream, row for row in the order of the dataset.

    Attributes:
        stream: its label, such as `pixels-8ff27c86/image`.
        values: (N, D) float32, NaN where a row is not present; of a sequence stream (N, T, D),
            zeros behind the end of each row and in rows that are not present.
        present: (N,) bool, whether a row has features.
        lengths: (N,) int64 frames of each row of a sequence stream, else None.
        ids: (N,) of the samples.
        splits: (N,) train, val, test or "".
        targets: (N,) class numbers or values, or (N, C) zeros and ones of labels.
    """

    stream: str
    values: Any  # NDArray[np.float32], or a Tensor; so are the others but ids and splits
    present: Any
    lengths: Any
    ids: NDArray[np.object_]
    splits: NDArray[np.object_]
    targets: Any

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.values.shape))
        return f"Features({self.stream}: {shape}, {int(self.present.sum())} present)"


@overload
def features(
    dataset: str,
    stream: str,
    *,
    home: Home | str | PathLike[str] | None = None,
    as_: Literal["numpy", "torch"] = "numpy",
    split: Split | None = None,
) -> Features: ...


@overload
def features(
    dataset: str,
    stream: str,
    *,
    home: Home | str | PathLike[str] | None = None,
    as_: Literal["polars"],
    split: Split | None = None,
) -> "pl.DataFrame": ...


def features(
    dataset: str,
    stream: str,
    *,
    home: Home | str | PathLike[str] | None = None,
    as_: Literal["numpy", "torch", "polars"] = "numpy",
    split: Split | None = None,
) -> "Features | pl.DataFrame":
    """The features of one stream of a dataset, with ids, splits and targets.

    Args:
        dataset: name of a dataset with features under this home.
        stream: `pixels/image`, `pixels` where it has one stream, a label with the fingerprint, or
            the beginning of one of these that no other stream has.
        home: where features are; default: `./artifacts`.
        as_: `numpy`; `torch`, tensors on the CPU; or `polars`, a data frame with the columns id,
            split, target (names of classes or labels, or a value) and features, lists that are null
            where a row is not present.
        split: rows of this split alone; None: all.

    Raises:
        MmfuseError: for an unknown dataset, stream or split, with the nearest known one; for a
            word that means several streams; or where the cache is damaged.
    """
    place = Home.of(home)
    if dataset not in place.datasets():
        raise unknown("dataset with features", dataset, place.datasets())
    if as_ not in FORMS:
        raise unknown("form of features", as_, FORMS)
    if split is not None and split not in SPLITS:
        raise unknown("split", split, SPLITS)
    store = FeatureStore(place, dataset)
    info = find_stream(store, stream)
    samples, found = store.samples(info), store.whole(info.key)
    rows = np.flatnonzero(samples.splits == split) if split else np.arange(len(samples))
    if as_ == "polars":
        return _frame(found, samples, rows)
    values, lengths = found.values.astype(np.float32), None
    if found.offsets is not None:
        values, _ = pad(found.values, found.offsets)
        lengths = np.diff(found.offsets)[rows]
    arrays = values[rows], found.present.astype(bool)[rows], lengths, samples.targets[rows]
    if as_ == "torch":
        import torch

        arrays = tuple(a if a is None else torch.from_numpy(a) for a in arrays)  # type: ignore[assignment]
    values, present, lengths, targets = arrays
    return Features(
        info.key.label,
        values,
        present,
        lengths,
        samples.ids[rows],
        samples.splits[rows],
        targets,
    )


def find_stream(store: FeatureStore, word: str) -> StreamInfo:
    """The one complete stream that a word names or begins.

    Raises:
        MmfuseError: for none (with the nearest), or several.
    """
    infos = [info for info in store.streams() if info.complete]
    names = {name for info in infos for name in (info.key.name, info.key.label)}
    encoders = {name.partition("/")[0] for name in names}
    if not infos or word in names | encoders:
        found = store.resolve([word])
    else:
        found = [i for i in infos if i.key.name.startswith(word) or i.key.label.startswith(word)]
    if not word or not found:
        raise unknown(f"stream of {store.dataset}", word, {info.key.name for info in infos})
    if len(found) > 1:
        several = ", ".join(info.key.label for info in found)
        raise MmfuseError(f"{store.dataset} has several streams {word}: {several}; name one")
    return found[0]


def pad(
    values: NDArray[np.floating], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pad concatenated sequences: (N, T, D) float32, zeros after each end, and (N, T) bool.

    Args:
        values: (sum T, D).
        offsets: (N + 1,) start and end of each row's sequence.
    """
    lengths = np.diff(offsets)
    longest = max(1, int(lengths.max(initial=1)))
    there = np.arange(longest) < lengths[:, None]  # (N, T)
    padded = np.zeros((len(lengths), longest, values.shape[1]), np.float32)
    padded[there] = values[offsets[0] : offsets[-1]]
    return padded, there


def _frame(found: StreamValues, samples: Samples, rows: NDArray[np.int64]) -> "pl.DataFrame":
    import polars as pl

    vectors = pl.Series("features", found.values.astype(np.float32))
    if found.offsets is not None:
        lengths = np.diff(found.offsets)
        frames = pl.DataFrame({"row": np.repeat(np.arange(len(lengths)), lengths)})
        listed = frames.with_columns(vectors).group_by("row", maintain_order=True).agg("features")
        numbered = pl.DataFrame({"row": np.arange(len(lengths))})
        joined = numbered.join(listed, on="row", how="left", maintain_order="left")
        vectors = joined["features"]
    names = np.array(samples.task.names, object)
    match samples.task.kind:
        case "classes":
            targets = names[np.asarray(samples.targets)].tolist()
        case "labels":
            targets = [names[row > 0].tolist() for row in np.asarray(samples.targets)]
        case _:
            targets = samples.targets.tolist()
    frame = pl.DataFrame(
        {
            "id": samples.ids.tolist(),
            "split": samples.splits.tolist(),
            "target": targets,
            "features": vectors,
        }
    )
    present = pl.Series(found.present.astype(bool))
    return frame.with_columns(pl.when(present).then(pl.col("features")).alias("features"))[rows]
