"""Streams: the key, description and values of one encoder's features of one modality."""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.layout import check_modality_name, check_name

PENDING, OK, ABSENT, FAILED = 0, 1, 2, 3  # values of the array `state`
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class StreamKey:
    """Identity of a stream, whatever its rows: encoder, fingerprint and modality."""

    encoder: str
    fingerprint: str
    modality: str

    @property
    def name(self) -> str:
        """`clip/image`, as on the command line."""
        return f"{self.encoder}/{self.modality}"

    @property
    def label(self) -> str:
        """`clip-1a2b3c4d/image`, with the fingerprint."""
        return f"{self.encoder}-{self.fingerprint[:8]}/{self.modality}"


@dataclass(frozen=True)
class StreamSpec:
    """What an encoder produces from a modality.

    Attributes:
        kind: kind of the modality.
        width: D.
        dtype: of the stored values, float16 or float32.
        sequence: whether a row is (T_i, D) instead of (D,).
        fields: the inputs of the fingerprint.
        provenance: further facts to record; `weights` is pretrained, weight-free or random.
    """

    kind: str
    width: int
    dtype: str
    sequence: bool
    fields: Mapping[str, object]
    provenance: Mapping[str, object]


@dataclass(frozen=True)
class StreamInfo:
    """The current state of a stream of a dataset.

    Attributes:
        key: encoder, fingerprint, modality.
        kind, width, dtype, sequence, fields, provenance: as in `StreamSpec`.
        rows: N.
        counts: rows that are ok, absent, failed and pending.
        complete: whether no row is pending and all are readable.
        snapshot: id of the samples that the rows belong to.
        generation: counts from 1; changed rows or order make a new one.
        path: the Zarr group.
    """

    key: StreamKey
    kind: str
    width: int
    dtype: str
    sequence: bool
    fields: Mapping[str, object]
    provenance: Mapping[str, object]
    rows: int
    counts: dict[str, int]
    complete: bool
    snapshot: str
    generation: int
    path: Path


@dataclass(frozen=True)
class StreamValues:
    """All rows of a stream.

    Attributes:
        values: (N, D), or (sum T, D) of a sequence stream; NaN where a row is not present.
        offsets: (N + 1,) int64 of a sequence stream, else None; row i is values[o[i]:o[i + 1]].
        present: (N,) bool.
        state: (N,) uint8: 0 pending, 1 ok, 2 absent, 3 failed.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64] | None
    present: NDArray[np.bool_]
    state: NDArray[np.uint8]


def check_key(key: StreamKey) -> None:
    """Check a key: names that can be path parts, and a full fingerprint.

    Raises:
        MmfuseError: for another name or fingerprint.
    """
    if "/" in check_name("encoder", key.encoder):
        raise MmfuseError(f"encoder {key.encoder!r} must not contain '/'")
    check_modality_name(key.modality)
    if len(key.fingerprint) != 64 or set(key.fingerprint) - set("0123456789abcdef"):
        raise MmfuseError(f"{key.name}: a fingerprint is 64 hex digits, not {key.fingerprint!r}")


STATES = ("pending", "ok", "absent", "failed")  # by their number in the array `state`


def count_states(state: NDArray[np.uint8]) -> dict[str, int]:
    """Number of rows in each state, by the state's name."""
    numbers = np.bincount(state, minlength=len(STATES))
    return {name: int(n) for name, n in zip(STATES, numbers, strict=True)}


def resolve(
    dataset: str, streams: Sequence[StreamInfo], words: Sequence[str] | None
) -> list[StreamInfo]:
    """The complete streams that the words name, in their order, each once; commas separate words.

    Raises:
        MmfuseError: for a word that matches none, or several fingerprints of one name, or streams
            of different samples.
    """
    if words is None:
        found = [info for info in streams if info.complete]
        if not found:
            raise _none(dataset, streams, None)
        _refuse_several_fingerprints(dataset, found)
    else:
        found = []
        for word in (part for listed in words for part in listed.split(",") if part):
            means = [i for i in streams if i.complete and _matches(word, i)]
            if not means:
                raise _none(dataset, streams, word)
            _refuse_several_fingerprints(dataset, means)
            found += [info for info in means if info not in found]
    _refuse_several_snapshots(dataset, found)
    return found


def display_names(infos: Sequence[StreamInfo]) -> list[str]:
    """Names of streams: `clip/image`, or the label where several have the same name."""
    plain = [info.key.name for info in infos]
    return [
        name if plain.count(name) == 1 else info.key.label
        for info, name in zip(infos, plain, strict=True)
    ]


def _matches(word: str, info: StreamInfo) -> bool:
    encoder, _, modality = word.partition("/")
    key = info.key
    return encoder in {key.encoder, key.label.partition("/")[0]} and modality in {"", key.modality}


def _none(dataset: str, streams: Sequence[StreamInfo], word: str | None) -> MmfuseError:
    half = [i for i in streams if not i.complete and (word is None or _matches(word, i))]
    if half:
        info = half[0]
        what = f"{info.key.label} of {dataset} is not complete"
        done = info.rows - info.counts["pending"]
        command = f"mmfuse extract --dataset {dataset} --encoder {info.key.encoder}"
        return MmfuseError(f"{what} ({done} of {info.rows} rows); to resume, run: {command}")
    encoder = "ENCODER" if word is None else word.partition("/")[0].partition("-")[0]
    command = f"mmfuse extract --dataset {dataset} --encoder {encoder}"
    known = sorted(i.key.name for i in streams if i.complete)
    there = f" (there are: {', '.join(known)})" if known else ""
    asked = "" if word is None else f" for {word}"
    encoders = {info.key.encoder for info in streams}
    near = difflib.get_close_matches(word or "", sorted({*known, *encoders}), n=1)
    if near and encoder not in encoders:  # a mistyped name: there is no such encoder to run
        return MmfuseError(f"no features of {dataset}{asked}; did you mean {near[0]}?{there}")
    return MmfuseError(f"no features of {dataset}{asked}{there}; run: {command}")


def _refuse_several_fingerprints(dataset: str, found: Sequence[StreamInfo]) -> None:
    named = defaultdict(list)
    for info in found:
        named[info.key.name].append(info)
    for name, several in named.items():
        if len(several) > 1:
            lines = "".join(f"\n  {i.key.label}{_differing(i, several)}" for i in several)
            raise MmfuseError(
                f"{dataset} has {len(several)} streams {name}; name one of them with "
                f"--features:{lines}"
            )


def _differing(info: StreamInfo, several: Sequence[StreamInfo]) -> str:
    words = [
        f"{field}={value}"
        for field, value in sorted(info.fields.items())
        if any(other.fields.get(field) != value for other in several)
    ]
    return f"  ({', '.join(words)})" if words else ""


def _refuse_several_snapshots(dataset: str, found: Sequence[StreamInfo]) -> None:
    if len({info.snapshot for info in found}) < 2:
        return
    lines = "".join(f"\n  {i.key.label}: {i.rows} rows, samples {i.snapshot[:8]}" for i in found)
    encoders = " ".join(f"--encoder {e}" for e in sorted({i.key.encoder for i in found}))
    alike = ",".join(i.key.name for i in found if i.snapshot == found[-1].snapshot)
    raise MmfuseError(
        f"these streams of {dataset} belong to different samples, so their rows do not match:"
        f"{lines}\nrun: mmfuse extract --dataset {dataset} {encoders}, or name some of the same "
        f"samples: --features {alike}"
    )
