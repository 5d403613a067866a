"""ResNet-18 or ResNet-50 through timm without classifier: one vector per image or video.

Transparency of images is dropped, as the loaders of the reference libraries do, not blended.
Images for a plain weights file are prepared as for the published weights.
"""

from pathlib import Path

from cache.errors import unknown
from cache.samples import Kind
from pipelines.encoding.timm_model import TimmModel, find_timm
from pipelines.encoding.weights import split_random

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
        model: `18` (width 512, default) or `50` (2048); `random`, `18/random` and `50/random` are
            random weights from a fixed seed.
        weights: folder with timm's config.json and weights, or a plain weights file.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each image of a video.
        frames: evenly spaced images taken of a video.
        memory: file of weights digests and golden probes.
    """
    named, random = split_random(model)
    depth = (named or "18").removeprefix("resnet")
    if depth not in MODELS:
        raise unknown("depth of resnet", depth, MODELS)
    return TimmModel(
        name="resnet",
        frames=frames,
        sequence=sequence,
        device=device,
        dtype=dtype,
        **find_timm("resnet", MODELS[depth], weights, memory, random=random),
    )
