"""A timm model without its classifier as an encoder of images and videos."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.pretrained import (
    FolderEncoder,
    encode_images,
    image_pixels,
    normalize_pixels,
    to_rows,
    video_fields,
)
from pipelines.media.images import Preprocess

# timm's defaults for what a model's config.json leaves out.
_MEAN, _STD, _CROP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875
_MODES: dict[str, Literal["shortest", "longest", "squash"]] = {
    "center": "shortest", "border": "longest", "squash": "squash",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TimmModel(FolderEncoder):
    """Pooled features before the classifier; a video is the maximum over `frames` of its images."""

    frames: int = 15

    VERSION: ClassVar[int] = 1
    LIBRARIES: ClassVar[tuple[str, ...]] = ("timm", "torch", "pillow")
    PICKLED: ClassVar[tuple[str, ...]] = ("_preprocess",)

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

    def fields(self, kind: Kind) -> dict[str, object]:
        """Weights by sha256, architecture, preprocessing of images, and the compute dtype."""
        return {
            **self._common_fields(),
            "model": {key: self._config.get(key) for key in ("architecture", "model_args")},
            "preprocess": self._preprocess.fields(),
            **video_fields(kind, self.frames),
        }

    def prepare(self, kind: Kind, payload: Any) -> tuple[NDArray[np.uint8], int]:  # noqa: ANN401
        """Image → (H, W, 3) uint8, video → (T, H, W, 3); the cost is the number of images."""
        return image_pixels(kind, payload, self._preprocess, self.frames)

    def _run(
        self,
        model: Any,  # noqa: ANN401 - timm's models share no useful type
        kind: Kind,
        batch: Sequence[NDArray[np.uint8]],
    ) -> list[NDArray[Any]]:
        def run(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
            values = normalize_pixels(images, self._preprocess, self._device)
            values = values.to(next(model.parameters()).dtype)
            vectors = model(values)
            if vectors.shape[1] != self.kinds[kind]:  # a head with a hidden layer: before that
                vectors = model.forward_features(values).mean(dim=(2, 3))
            return to_rows(vectors)

        return encode_images(run, kind, batch, sequence=self.sequence)

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

    def _load(self) -> Any:  # noqa: ANN401
        import timm

        place = self.folder.path
        try:
            model = timm.create_model(f"local-dir:{place}", pretrained=True, num_classes=0)
        except (RuntimeError, ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise MmfuseError(f"{self.name}: {place} cannot be loaded: {first}") from error
        model = model.eval().requires_grad_(requires_grad=False)
        return model.to(self._device, self._dtype)
