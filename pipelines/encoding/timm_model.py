"""A frozen timm model without its head, for pictures and films; described by its config.json."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.device import pick_device, pick_dtype
from pipelines.encoding import pretrained
from pipelines.encoding.encoder import Storage
from pipelines.encoding.hub import Download
from pipelines.encoding.model_files import ModelFiles
from pipelines.media.decode import pictures
from pipelines.media.images import Preprocess, frame_numbers, pixels

if TYPE_CHECKING:
    import torch

VERSION = 1
# What timm takes where a model's configuration is silent.
_MEAN, _STD, _CROP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875
_MODES: dict[str, Literal["shortest", "longest", "squash"]] = {
    "center": "shortest", "border": "longest", "squash": "squash",
}  # fmt: skip


@dataclass(frozen=True)
class TimmModel:
    """Pooled features before the classifier; films by the maximum over `frames` pictures."""

    name: str
    folder: ModelFiles
    frames: int
    sequence: bool
    device: str
    dtype: str
    storage: Storage = "float16"

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """`image` and `video` → the number of features its configuration states.

        Raises:
            MmfuseError: without weights.
        """
        width = self._config.get("num_features")
        if not isinstance(width, int):
            raise MmfuseError(f"{self.name}: its config.json does not state num_features")
        return {"image": width, "video": width}

    @property
    def weights(self) -> Literal["pretrained", "random"]:
        """Whether the model was ever trained, read off its normalisation layers."""
        return self.folder.tag or pretrained.trained_or_random(self._model)

    def fields(self, kind: Kind) -> dict[str, object]:
        """Weights by sha256, architecture, what is done to pictures, and the compute dtype."""
        made: dict[str, object] = {
            "encoder": self.name,
            "version": VERSION,
            "weights": {file.name: file.sha256 for file in self.folder.weights},
            "model": {key: self._config.get(key) for key in ("architecture", "model_args")},
            "preprocess": self._preprocess.fields(),
            "sequence": self.sequence,
            "compute": self.dtype,
            "storage": self.storage,
        }
        return made | ({"frames": self.frames, "decoder": "pyav"} if kind == "video" else {})

    def provenance(self) -> dict[str, object]:
        """Repository, libraries, and once loaded where and in what it ran."""
        told: dict[str, object] = {
            "repository": self.folder.repository or None,
            "versions": pretrained.versions("timm", "torch", "pillow"),
        }
        if "_model" in self.__dict__:
            told |= {"device": str(self._device), "dtype": str(self._dtype)}
        return told

    def download(self) -> Download | None:
        """What is to be fetched before the first batch; None where all of it is here."""
        return self.folder.download

    def prepare(self, kind: Kind, payload: Any) -> tuple[NDArray[np.uint8], int]:  # noqa: ANN401
        """Picture → (H, W, 3) uint8, film → (T, H, W, 3); the cost is the number of pictures."""
        if kind == "image":
            return pixels(payload, self._preprocess), 1
        shown = pictures(payload, frame_numbers(payload.count, self.frames))
        film = np.stack([pixels(picture, self._preprocess) for picture in shown])
        return film, len(film)

    def encode(self, kind: Kind, batch: Sequence[NDArray[np.uint8]]) -> list[NDArray[Any]]:
        """Prepared pictures → (D,) float32 each; with `sequence` (T, D), T = 1 but for video."""
        memory = self.folder.memory
        if kind == "image" and memory.path is not None and kind not in self._probed:
            self._probed.add(kind)
            item, _ = self.prepare(kind, pretrained.probe_payload(kind))
            pretrained.check_probe(self, kind, self._encode(kind, [item])[0].reshape(-1), memory)
        return self._encode(kind, batch)

    def __getstate__(self) -> dict[str, object]:
        """Without the loaded model: workers prepare, they do not encode."""
        kept: dict[str, object] = {own.name: getattr(self, own.name) for own in fields(self)}
        if "_preprocess" in self.__dict__:
            kept["_preprocess"] = self._preprocess
        return kept

    def _encode(self, kind: Kind, batch: Sequence[NDArray[np.uint8]]) -> list[NDArray[Any]]:
        found = self._run(self._model, kind, list(batch))
        return pretrained.again_in_float32(
            found, lambda places: self._run(self._exact, kind, [batch[p] for p in places])
        )

    def _run(self, model: Any, kind: Kind, batch: list[NDArray[np.uint8]]) -> list[NDArray[Any]]:  # noqa: ANN401
        import torch

        shown = [picture for film in batch for picture in film] if kind == "video" else batch
        with torch.inference_mode():
            values = pretrained.normalised(shown, self._preprocess, self._device)
            values = values.to(next(model.parameters()).dtype)
            vectors = model(values)
            if vectors.shape[1] != self.kinds[kind]:  # a head with a hidden layer: before that
                vectors = model.forward_features(values).mean(dim=(2, 3))
            rows = pretrained.to_rows(vectors)
        if kind == "video":
            return pretrained.pool_frames(
                rows, [len(film) for film in batch], sequence=self.sequence
            )
        return pretrained.as_single_frames(rows, sequence=self.sequence)

    @property
    def _config(self) -> dict[str, Any]:
        return self.folder.described("config.json")

    @cached_property
    def _probed(self) -> set[Kind]:
        return set()

    @cached_property
    def _preprocess(self) -> Preprocess:
        """As timm resolves it for inference."""
        config = self._config.get("pretrained_cfg", self._config)
        height, width = config.get("input_size", (3, 224, 224))[1:]
        part = config.get("crop_pct") or _CROP
        mode = _MODES.get(config.get("crop_mode") or "center", "shortest")
        mean = tuple(config.get("mean") or _MEAN)
        return Preprocess(
            size=(height, width),
            mode=mode,
            scale=(math.floor(height / part), math.floor(width / part)),
            interpolation=config.get("interpolation") or "bicubic",
            mean=mean,
            std=tuple(config.get("std") or _STD),
            fill=tuple(round(255 * v) for v in mean) if mode == "longest" else (0, 0, 0),
        )

    @cached_property
    def _device(self) -> "torch.device":
        return pick_device(self.device)

    @property
    def _dtype(self) -> "torch.dtype":
        return pick_dtype(self.dtype, self._device)

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401 - timm's models share no useful type
        import timm

        place = self.folder.path
        try:
            model = timm.create_model(f"local-dir:{place}", pretrained=True, num_classes=0)
        except (RuntimeError, ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise MmfuseError(f"{self.name}: {place} cannot be loaded: {first}") from error
        model = model.eval().requires_grad_(requires_grad=False)
        return model.to(self._device, self._dtype)

    @cached_property
    def _exact(self) -> Any:  # noqa: ANN401
        """The model in float32, for what overflows in half precision."""
        return copy.deepcopy(self._model).float()
