"""Base classes of encoders with weights: load on first use, encode, and check a golden probe."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from cache.samples import Kind
from cache.storage.weight_digests import WeightsMemory
from pipelines.device import check_dtype, exact_float32, pick_device, pick_dtype, to_device
from pipelines.encoding.encoder import Storage
from pipelines.encoding.hub import Download
from pipelines.encoding.model_files import ModelFiles
from pipelines.media.images import Preprocess, resize_and_crop
from pipelines.media.payloads import Waveform
from pipelines.media.video import decode_frames

if TYPE_CHECKING:
    import torch

VIDEO_DECODING = 2  # version of how frames are chosen and shown: by time, turned, square pixels
AGREE = 0.999  # lowest cosine of a golden probe, on any device and in any compute dtype


@dataclass(frozen=True, kw_only=True)
class PretrainedEncoder(ABC):
    """Base of encoders with weights; a subclass says how its model is loaded and run.

    The model is loaded when first used and is left out when the encoder is pickled for workers.

    Attributes:
        name: first part of a stream's name.
        device: word for where it encodes, see `pick_device`.
        dtype: word for the compute dtype, see `pick_dtype`.
        sequence: whether `encode` gives (T, D) a sample.
        storage: dtype of the stored values.
    """

    name: str
    device: str
    dtype: str
    sequence: bool = False
    storage: Storage = "float16"

    VERSION: ClassVar[int]  # of the encoder, in its fingerprint
    LIBRARIES: ClassVar[tuple[str, ...]]  # whose versions are recorded
    PICKLED: ClassVar[tuple[str, ...]] = ()  # cached properties that workers get as well

    def __post_init__(self) -> None:
        """Check the compute dtype."""
        check_dtype(self.dtype)

    @abstractmethod
    def fields(self, kind: Kind) -> dict[str, object]:
        """What the vectors depend on, as JSON; see `Encoder.fields`."""

    @abstractmethod
    def prepare(self, kind: Kind, payload: Any) -> tuple[Any, int]:  # noqa: ANN401
        """Payload → prepared item and its cost; see `Encoder.prepare`."""

    def notes(self) -> tuple[str, ...]:
        """What was assumed of plain weights, and what random ones are good for; mostly nothing."""
        plain, random = self._plain, self._is_random
        if random:
            return (f"{self.name}: random weights: fit for timing, not for accuracy",)
        if plain is None:
            return ()
        return (f"{self.name}: {'; '.join([f'{plain.name} {self._assumed}', *self._remarks])}",)

    def provenance(self) -> dict[str, object]:
        """Source, library versions, and once loaded the device and the actual dtype."""
        found = {**self._source(), "versions": versions(*self.LIBRARIES)}
        if "_model" in self.__dict__:
            found |= {"device": str(self._device), "dtype": str(self._dtype)}
        return found

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Prepared items → (D,) float32 each, or (T, D) with `sequence`.

        The first batch of a kind checks the golden probe; videos are checked as images are.

        Raises:
            MmfuseError: where the probe's vector differs from the recorded one.
        """
        if kind != "video" and self._memory.path is not None and kind not in self._probed:
            self._probed.add(kind)
            item, _ = self.prepare(kind, probe_payload(kind))
            vector = self._encode(kind, [item])[0]
            self._check_probe(kind, vector if vector.ndim == 1 else vector.mean(axis=0))
        return self._encode(kind, batch)

    def __getstate__(self) -> dict[str, object]:
        """Without the loaded model: workers prepare, they do not encode."""
        state: dict[str, object] = {own.name: getattr(self, own.name) for own in fields(self)}
        return state | {n: self.__dict__[n] for n in self.PICKLED if n in self.__dict__}

    @property
    @abstractmethod
    def _memory(self) -> WeightsMemory:
        """Where digests and golden probes are recorded."""

    @abstractmethod
    def _source(self) -> dict[str, object]:
        """Where the weights come from, for `provenance`."""

    @property
    @abstractmethod
    def _plain(self) -> Path | None:
        """A plain weights file, which something else describes; or None."""

    @property
    @abstractmethod
    def _is_random(self) -> bool:
        """Whether the weights are random ones from a fixed seed."""

    @property
    @abstractmethod
    def _assumed(self) -> str:
        """What a plain weights file was taken for, as the end of a sentence."""

    @abstractmethod
    def _load(self) -> Any:  # noqa: ANN401 - the libraries' models share no useful type
        """The model in evaluation mode, on `_device` and in `_dtype`."""

    @abstractmethod
    def _run(self, model: Any, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:  # noqa: ANN401
        """One forward pass; `model` is the loaded one or its copy in float32."""

    def _run_exact(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Items that overflowed in half precision, in float32."""
        return self._forward(self._exact, kind, batch)

    def _encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        rows = self._forward(self._model, kind, batch)
        bad = [place for place, row in enumerate(rows) if not np.isfinite(row).all()]
        if bad:
            exact = self._run_exact(kind, [batch[place] for place in bad])
            for place, row in zip(bad, exact, strict=True):
                rows[place] = row
        return rows

    def _forward(self, model: Any, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:  # noqa: ANN401
        import torch

        with torch.inference_mode(), exact_float32():
            return self._run(model, kind, batch)

    def _check_probe(self, kind: Kind, vector: NDArray[np.float32]) -> None:
        """Compare a fixed input's vector with the one recorded when these weights first loaded.

        The record's key is the stream's fingerprint, which holds the weights' sha256: the same
        weights, preprocessing and options must give the same vector whatever was updated since.

        Args:
            kind: of the input.
            vector: (D,) of `probe_payload(kind)`.

        Raises:
            MmfuseError: below a cosine of 0.999.
        """
        key = f"{fingerprint(self.fields(kind))}/{kind}"
        before = self._memory.probe(key)
        if before is None:
            self._memory.record(key, vector)
            return
        cosine = float(before @ vector / (np.linalg.norm(before) * np.linalg.norm(vector)))
        if not cosine >= AGREE:
            raise MmfuseError(
                f"{self.name}: the same weights gave another vector for the same {kind} before "
                f"(cosine {cosine:.4f}); a library has changed what it computes "
                f"({self.provenance().get('versions')}). Go back to its earlier version, or delete "
                f"the record: {self._memory.path}"
            )

    def _common_fields(self) -> dict[str, object]:
        """The part of `fields` that every encoder with weights has."""
        return {
            "encoder": self.name,
            "version": self.VERSION,
            "sequence": self.sequence,
            "compute": self.dtype,
            "storage": self.storage,
        }

    @cached_property
    def _probed(self) -> set[Kind]:
        return set()

    @cached_property
    def _remarks(self) -> list[str]:
        """Sentences on how a plain weights file was read, once it is."""
        return []

    @cached_property
    def _device(self) -> "torch.device":
        return pick_device(self.device)

    @property
    def _dtype(self) -> "torch.dtype":
        return pick_dtype(self.dtype, self._device)

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401
        return self._load()

    @cached_property
    def _exact(self) -> Any:  # noqa: ANN401
        """The model in float32, for what overflows in half precision."""
        return copy.deepcopy(self._model).float()


@dataclass(frozen=True, kw_only=True)
class FolderEncoder(PretrainedEncoder):
    """Base of encoders whose model is one folder with a config.json, local or on the hub."""

    folder: ModelFiles

    @property
    def weights(self) -> Literal["pretrained", "random"]:
        """Whether the model was ever trained, read off its normalisation layers."""
        return self.folder.tag or trained_or_random(self._model)

    def download(self) -> Download | None:
        """What is to be fetched before the first batch; None where all of it is here."""
        return self.folder.download

    @property
    def _memory(self) -> WeightsMemory:
        return self.folder.memory

    @property
    def _plain(self) -> Path | None:
        return self.folder.plain

    @property
    def _is_random(self) -> bool:
        return self.folder.random

    @property
    def _config(self) -> dict[str, Any]:
        return self.folder.described("config.json")

    def _source(self) -> dict[str, object]:
        plain = {"file": self.folder.plain.name} if self.folder.plain else {}
        return {"repository": self.folder.repository or None, **plain}

    def _common_fields(self) -> dict[str, object]:
        return super()._common_fields() | {"weights": self.folder.identity}


def to_rows(values: "torch.Tensor") -> NDArray[np.float32]:
    """A device tensor → float32 on the host, which holds every compute dtype exactly."""
    import torch

    return values.detach().to(torch.float32).cpu().numpy()


def image_pixels(
    kind: Kind,
    payload: Any,  # noqa: ANN401
    preprocess: Preprocess,
    frames: int,
) -> tuple[NDArray[np.uint8], int]:
    """Image → (H, W, 3) uint8, video → (T, H, W, 3) of `frames` images; the cost is T or 1."""
    if kind == "image":
        return resize_and_crop(payload, preprocess), 1
    shown = decode_frames(payload, frames)  # one at a time: large frames are never all in memory
    video = np.stack([resize_and_crop(image, preprocess) for image in shown])
    return video, len(video)


def normalize_pixels(
    images: list[NDArray[np.uint8]], preprocess: Preprocess, device: "torch.device"
) -> "torch.Tensor":
    """Pixels → (B, 3, H, W) float32 on the device, scaled to 0 … 1, then by mean and std."""
    import torch

    values = to_device(np.stack(images), device)  # (B, H, W, 3) uint8
    values = values.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    mean, std = (
        torch.tensor(constants, device=device)[:, None, None]
        for constants in (preprocess.mean, preprocess.std)
    )
    return values.sub_(mean).div_(std)


def encode_images(
    run: Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]],
    kind: Kind,
    batch: Sequence[NDArray[np.uint8]],
    *,
    sequence: bool,
) -> list[NDArray[np.float32]]:
    """Pixels of images or videos → (D,) a sample, or (T, D) with `sequence`.

    Args:
        run: pixels of images → (images, D).
        kind: `image`, or `video`, whose images are encoded one by one and then pooled.
        batch: of `image_pixels`.
        sequence: a vector for each image instead of one a sample.
    """
    if kind != "video":
        return as_single_frames(run(list(batch)), sequence=sequence)
    rows = run([image for video in batch for image in video])
    return pool_frames(rows, [len(video) for video in batch], sequence=sequence)


def pool_frames(
    rows: NDArray[np.float32], counts: Sequence[int], *, sequence: bool
) -> list[NDArray[np.float32]]:
    """Vectors of videos' images (images, D) → the maximum (D,) a video, or (T, D)."""
    videos = np.split(rows, np.cumsum(counts)[:-1])
    return videos if sequence else [video.max(axis=0) for video in videos]


def as_single_frames(rows: NDArray[np.float32], *, sequence: bool) -> list[NDArray[np.float32]]:
    """(B, D) → (D,) a sample, or (1, D) where the encoder's streams are sequences."""
    return [row[None] if sequence else row for row in rows]


def video_fields(kind: Kind, frames: int) -> dict[str, object]:
    """What the fingerprint of video has besides that of images: frames, decoder and its version.

    Decoders of video differ from version to version, unlike those of images.
    """
    if kind != "video":
        return {}
    try:
        decoder = f"pyav {version('av')}"
    except PackageNotFoundError:  # every video fails with no-decoder
        decoder = "pyav"
    return {"frames": frames, "decoder": decoder, "decoding": VIDEO_DECODING}


def trained_or_random(model: "torch.nn.Module") -> Literal["pretrained", "random"]:
    """`random` if no normalisation layer was ever trained: `hub.weights_tag` of a loaded model."""
    names = dict(model.named_parameters())
    norms = {n: p for n, p in names.items() if n.endswith(".weight") and p.ndim == 1}
    for name, values in norms.items():
        if not (bool((values == 1).all()) or bool((values == 0).all())):
            return "pretrained"
        bias = names.get(name.removesuffix("weight") + "bias")
        if bias is not None and bool(bias.any()):
            return "pretrained"
    return "random" if norms else "pretrained"


def probe_payload(kind: Kind) -> Any:  # noqa: ANN401
    """A fixed input of a kind, made by a formula so that it is the same on every machine."""
    if kind in ("text", "code"):
        return "def area(radius): return 3.14159 * radius ** 2  # a circle, in square metres"
    if kind == "audio":
        moments = np.arange(16000, dtype=np.float64) / 16000
        return Waveform(
            (0.4 * np.sin(2 * np.pi * (200 + 600 * moments) * moments)).astype("f4"), 16000
        )
    from PIL import Image

    rows, columns = np.mgrid[0:256, 0:320]
    channels = [(rows + columns) % 256, (rows * columns // 64) % 256, (3 * columns) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def versions(*libraries: str) -> dict[str, str]:
    """Installed versions by name, without importing anything."""
    return {library: version(library) for library in libraries}
