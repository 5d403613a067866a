"""ResNet-18 or ResNet-50 through timm without classifier: one vector per image or video.

Transparency of images is dropped, as the loaders of the reference libraries do, not blended.
"""

from pathlib import Path

from cache.errors import unknown
from cache.samples import Kind
from pipelines.encoding.model_files import find_model_files
from pipelines.encoding.timm_model import TimmModel

KINDS: dict[Kind, int | None] = {"image": 512, "video": 512}
NEEDS_WEIGHTS = True
MODELS = {"18": "timm/resnet18.a1_in1k", "50": "timm/resnet50.a1_in1k"}


def build(
    *,
    model: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    frames: int = 15,
    memory: Path | None = None,
) -> TimmModel:
    """A ResNet (He et al. 2015) trained on ImageNet as an encoder; nothing is loaded yet.

    Args:
        model: `18` (width 512, default) or `50` (2048).
        weights: folder with timm's config.json and weights.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each image of a video.
        frames: evenly spaced images taken of a video.
        memory: file of weights digests and golden probes.
    """
    depth = (model or "18").removeprefix("resnet")
    if depth not in MODELS:
        raise unknown("depth of resnet", depth, MODELS)
    folder = find_model_files("resnet", MODELS[depth], weights, memory, extra=())
    return TimmModel(
        name="resnet", folder=folder, frames=frames, sequence=sequence, device=device, dtype=dtype
    )
