"""Any timm model, its head removed: `timm:NAME.TAG` for pictures and films."""

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
        device: where it encodes.
        dtype: what it computes in.
        sequence: keep a vector for each picture of a film.
        frames: pictures taken of a film.
        memory: file where digests and golden probes are kept.
    """
    if weights is None and model is None:
        raise MmfuseError("timm needs a model: --encoder timm:NAME.TAG, or --weights FOLDER")
    name = model or ""
    if weights is None and "/" not in name and "." not in name:
        raise MmfuseError(
            f"timm:{name} does not say which weights; name its tag too, such as "
            "timm:resnet50.a1_in1k (timm.list_pretrained() lists them)"
        )
    repository = name if "/" in name else f"timm/{name}"
    folder = find_model_files("timm", repository, weights, memory, extra=())
    return TimmModel(
        name="timm", folder=folder, frames=frames, sequence=sequence, device=device, dtype=dtype
    )
