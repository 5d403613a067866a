"""The Encoder protocol and the payloads that encoders are given."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from cache.samples import Kind
from pipelines import catalog
from pipelines.device import check_device, check_dtype

STORAGE = "auto|float16|float32"  # words for what is kept of it
PARTS = (  # of every encoder, see `Encoder`
    "name", "kinds", "storage", "sequence", "weights", "fields", "provenance", "prepare", "encode"
)  # fmt: skip
Storage = Literal["float16", "float32"]


# A payload is an RGB PIL.Image.Image, a str (text, code), a Waveform, Frames, a Record or a Series.


@runtime_checkable
class Encoder(Protocol):
    """A frozen map from payloads to vectors; built cheaply, loaded when first used.

    A module in `pipelines/encoders/` has a constant `KINDS: dict[Kind, int | None]` (kind to width
    without options, None where data or the model tell) that is read without importing the module,
    and `build`, whose keyword-only arguments are those of `model`, `weights`, `device`, `dtype` and
    `sequence` that mean something to it, and options of its own.
    Building must not import torch: `fields()` alone decides whether a cached stream is still good.
    May also have `download()`, what is to be fetched first (`downloading.Download`) or None, and
    `truncated(item)`, whether some of a prepared input was left out for its length.

    Attributes:
        name: the module's name, first part of a stream's name.
        kinds: the kinds it serves, with the width D of each, or None until it is fitted.
        storage: dtype of the stored values; float16 for pretrained encoders, float32 for others.
        sequence: whether `encode` gives (T_i, D) a sample instead of (D,).
        weights: where the numbers come from, for the tag of every result.
    """

    # Properties, so that a frozen dataclass fits as well as any other object.
    @property
    def name(self) -> str: ...  # noqa: D102 - see Attributes
    @property
    def kinds(self) -> Mapping[Kind, int | None]: ...  # noqa: D102
    @property
    def storage(self) -> Storage: ...  # noqa: D102
    @property
    def sequence(self) -> bool: ...  # noqa: D102
    @property
    def weights(self) -> Literal["pretrained", "weight-free", "random"]: ...  # noqa: D102

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


def build_encoder(
    word: str,
    *,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    storage: str = "auto",
    memory: Path | None = None,
    **options: object,
) -> Encoder:
    """The encoder that a word of the command line names; nothing is loaded yet.

    Args:
        word: a name (`pixels`), a name and a model (`clip:ViT-B-16/openai`, `pixels:hog`), or a
            path to a module (`./mine.py`).
        weights: path of local weights, instead of the model's published ones.
        device: where it encodes: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: what it computes in: `auto` (half precision on GPUs, float32 on CPUs), `float32`, …
        sequence: a sequence of vectors a sample instead of one.
        storage: dtype of the stored values: `auto` (the encoder's own), `float16` or `float32`.
        memory: the home's file of weights' digests and golden probes.
        options: the encoder's own. One without weights has no use for device, dtype and memory.

    Raises:
        MmfuseError: for an unknown encoder, an option that it does not have, or a `build` that
            gives something else than an encoder.
    """
    check_device(device)
    check_dtype(dtype)
    name, _, model = (word, "", "") if word.endswith(".py") else word.partition(":")
    build = catalog.find("encoders", name).build
    known = set(inspect.signature(build).parameters)
    given: dict[str, object] = {"model": model, "weights": weights, "sequence": sequence}
    places: dict[str, object] = {"device": device, "dtype": dtype, "memory": memory}
    asked = options | {key: value for key, value in given.items() if value}
    asked |= {key: value for key, value in places.items() if key in known}
    for key in asked:
        if key not in known:
            have = ", ".join(sorted(known - set(places))) or "none"
            raise MmfuseError(f"encoder {name} has no option {key} (its options: {have})")
    encoder: Encoder = build(**asked)
    there = set(dir(encoder))  # hasattr would read properties, some of which need the weights
    missing = [part for part in PARTS if part not in there]
    if missing:
        raise MmfuseError(
            f"{word}: build() gave {type(encoder).__name__}, which is no encoder: "
            f"it has no {', '.join(missing)}"
        )
    return with_storage(encoder, storage)


def with_storage(encoder: Encoder, storage: str) -> Encoder:
    """The encoder with another dtype of the stored values; `auto` leaves it its own.

    Raises:
        MmfuseError: for a dtype that cannot be stored, or an encoder that has no choice.
    """
    if storage == "bfloat16":
        raise MmfuseError(
            "bfloat16 cannot be stored: Zarr has no such dtype. float16 takes the same room and "
            "is eight times finer; float32 holds every bfloat16 exactly: --storage float32"
        )
    if not re.fullmatch(STORAGE, storage):
        raise unknown("stored dtype", storage, STORAGE.split("|"))
    if storage in ("auto", encoder.storage):
        return encoder
    if not is_dataclass(encoder) or "storage" not in {own.name for own in fields(encoder)}:
        raise MmfuseError(f"encoder {encoder.name} is stored as {encoder.storage}, without choice")
    other: Encoder = replace(encoder, storage=storage)
    return other


def is_fitted_encoder(encoder: Encoder) -> TypeGuard[FittedEncoder]:
    """Whether an encoder has statistics of training rows."""
    return hasattr(encoder, "fit") and hasattr(encoder, "restore")
