"""Explaining: which fields of its fingerprint keep a cached stream from being the one asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

from cache.feature_store import FeatureStore
from cache.format.streams import StreamInfo, StreamKey


@dataclass(frozen=True)
class Difference:
    """One field; `None` where a side lacks it."""

    field: str
    stored: object
    asked: object


@dataclass(frozen=True)
class Explanation:
    """Why a stream has to be encoded.

    Attributes:
        key: what was asked for.
        nearest: the cached stream that differs least, or None where there is none to compare.
        differences: the fields that differ; empty where the stream is there.
    """

    key: StreamKey
    nearest: StreamInfo | None
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        if self.nearest is None:
            return f"{self.key.name}: nothing of {self.key.encoder} is cached for this dataset"
        if not self.differences:
            state = "is cached" if self.nearest.complete else "is begun, not complete"
            return f"{self.key.label} {state}"
        words = "; ".join(f"{d.field}: {d.stored!r} → {d.asked!r}" for d in self.differences)
        return f"{self.key.label} differs from {self.nearest.key.label} in {words}"


def explain(store: FeatureStore, key: StreamKey, fields: Mapping[str, object]) -> Explanation:
    """Compare what is asked for with the nearest cached stream of the same encoder.

    Args:
        store: of the dataset.
        key: what is asked for.
        fields: what its fingerprint is made of.
    """
    streams = [info for info in store.streams() if info.key.encoder == key.encoder]
    if not streams:
        return Explanation(key, None, ())
    nearest = min(
        streams,
        key=lambda info: (
            info.key.modality != key.modality,
            len(differences(info.fields, fields)),
            info.key.label,
        ),
    )
    found = differences(nearest.fields, fields)
    if nearest.key.modality != key.modality:
        found = (Difference("modality", nearest.key.modality, key.modality), *found)
    return Explanation(key, nearest, found)


def differences(
    stored: Mapping[str, object], asked: Mapping[str, object]
) -> tuple[Difference, ...]:
    """Fields that are not equal, by name; fields inside fields as `outer.inner`."""
    left, right = _flat(stored), _flat(asked)
    return tuple(
        Difference(name, left.get(name), right.get(name))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name) or (name in left) != (name in right)
    )


def _flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found
