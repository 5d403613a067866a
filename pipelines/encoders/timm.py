"""Any timm model without classifier, for images and videos: `timm:NAME.TAG`.

Transparency of images is dropped, as the loaders of the reference libraries do, not blended.
"""

from pathlib import Path

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.model_files import find_model_files
from pipelines.encoding.timm_model import TimmModel

KINDS: dict[Kind, int | None] = {"image": None, "video": None}
NEEDS_WEIGHTS = True


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
    """A timm model as an encoder; nothing is loaded yet.

    Args:
        model: NAME.TAG of timm, such as `vit_small_patch14_dinov2.lvd142m`, or org/name of the hub.
        weights: folder with timm's config.json and weights.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each image of a video.
        frames: evenly spaced images taken of a video.
        memory: file of weights digests and golden probes.
    """
    if weights is None and model is None:
        raise MmfuseError("timm needs a model: --encoder timm:NAME.TAG, or --weights FOLDER")
    name = model or ""
    if weights is None and "/" not in name and "." not in name:
        raise MmfuseError(
            f"timm:{name} does not name its weights; add a tag, such as "
            "timm:resnet50.a1_in1k (timm.list_pretrained() lists them)"
        )
    repository = name if "/" in name else f"timm/{name}"
    folder = find_model_files("timm", repository, weights, memory, extra=())
    return TimmModel(
        name="timm", folder=folder, frames=frames, sequence=sequence, device=device, dtype=dtype
    )
