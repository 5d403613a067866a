"""The Encoder protocol, the optional parts of an encoder, and `build_encoder`."""

import contextlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard, runtime_checkable

from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from cache.samples import Kind
from pipelines import catalog
from pipelines.device import check_device, check_dtype
from pipelines.encoding.module_encoder import from_module

if TYPE_CHECKING:
    from pipelines.encoding.hub import Download

STORAGE = "auto|float16|float32"  # words for the dtype of the stored values
PARTS = (  # that every encoder must have, see `Encoder`
    "name", "kinds", "storage", "sequence", "weights", "fields", "provenance", "prepare", "encode"
)  # fmt: skip
Storage = Literal["float16", "float32"]
BUILD_CALL = "build_encoder"  # key in the provenance of a stream, see `BuildCall`
_BUILD_CALL = "_mmfuse_build_call"  # attribute of an encoder that `build_encoder` made


# A payload is an RGB PIL.Image.Image, a str (text, code), a Waveform, Frames, a Record or a Series.
# An image with transparent pixels has its alpha channel in info["alpha"], see `images.on_white`.
# Of Frames, `video.decode_frames` gives images; fields() then holds `pretrained.video_fields`.


@runtime_checkable
class Encoder(Protocol):
    """A frozen map from payloads to vectors; built cheaply, loaded when first used.

    A module in `pipelines/encoders/` has a constant `KINDS: dict[Kind, int | None]` (kind to width
    without options, None where data or the model tell) that is read without importing the module,
    and `build`, whose keyword-only arguments are those of `model`, `weights`, `device`, `dtype` and
    `sequence` that mean something to it, and options of its own.
    Building must not import torch: `fields()` alone decides whether a cached stream is still good.
    Optional parts are protocols of their own, each found by one function below: `Downloads`
    (`download_of`), `Truncates` (`truncations`), `HasNotes` (`notes_of`) and `FittedEncoder`
    (`is_fitted_encoder`).

    Attributes:
        name: the module's name, first part of a stream's name.
        kinds: the kinds it serves, with the width D of each, or None until it is fitted.
        storage: dtype of the stored values; float16 for pretrained encoders, float32 for others.
        sequence: whether `encode` gives (T_i, D) a sample instead of (D,).
        weights: where the weights come from; every result is tagged with it.
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
        """What the vectors depend on, as JSON: weights digest, preprocessing, options, version.

        Never a path, a branch name, a date, a device or a library version, save that of the
        decoder of videos.
        """

    def provenance(self) -> dict[str, object]:
        """Further facts to record, as JSON: library versions, device, actual dtype, licence."""

    def prepare(self, kind: Kind, payload: Any) -> tuple[Any, int]:  # noqa: ANN401
        """Payload → model input (numpy or str, picklable) and its cost; runs in worker processes.

        The cost is the length that is padded (tokens, samples); 1 where all are equally long.

        Raises:
            Unreadable: for a payload that decoded but cannot be used.
        """

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared items → float vectors (D,), or (T_i, D) with `sequence`, in order.

        A row's vector must not depend on its batch: cosine of at least 0.99999 in float32.
        """


@runtime_checkable
class Downloads(Protocol):
    """Optional part of an encoder: it fetches weights; without it nothing is ever fetched."""

    def download(self) -> "Download | None":
        """What is still to be fetched before the first batch; None where all of it is here."""


@runtime_checkable
class Truncates(Protocol):
    """Optional part of an encoder: it may cut long inputs; without it none counts as cut."""

    def truncated(self, item: Any) -> bool:  # noqa: ANN401
        """Whether a prepared item lacks some of its input because that was too long."""


@runtime_checkable
class HasNotes(Protocol):
    """Optional part of an encoder: it has remarks on its weights; without it there are none."""

    def notes(self) -> Sequence[str]:
        """Sentences to show after an extraction, such as what was assumed of plain weights."""


@runtime_checkable
class KnowsCategories(Protocol):
    """Optional part of a fitted encoder: it says which words of categories it does not know."""

    def unknown_words(self, rows: Sequence[Any]) -> Mapping[str, tuple[int, str]]:
        """By column, how many cells hold an unknown word, and the first of them."""


@runtime_checkable
class FittedEncoder(Encoder, Protocol):
    """An encoder with statistics of training rows; `fitted_on` joins its fingerprint."""

    def fit(self, kind: Kind, payloads: Sequence[Any]) -> dict[str, object]:
        """Learn from training payloads; returns the state as JSON, stored with the stream."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Load a state that `fit` returned, for new rows and for resuming."""


