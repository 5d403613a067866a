"""wav2vec 2.0: speech as one vector, the mean over time of its last layer."""

from pathlib import Path

from cache.samples import Kind
from pipelines.encoding.model_files import find_model_files
from pipelines.encoding.transformers_model import ModelSettings, TransformersModel

KINDS: dict[Kind, int | None] = {"audio": 1024}
NEEDS_WEIGHTS = True
REPOSITORY = "facebook/wav2vec2-large-960h-lv60-self"


def build(
    *,
    model: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    memory: Path | None = None,
) -> TransformersModel:
    """A wav2vec 2.0 model (Baevski et al. 2020) as an encoder; nothing is loaded yet.

    Audio is resampled to 16 kHz. Models with a group norm over time get batches of clips of one
    length, so that no clip's vector depends on its batch.

    Args:
        model: repository of the hub, such as `facebook/wav2vec2-base`.
        weights: folder with config.json, weights and preprocessor_config.json.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector every 20 ms.
        memory: file of weights digests and golden probes.
    """
    folder = find_model_files("wav2vec", model or REPOSITORY, weights, memory)
    return TransformersModel(
        name="wav2vec",
        folder=folder,
        settings=ModelSettings(pooling="mean"),
        sequence=sequence,
        device=device,
        dtype=dtype,
        only=("audio",),
    )
