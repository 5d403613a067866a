"""CodeBERT: code or text as one vector, the first token of the last layer."""

from pathlib import Path

from cache.samples import Kind
from pipelines.encoding.model_files import find_model_files
from pipelines.encoding.transformers_model import ModelSettings, TransformersModel

KINDS: dict[Kind, int | None] = {"code": 768, "text": 768}
NEEDS_WEIGHTS = True
REPOSITORY = "microsoft/codebert-base"


def build(
    *,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    length: int = 512,
    memory: Path | None = None,
) -> TransformersModel:
    """CodeBERT (Feng et al. 2020) as an encoder; nothing is loaded yet.

    Args:
        weights: folder with config.json, weights and vocabulary, instead of the published ones.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each token.
        length: maximal number of tokens; longer texts are cut and counted.
        memory: file of weights digests and golden probes.
    """
    folder = find_model_files("codebert", REPOSITORY, weights, memory)
    return TransformersModel(
        name="codebert",
        folder=folder,
        settings=ModelSettings(pooling="cls", length=length),
        sequence=sequence,
        device=device,
        dtype=dtype,
        only=("code", "text"),
    )