@dataclass(frozen=True)
class BuildCall:
    """The `build_encoder` call that made an encoder, recorded with each of its streams.

    Attributes:
        word: the encoder word, such as `clip:ViT-B-16/openai`.
        options: the encoder's own options, as plain JSON.
    """

    word: str
    options: dict[str, Any]

    @classmethod
    def of_stream(cls, provenance: Mapping[str, object]) -> "BuildCall | None":
        """The call in a stream's provenance; None in streams encoded before it was recorded."""
        match provenance.get(BUILD_CALL):
            case {"word": str(word), "options": dict(options)}:
                return cls(word, options)
        return None


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
    """Build the encoder that a word of the command line names; nothing is loaded yet.

    Args:
        word: a name (`pixels`), a name and a model (`clip:ViT-B-16/openai`, `pixels:hog`), either
            with the tag `random` for random weights (`resnet/random`, `timm:resnet50/random`), or
            a path to a module (`./mine.py`).
        weights: path of local weights, instead of the model's published ones: a folder, or a plain
            weights file of the model that the word names.
        device: where it encodes: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: compute dtype: `auto` (half precision on GPUs, float32 on CPUs), `float32`, …
        sequence: a sequence of vectors a sample instead of one.
        storage: dtype of the stored values: `auto` (the encoder's own), `float16` or `float32`.
        memory: the home's file of weights digests and golden probes.
        options: the encoder's own. Weight-free encoders ignore device, dtype and memory.

    Raises:
        MmfuseError: for an unknown encoder, an option that it does not have, or a `build` that
            does not return an encoder.
    """
    check_device(device)
    check_dtype(dtype)
    name, model = catalog.split_encoder_word(word)
    module = catalog.find("encoders", name)
    build = getattr(module, "build", None) or partial(from_module, module, Path(name).stem)
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
            f"{word}: build() returned {type(encoder).__name__}, which is not an encoder: "
            f"it has no {', '.join(missing)}"
        )
    built = with_storage(encoder, storage)
    # An attribute, so that any class may be an encoder; object's own setter serves frozen ones too.
    # Options that are not JSON and classes with slots cannot be recorded: then there is no call.
    with contextlib.suppress(TypeError, AttributeError):
        call = BuildCall(word, json.loads(json.dumps(options)))
        object.__setattr__(built, _BUILD_CALL, call)
    return built


def build_call(encoder: Encoder) -> BuildCall | None:
    """The `build_encoder` call that made an encoder; None where none is recorded.

    It is not part of the fingerprint, and `dataclasses.replace` drops it: it is no longer true.
    """
    call: BuildCall | None = getattr(encoder, _BUILD_CALL, None)
    return call


def with_storage(encoder: Encoder, storage: str) -> Encoder:
    """The encoder with another dtype of the stored values; `auto` keeps its own.

    Raises:
        MmfuseError: for a dtype that cannot be stored, or an encoder that has no choice.
    """
    if storage == "bfloat16":
        raise MmfuseError(
            "bfloat16 cannot be stored: Zarr has no such dtype. float16 takes the same space and "
            "is eight times finer; float32 holds every bfloat16 exactly: --storage float32"
        )
    if not re.fullmatch(STORAGE, storage):
        raise unknown("stored dtype", storage, STORAGE.split("|"))
    if storage in ("auto", encoder.storage):
        return encoder
    if not is_dataclass(encoder) or "storage" not in {own.name for own in fields(encoder)}:
        raise MmfuseError(f"encoder {encoder.name} is always stored as {encoder.storage}")
    other: Encoder = replace(encoder, storage=storage)
    return other


def is_fitted_encoder(encoder: Encoder) -> TypeGuard[FittedEncoder]:
    """Whether an encoder has statistics of training rows."""
    return hasattr(encoder, "fit") and hasattr(encoder, "restore")


def download_of(encoder: Encoder) -> "Download | None":
    """What an encoder is still to fetch; None for one that fetches nothing."""
    return encoder.download() if isinstance(encoder, Downloads) else None


def notes_of(encoder: Encoder) -> tuple[str, ...]:
    """An encoder's remarks on its weights."""
    return tuple(encoder.notes()) if isinstance(encoder, HasNotes) else ()


def truncations(encoder: Encoder, items: Sequence[Any]) -> list[bool]:
    """Whether each prepared item was cut for its length; all False for one that cuts nothing."""
    if not isinstance(encoder, Truncates):
        return [False] * len(items)
    return [bool(encoder.truncated(item)) for item in items]
