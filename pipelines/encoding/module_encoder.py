"""Encoders of a few lines: a module with `KINDS`, `VERSION` and a function `encode(batch)`.

All other parts of the `Encoder` protocol have defaults here. A module that needs options, weights
or a device of its own has a function `build` instead.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind

Weights = Literal["pretrained", "weight-free", "random"]


@dataclass(frozen=True)
class ModuleEncoder:
    """The functions of a module as an encoder.

    The module has `KINDS` (kind → width D), `VERSION` (raise it when the code changes) and
    `encode(batch)`: payloads of one kind → (B, D) numbers. It may have `prepare(payload)`, which
    runs in worker processes, and `WEIGHTS` (`pretrained` or `random`; else `weight-free`).
    """

    module: str  # its name in sys.modules, so that the encoder can be pickled
    name: str
    version: int
    widths: tuple[tuple[Kind, int], ...]
    weights: Weights = "weight-free"
    storage: Literal["float16", "float32"] = "float32"
    sequence: bool = False

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """The module's `KINDS`."""
        return dict(self.widths)

    def fields(self, kind: Kind) -> dict[str, object]:
        """The module's name and `VERSION`: the code itself is not part of the identity."""
        return {"encoder": self.name, "version": self.version}

    def provenance(self) -> dict[str, object]:
        """Nothing beyond what identifies the vectors."""
        return {}

    def prepare(self, kind: Kind, payload: Any) -> tuple[Any, int]:  # noqa: ANN401
        """The payload, or what the module's `prepare` makes of it; the cost is 1."""
        function = getattr(self._functions, "prepare", None)
        return (payload if function is None else function(payload)), 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared payloads → (D,) float32 each.

        Raises:
            MmfuseError: where the module's `encode` does not give one row of numbers an input.
        """
        rows = np.asarray(self._functions.encode(list(batch)), np.float32)
        if rows.ndim != 2 or len(rows) != len(batch):
            raise MmfuseError(
                f"{self.name}: encode gave shape {rows.shape} for {len(batch)} inputs; "
                "it must give one row of numbers each"
            )
        return list(rows)

    @property
    def _functions(self) -> ModuleType:
        return importlib.import_module(self.module)


def from_module(module: ModuleType, name: str) -> ModuleEncoder:
    """A module without `build` as an encoder.

    Raises:
        MmfuseError: for a module that lacks `KINDS` or `VERSION`.
    """
    kinds, version = getattr(module, "KINDS", None), getattr(module, "VERSION", None)
    if not isinstance(kinds, dict) or not isinstance(version, int):
        raise MmfuseError(
            f"{name}: beside encode(batch) a module needs KINDS, such as {{'image': 64}}, "
            "and VERSION, such as 1"
        )
    weights: Weights = getattr(module, "WEIGHTS", "weight-free")
    return ModuleEncoder(module.__name__, name, version, tuple(kinds.items()), weights)
