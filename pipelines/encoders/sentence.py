"""Any sentence-transformers model with its own pooling and dense layers: `sentence:org/name`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.model_files import VOCABULARY, WEIGHTS, ModelFiles, find_model_files
from pipelines.encoding.sentence_modules import Dense, Normalize, dense
from pipelines.encoding.transformers_model import ModelSettings, TransformersModel
from pipelines.encoding.weights import RANDOM, split_random

KINDS: dict[Kind, int | None] = {"text": None, "code": None}
NEEDS_WEIGHTS = True
MODULES, PROMPTS, LIMITS = (
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
)  # fmt: skip
ENDLESS = 1 << 30  # tokens: only the model's own positions limit the length
# sentence-transformers' pooling words → ours, in the order in which it concatenates them.
_POOLS = {
    "cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}  # fmt: skip


def build(
    *,
    model: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    memory: Path | None = None,
) -> TransformersModel:
    """A sentence-transformers model as an encoder; nothing is loaded yet.

    Its vectors equal those of `SentenceTransformer.encode`, whose package is not needed: tokenizer,
    length, lower case, default prompt, pooling, dense layers and normalisation as in its folder.

    Args:
        model: repository of the hub (`all-MiniLM-L6-v2` is short for sentence-transformers/…), or
            a folder; with `/random` after it, the weights are random, from a fixed seed.
        weights: such a folder; or a plain weights file of its Transformer, described by `model`, or
            by the folder in which it lies.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        memory: file of weights digests and golden probes.

    Raises:
        MmfuseError: for a folder without modules.json, or with modules of another kind.
    """
    named, random = split_random(model)
    if named is None and weights is None:
        raise MmfuseError(
            f"sentence needs a model: --encoder sentence:org/name{'/random' if random else ''}, or "
            f"{'sentence:FOLDER/random' if random else '--weights FOLDER'}"
        )
    repository = named or ""
    if named and "/" not in named:
        repository = f"sentence-transformers/{named}"
    first = find_model_files(
        "sentence",
        repository,
        weights,
        memory,
        groups=((MODULES,),),
        extra=(PROMPTS,),
        random=random,
    )
    modules = {part["type"].rpartition(".")[2]: part["path"] for part in _json(first, MODULES)}
    strange = set(modules) - {"Transformer", "Pooling", "Dense", "Normalize"}
    if strange or not {"Transformer", "Pooling"} <= set(modules):
        raise MmfuseError(
            f"sentence: {weights or repository} consists of {', '.join(modules)}; only a "
            "Transformer with Pooling, and Dense and Normalize after it, is supported"
        )
    folder = _whole(first, modules)
    steps: list[Dense | Normalize] = []
    if "Dense" in modules:
        steps.append(_dense(folder, modules["Dense"]))
    if "Normalize" in modules:
        steps.append(Normalize())
    return TransformersModel(
        name="sentence",
        folder=folder,
        settings=_settings(folder, modules),
        device=device,
        dtype=dtype,
        only=("text", "code"),
        finish=tuple(steps),
    )


def _whole(first: ModelFiles, modules: Mapping[str, str]) -> ModelFiles:
    """The model's folder with the files of every module."""
    inner = f"{modules['Transformer']}/" if modules["Transformer"] else ""
    groups: list[tuple[str, ...]] = [(f"{inner}config.json",)]
    groups += [(f"{modules[k]}/config.json",) for k in ("Pooling", "Dense") if k in modules]
    if first.plain is None and not first.random:
        groups.insert(0, tuple(f"{inner}{name}" for name in WEIGHTS))
    if "Dense" in modules and not first.random:
        groups.append(tuple(f"{modules['Dense']}/{name}" for name in WEIGHTS[::2]))
    extra = (*(f"{inner}{name}" for name in (*VOCABULARY, LIMITS)), PROMPTS)
    return replace(first, groups=tuple(groups), extra=extra, inner=inner)


def _settings(folder: ModelFiles, modules: Mapping[str, str]) -> ModelSettings:
    pooling = _json(folder, f"{modules['Pooling']}/config.json")
    stated = pooling.get("pooling_mode")
    if stated:
        words = [stated] if isinstance(stated, str) else list(stated)
    else:
        words = [w for key, w in _POOLS.items() if pooling.get(f"pooling_mode_{key}")]
    limits, prompts = folder.described(LIMITS), _json(folder, PROMPTS)
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    return ModelSettings(
        pooling="+".join(words),
        length=int(limits.get("max_seq_length") or ENDLESS),
        stripped=True,
        lower=bool(limits.get("do_lower_case")),
        prompt=prompt,
    )


def _dense(folder: ModelFiles, place: str) -> Dense:
    config = folder.files[f"{place}/config.json"]
    if config.path is None:
        raise MmfuseError(f"sentence: {place}/config.json was to be downloaded and is missing")
    if folder.random:
        return dense(place, config.path, "", RANDOM)
    weights = next(f for n, f in folder.files.items() if n in {f"{place}/{w}" for w in WEIGHTS})
    return dense(place, config.path, weights.name.rpartition("/")[2], weights.sha256)


def _json(folder: ModelFiles, name: str) -> Any:  # noqa: ANN401 - a list or a dict
    file = folder.files.get(name)
    if file is None or file.path is None:
        return {}
    return json.loads(file.path.read_text(encoding="utf-8"))
