"""wav2vec 2.0: speech as one vector, the mean over time of its last layer."""

from pathlib import Path
from typing import Any

from cache.samples import Kind
from pipelines.encoding.model_files import CONFIG, PREPROCESSOR, find_model_files
from pipelines.encoding.transformers_model import ModelSettings, TransformersModel
from pipelines.encoding.weights import split_random

KINDS: dict[Kind, int | None] = {"audio": 1024}
NEEDS_WEIGHTS = True
REPOSITORY = "facebook/wav2vec2-large-960h-lv60-self"
# What the published config.json and preprocessor_config.json say of the architectures.
_BASE: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "initializer_range": 0.02,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "do_stable_layer_norm": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}
_LARGE_LV60 = _BASE | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
ARCHITECTURES = {
    REPOSITORY: _LARGE_LV60,
    "facebook/wav2vec2-large-lv60": _LARGE_LV60,
    "facebook/wav2vec2-base": _BASE,
    "facebook/wav2vec2-base-960h": _BASE,
}


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
        model: repository of the hub, such as `facebook/wav2vec2-base`; `random` or, after it,
            `/random` is random weights from a fixed seed.
        weights: folder with config.json, weights and preprocessor_config.json, or a plain weights
            file of the named model's architecture.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector every 20 ms.
        memory: file of weights digests and golden probes.
    """
    named, random = split_random(model)
    repository = named or REPOSITORY
    known = _known(ARCHITECTURES[repository]) if repository in ARCHITECTURES else None
    folder = find_model_files("wav2vec", repository, weights, memory, random=random, known=known)
    return TransformersModel(
        name="wav2vec",
        folder=folder,
        settings=ModelSettings(pooling="mean"),
        sequence=sequence,
        device=device,
        dtype=dtype,
        only=("audio",),
    )


def _known(architecture: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The JSON files of an architecture: audio is scaled to zero mean and unit variance."""
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": True,
        "return_attention_mask": architecture["feat_extract_norm"] == "layer",
    }
    return {CONFIG: architecture, PREPROCESSOR: extractor}
