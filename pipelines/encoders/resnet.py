"""ResNet-18 or -50 through timm, its head removed: pictures and films as one vector."""

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
        model: `18` (512 numbers, default) or `50` (2048).
        weights: folder with timm's config.json and weights.
        device: where it encodes.
        dtype: what it computes in.
        sequence: keep a vector for each picture of a film.
        frames: pictures taken of a film.
        memory: file where digests and golden probes are kept.
    """
    depth = (model or "18").removeprefix("resnet")
    if depth not in MODELS:
        raise unknown("depth of resnet", depth, MODELS)
    folder = find_model_files("resnet", MODELS[depth], weights, memory, extra=())
    return TimmModel(
        name="resnet", folder=folder, frames=frames, sequence=sequence, device=device, dtype=dtype
    )
