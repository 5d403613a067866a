"""CodeBERT: code or text as one vector, the first token of the last layer."""

from pathlib import Path

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.model_files import CONFIG, WEIGHTS, find_model_files
from pipelines.encoding.transformers_model import ModelSettings, TransformersModel
from pipelines.encoding.weights import split_random

KINDS: dict[Kind, int | None] = {"code": 768, "text": 768}
NEEDS_WEIGHTS = True
REPOSITORY = "microsoft/codebert-base"
# What the published config.json says of the architecture.
ARCHITECTURE = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-05,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
_VOCABULARY = ("tokenizer.json", "vocab.json")


def build(
    *,
    model: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    length: int = 512,
    memory: Path | None = None,
) -> TransformersModel:
    """CodeBERT (Feng et al. 2020) as an encoder; nothing is loaded yet.

    Args:
        model: `random` for random weights from a fixed seed, with words cut and hashed to tokens;
            else the published ones.
        weights: folder with config.json, weights and vocabulary, instead of the published ones; or
            a plain weights file of this architecture, whose vocabulary (vocab.json and merges.txt)
            lies beside it, or is the published one.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each token.
        length: maximal number of tokens; longer texts are cut and counted.
        memory: file of weights digests and golden probes.
    """
    named, random = split_random(model)
    if named is not None:
        raise MmfuseError(f"codebert has no model {named}; leave it out, or: codebert/random")
    plain = weights is not None and Path(weights).expanduser().is_file()
    groups: tuple[tuple[str, ...], ...] = (WEIGHTS, (CONFIG,))
    folder = find_model_files(
        "codebert",
        REPOSITORY,
        weights,
        memory,
        groups=(*groups, _VOCABULARY) if plain else groups,
        random=random,
        known={CONFIG: ARCHITECTURE},
    )
    return TransformersModel(
        name="codebert",
        folder=folder,
        settings=ModelSettings(pooling="cls", length=length),
        sequence=sequence,
        device=device,
        dtype=dtype,
        only=("code", "text"),
    )
