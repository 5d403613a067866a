"""Any timm model without classifier, for images and videos: `timm:NAME.TAG`.

Transparency of images is dropped, as the loaders of the reference libraries do, not blended.
Images for a plain weights file are prepared as timm states for the named architecture and tag.
"""

from pathlib import Path

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.timm_model import TimmModel, find_timm
from pipelines.encoding.weights import split_random

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
        model: NAME.TAG of timm, such as `vit_small_patch14_dinov2.lvd142m`, or org/name of the
            hub; with `/random` after it, the weights are random, from a fixed seed.
        weights: folder with timm's config.json and weights, or a plain weights file of the
            architecture NAME.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each image of a video.
        frames: evenly spaced images taken of a video.
        memory: file of weights digests and golden probes.
    """
    name, random = split_random(model)
    if weights is None and not name:
        raise MmfuseError(
            f"timm needs a model: --encoder timm:NAME{'/random' if random else '.TAG'}"
            f"{'' if random else ', or --weights FOLDER'}"
        )
    name = name or ""
    if weights is None and not random and "/" not in name and "." not in name:
        raise MmfuseError(
            f"timm:{name} does not name its weights; add a tag, such as "
            "timm:resnet50.a1_in1k (timm.list_pretrained() lists them), or --weights FILE"
        )
    return TimmModel(
        name="timm",
        frames=frames,
        sequence=sequence,
        device=device,
        dtype=dtype,
        **find_timm("timm", name, weights, memory, random=random),
    )
