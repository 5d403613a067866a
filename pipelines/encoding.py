"""The Encoder protocol and the payloads that encoders are given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipelines.samples import Kind


@dataclass(frozen=True)
class Waveform:
    """Sound: samples (T,) float32 in [-1, 1], mono, at `rate` Hz."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Frames:
    """Video: the number of frames it has, and RGB pictures by frame number, decoded when asked."""

    path: str
    count: int
    rate: float


Record = Mapping[str, object]  # one row of a table: numbers, strings, dates; None where missing
Series = NDArray[np.float32]  # (T, V) values over time, NaN where missing
# A payload is an RGB PIL.Image.Image, a str (text, code), a Waveform, Frames, a Record or a Series.


class Unreadable(Exception):  # noqa: N818 - it names a state of a sample, not a fault of ours
    """A sample that cannot be decoded or encoded; costs exactly its own cell.

    Attributes:
        reason: one short word for tables, such as `truncated`, `empty`, `missing-file`,
            `wrong-type`, `bomb`, `non-finite`.
        detail: a sentence with the particulars.
        transient: True where trying again may help (input/output, network).
    """

    def __init__(self, reason: str, detail: str = "", transient: bool = False) -> None:  # noqa: FBT001, FBT002 - exceptions pickle by position
        super().__init__(reason, detail, transient)
        self.reason, self.detail, self.transient = reason, detail, transient

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@runtime_checkable
class Encoder(Protocol):
    """A frozen map from payloads to vectors; built cheaply, loaded when first used.

    A module in `pipelines/encoders/` has a constant `KINDS: dict[Kind, int | None]` (kind to width,
    None where it depends on options or data) that is read without importing the module, and
    `build(*, weights=None, device="cpu", dtype="auto", model=None, sequence=False, **own options)`.
    Building must not import torch: `fields()` alone decides whether a cached stream is still good.

    Attributes:
        name: the module's name, first part of a stream's name.
        kinds: the kinds it serves, with the width D of each, or None until it is fitted.
        storage: dtype of the stored values; float16 for pretrained encoders, float32 for others.
        sequence: whether `encode` gives (T_i, D) a sample instead of (D,).
        weights: where the numbers come from, for the tag of every result.
    """

    name: str
    kinds: Mapping[Kind, int | None]
    storage: Literal["float16", "float32"]
    sequence: bool
    weights: Literal["pretrained", "weight-free", "random"]

    def fields(self, kind: Kind) -> dict[str, object]:
        """What made the vectors, as JSON: weights digest, preprocessing, options, version.

        Never a path, a branch name, a date, a device or a library version.
        """

    def provenance(self) -> dict[str, object]:
        """What else to record as JSON: library versions, device, actual dtype, licence."""

    def prepare(self, kind: Kind, payload: Any) -> tuple[Any, int]:  # noqa: ANN401
        """Payload → what the model eats (numpy or str, picklable) and its cost; runs in workers.

        The cost is the length that padding goes by (tokens, samples); 1 where all are equal.

        Raises:
            Unreadable: for a payload that decoded but cannot be used.
        """

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared items → float vectors (D,), or (T_i, D) with `sequence`, in order.

        A row may not depend on its neighbours beyond cosine 0.99999 in float32.
        """


@runtime_checkable
class FittedEncoder(Encoder, Protocol):
    """An encoder with statistics of training rows; `fitted_on` joins its fingerprint."""

    def fit(self, kind: Kind, payloads: Sequence[Any]) -> dict[str, object]:
        """Learn from training payloads; returns the state as JSON, kept beside the stream."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Take up a state that `fit` returned, for new rows and for resuming."""
