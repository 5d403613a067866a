"""Fitted baselines beside a dataset's features, so that another command need not fit them again."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.layout import DatasetPaths, Home
from cache.storage.objects import DamagedError, get_record, put_record


@dataclass(frozen=True)
class Baselines:
    """Stored models of one dataset: named arrays and numbers, by a digest of what they depend on.

    Attributes:
        home: where.
        dataset: whose features they were fitted on.
        streams: fingerprints of those; `cache gc` deletes models whose streams are gone.
    """

    home: Home
    dataset: str
    streams: Sequence[str]

    def get(self, key: str) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]] | None:
        """Arrays and numbers of a model; None where there is none, or it is damaged."""
        try:
            found = get_record(self._paths.baselines / f"{key}.json")
        except DamagedError:
            return None
        if found is None:
            return None
        return {name: _array(*one) for name, one in found["arrays"].items()}, found["numbers"]

    def put(
        self, key: str, arrays: Mapping[str, NDArray[np.float32]], numbers: Mapping[str, float]
    ) -> None:
        """Store a model.

        Raises:
            MmfuseError: where the store cannot be written.
        """
        packed = {
            name: [list(a.shape), base64.b64encode(a.astype("<f4").tobytes()).decode()]
            for name, a in arrays.items()
        }
        record = {"arrays": packed, "numbers": dict(numbers), "streams": sorted(self.streams)}
        put_record(self._paths.baselines / f"{key}.json", record, self._paths.scratch)

    @property
    def _paths(self) -> DatasetPaths:
        return DatasetPaths.of(self.home, self.dataset)


def _array(shape: list[int], data: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(data), "<f4").reshape(shape).astype(np.float32)
