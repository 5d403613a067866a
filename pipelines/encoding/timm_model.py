"""A timm model without its classifier as an encoder of images and videos."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from cache.storage.weight_digests import WeightsMemory
from pipelines.encoding.model_files import CONFIG, WEIGHTS, find_model_files, proposal
from pipelines.encoding.pretrained import (
    FolderEncoder,
    encode_images,
    image_pixels,
    normalize_pixels,
    to_rows,
    video_fields,
)
from pipelines.encoding.weights import is_path, load_weights, seeded
from pipelines.media.images import Preprocess

# timm's defaults for what a model's config.json leaves out.
_MEAN, _STD, _CROP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875
_MODES: dict[str, Literal["shortest", "longest", "squash"]] = {
    "center": "shortest", "border": "longest", "squash": "squash",
}  # fmt: skip
# What timm states of an architecture and is needed to build it and to prepare its images.
_STATED = (
    "tag", "input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean",
    "std", "num_classes", "pool_size", "first_conv", "classifier",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TimmModel(FolderEncoder):
    """Pooled features before the classifier; a video is the maximum over `frames` of its images.

    Attributes:
        architecture: timm's name of it, which describes random and plain weights; or "".
        frames: evenly spaced images taken of a video.
    """

    architecture: str = ""
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
            raise MmfuseError(
                f"{self.name}: {self.folder.name}: its config.json does not state num_features"
                f"{self._proposal(self._config)}"
            )
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

    @property
    def _config(self) -> dict[str, Any]:
        folder = self.folder
        if folder.is_stated:
            return describe(self.name, self.architecture, folder.memory)
        if folder.local is not None and not (folder.local / CONFIG).is_file():
            raise MmfuseError(f"{self.name}: {folder.local} holds no {CONFIG}{self._proposal({})}")
        return folder.described(CONFIG)

    @property
    def _assumed(self) -> str:
        preprocess, config = self._preprocess, self._config
        stated = config.get("pretrained_cfg", config)
        whose = ".".join(str(word) for word in (config["architecture"], stated.get("tag")) if word)
        height, width = preprocess.size
        return (
            f"read as {config['architecture']}, with the preprocessing of {whose}: {height} × "
            f"{width} pixels, {preprocess.interpolation}, crop {stated.get('crop_pct') or _CROP:g}"
        )

    def _proposal(self, config: Mapping[str, Any]) -> str:
        """The config.json that a folder lacks, if the architecture is named."""
        own = config.get("architecture")  # without it, the file is not one of timm
        architecture = own if isinstance(own, str) else self.architecture
        if not architecture:
            return f"; name its architecture, --encoder {self.name}:NAME, to see one"
        known = describe(self.name, architecture, self.folder.memory)
        kept = config if own == architecture else {}
        return proposal(CONFIG, {**known, **kept, "num_features": known["num_features"]})

    def _load(self) -> Any:  # noqa: ANN401
        model = self._built() if self._is_random or self._plain else self._loaded()
        return model.eval().requires_grad_(requires_grad=False).to(self._device, self._dtype)

    def _built(self) -> Any:  # noqa: ANN401
        """The architecture with random weights, or those of a plain file."""
        config = self._config
        with seeded():
            if self.folder.is_stated:
                model = create(self.name, self.architecture)
            else:
                more = config.get("model_args") or {}
                stated = config.get("pretrained_cfg")
                model = create(self.name, config["architecture"], pretrained_cfg=stated, **more)
        if self._plain is not None:
            heads = config.get("pretrained_cfg", config).get("classifier") or ()
            remark = load_weights(
                self.name,
                self._plain,
                model,
                config["architecture"],
                heads=[heads] if isinstance(heads, str) else heads,
                hint=f"name its architecture, --encoder {self.name}:NAME",
            )
            self._remarks.extend([remark] if remark else [])
        return model

    def _loaded(self) -> Any:  # noqa: ANN401
        """The model of a folder."""
        import timm

        place = self.folder.path
        try:
            return timm.create_model(f"local-dir:{place}", pretrained=True, num_classes=0)
        except (RuntimeError, ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise MmfuseError(f"{self.name}: {place} cannot be loaded: {first}") from error


def find_timm(
    encoder: str, name: str, weights: str | None, memory: Path | None, *, random: bool
) -> dict[str, Any]:
    """The files of a timm model, and its architecture, as arguments of `TimmModel`.

    Args:
        encoder: its name, for messages.
        name: NAME or NAME.TAG of timm, org/name of the hub, a folder, or "".
        weights: a folder, or a plain weights file.
        memory: file of digests.
        random: whether to take random weights.

    Raises:
        MmfuseError: see `find_model_files`.
    """
    own = name.removeprefix("timm/")
    architecture = "" if "/" in own or is_path(own) else own
    by_name = bool(architecture) and (
        random or (weights is not None and Path(weights).expanduser().is_file())
    )
    repository = f"timm/{architecture}" if architecture else name
    folder = find_model_files(
        encoder,
        "" if by_name else repository,
        weights,
        memory,
        groups=() if by_name else (WEIGHTS, (CONFIG,)),
        extra=(),
        random=random,
    )
    return {"folder": folder, "architecture": architecture}


def describe(encoder: str, architecture: str, memory: WeightsMemory) -> dict[str, Any]:
    """What timm states of an architecture, as a config.json; remembered, since it needs torch.

    Raises:
        MmfuseError: for a name that timm does not know.
    """
    key = f"timm {version('timm')} {architecture}"
    known = memory.description(key)
    if known is None:
        known = _described(encoder, architecture)
        memory.describe(key, known)
    return known


def create(encoder: str, architecture: str, **options: Any) -> Any:  # noqa: ANN401
    """Timm's model of a name without its classifier, untrained.

    Raises:
        MmfuseError: for a name that timm does not know, with the nearest.
    """
    import timm

    try:
        return timm.create_model(architecture, pretrained=False, **{**options, "num_classes": 0})
    except (RuntimeError, ValueError, TypeError) as error:
        name = architecture.partition(".")[0]
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.3)
        first = str(error).strip().splitlines()[0]
        words = f"; nearest: {', '.join(near)}" if near and name not in near else ""
        raise MmfuseError(f"{encoder}: timm cannot build {architecture}: {first}{words}") from error


def _described(encoder: str, architecture: str) -> dict[str, Any]:
    import torch

    with seeded():
        try:
            with torch.device("meta"):  # no memory, no time
                model = create(encoder, architecture)
        except (MmfuseError, NotImplementedError):  # a few look at their numbers while being built
            model = create(encoder, architecture)
    stated = {name: model.pretrained_cfg.get(name) for name in _STATED}
    lists = {n: list(v) if isinstance(v, tuple) else v for n, v in stated.items() if v is not None}
    return {
        "architecture": model.pretrained_cfg["architecture"],
        "num_features": int(model.num_features),
        "pretrained_cfg": lists,
    }
