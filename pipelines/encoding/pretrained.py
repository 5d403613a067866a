"""What encoders with weights share: device, numbers on it, and the golden probe."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from cache.samples import Kind
from cache.storage.weight_digests import WeightsMemory
from pipelines.encoding.encoder import Encoder
from pipelines.media.images import Preprocess
from pipelines.media.payloads import Waveform

if TYPE_CHECKING:
    import torch


AGREE = 0.999  # cosine that a golden probe must keep, on any device and in any compute dtype


def to_device(values: NDArray[Any], device: "torch.device") -> "torch.Tensor":
    """A copy on the device; from pinned memory and without waiting for it where that is a GPU."""
    import torch

    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def normalised(
    pictures: list[NDArray[np.uint8]], preprocess: Preprocess, device: "torch.device"
) -> "torch.Tensor":
    """Pixels → (B, 3, H, W) float32 on the device, scaled to 0 … 1, then by mean and std there."""
    import torch

    values = to_device(np.stack(pictures), device)  # (B, H, W, 3) uint8
    values = values.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    mean, std = (
        torch.tensor(constants, device=device)[:, None, None]
        for constants in (preprocess.mean, preprocess.std)
    )
    return values.sub_(mean).div_(std)


def to_rows(values: "torch.Tensor") -> NDArray[np.float32]:
    """A device tensor → float32 on the host; every compute dtype is exact in it."""
    import torch

    return values.detach().to(torch.float32).cpu().numpy()


def trained_or_random(model: "torch.nn.Module") -> Literal["pretrained", "random"]:
    """`random` if no normalisation layer was ever trained: `weights.tag` for loaded models."""
    names = dict(model.named_parameters())
    norms = {n: p for n, p in names.items() if n.endswith(".weight") and p.ndim == 1}
    for name, values in norms.items():
        if not (bool((values == 1).all()) or bool((values == 0).all())):
            return "pretrained"
        bias = names.get(name.removesuffix("weight") + "bias")
        if bias is not None and bool(bias.any()):
            return "pretrained"
    return "random" if norms else "pretrained"


def check_probe(
    encoder: Encoder, kind: Kind, vector: NDArray[np.float32], memory: WeightsMemory
) -> None:
    """Compare a fixed input's vector with the one recorded when these weights first loaded.

    The record goes by the stream's fingerprint, which holds the weights' sha256: the same weights,
    preprocessing and options must give the same vector for ever, whatever was updated since.

    Args:
        encoder: whose fingerprint the record goes by.
        kind: of the input.
        vector: (D,) of `probe_payload(kind)`.
        memory: where probes are recorded.

    Raises:
        MmfuseError: below a cosine of 0.999.
    """
    key = f"{fingerprint(encoder.fields(kind))}/{kind}"
    before = memory.probe(key)
    if before is None:
        memory.record(key, vector)
        return
    cosine = float(before @ vector / (np.linalg.norm(before) * np.linalg.norm(vector)))
    if not cosine >= AGREE:
        raise MmfuseError(
            f"{encoder.name}: the same weights gave another vector for the same {kind} before "
            f"(cosine {cosine:.4f}); a library has changed what it computes "
            f"({encoder.provenance().get('versions')}). Go back to its earlier version, or forget "
            f"the record: {memory.path}"
        )


def probe_payload(kind: Kind) -> Any:  # noqa: ANN401
    """A fixed input of a kind, by formula: the same everywhere and for ever."""
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


def pool_frames(
    rows: NDArray[np.float32], counts: Sequence[int], *, sequence: bool
) -> list[NDArray[np.float32]]:
    """Vectors of films' pictures (pictures, D) → (D,) a film by the maximum, or (T, D)."""
    films = np.split(rows, np.cumsum(counts)[:-1])
    return films if sequence else [film.max(axis=0) for film in films]


def as_single_frames(rows: NDArray[np.float32], *, sequence: bool) -> list[NDArray[np.float32]]:
    """(B, D) → (D,) a sample, or (1, D) where the encoder's streams are sequences."""
    return [row[None] if sequence else row for row in rows]


def again_in_float32(
    rows: list[NDArray[Any]], encode: Callable[[list[int]], list[NDArray[Any]]]
) -> list[NDArray[Any]]:
    """Rows with NaN or infinity, which half precision may cause, encoded once more.

    Args:
        rows: of a batch.
        encode: encodes the rows at these places in float32.
    """
    bad = [place for place, row in enumerate(rows) if not np.isfinite(row).all()]
    if bad:
        for place, row in zip(bad, encode(bad), strict=True):
            rows[place] = row
    return rows
