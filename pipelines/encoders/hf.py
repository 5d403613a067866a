"""Any transformers encoder of text, audio or images: `hf:org/name`."""

from pathlib import Path

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.model_files import find_model_files
from pipelines.encoding.transformers_model import ModelSettings, TransformersModel
from pipelines.encoding.weights import split_random

KINDS: dict[Kind, int | None] = {
    "text": None, "code": None, "audio": None, "image": None, "video": None,
}  # fmt: skip
NEEDS_WEIGHTS = True


def build(
    *,
    model: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    pooling: str = "auto",
    layer: int = -1,
    length: int = 512,
    frames: int = 15,
    memory: Path | None = None,
) -> TransformersModel:
    """A model of the transformers library as an encoder; nothing is loaded yet.

    DINO, SigLIP, WavLM, Whisper's encoder, ModernBERT and others; a model's kinds follow from
    its tokenizer and preprocessor. Models that need code of their own are refused.

    Args:
        model: repository of the hub, or a folder; with `/random` after it, the weights are random,
            from a fixed seed, and only its configuration and vocabulary are read.
        weights: folder with config.json, weights, and vocabulary or preprocessor_config.json; or a
            plain weights file, described by `model`, or by the folder in which it lies.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: all tokens or frames instead of one vector; for video one vector an image.
        pooling: auto, cls, mean, max or pooler.
        layer: index into the hidden states; -1 is the last.
        length: maximal number of tokens of a text.
        frames: evenly spaced images taken of a video.
        memory: file of weights digests and golden probes.
    """
    named, random = split_random(model)
    if named is None and weights is None:
        raise MmfuseError(
            f"hf needs a model: --encoder hf:org/name{'/random' if random else ''}, or "
            f"{'hf:FOLDER/random' if random else '--weights FOLDER'}"
        )
    folder = find_model_files("hf", named or "", weights, memory, random=random)
    return TransformersModel(
        name="hf",
        folder=folder,
        settings=ModelSettings(pooling, layer, length, frames),
        sequence=sequence,
        device=device,
        dtype=dtype,
    )
