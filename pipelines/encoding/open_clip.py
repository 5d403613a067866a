"""open_clip checkpoints: models, tags and preprocessing read without importing it; loading."""

import ast
import copy
import difflib
import importlib.util
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from pipelines.encoding.hub import RepositoryFiles
from pipelines.encoding.model_files import proposal
from pipelines.encoding.weights import RANDOM, check_plain, load_weights, seeded
from pipelines.media.images import Preprocess

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
# In open_clip's own order of preference.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
VOCABULARIES = (
    ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json"),
)
TOKENIZER_FILES = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "config.json",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Description of a CLIP model that is not loaded yet.

    Attributes:
        name: as open_clip's `create_model` takes it.
        config: its architecture as open_clip writes it.
        preprocess: of images.
        published: the repository of its tag; None for local or random weights.
        local: a weights file; None for published or random ones.
        folder: of a local checkpoint, with its configuration and vocabulary.
        preprocessed_as: whose preprocessing a plain weights file is given.
    """

    name: str
    config: dict[str, Any]
    preprocess: Preprocess
    published: RepositoryFiles | None = None
    local: Path | None = None
    folder: Path | None = None
    preprocessed_as: str = ""

    @property
    def plain(self) -> Path | None:
        """A local weights file without a folder that describes it."""
        return self.local if self.folder is None else None

    @property
    def is_random(self) -> bool:
        """Whether its weights are random."""
        return self.local is None and self.published is None

    @property
    def text(self) -> dict[str, Any]:
        """The configuration of the text tower."""
        found: dict[str, Any] = self.config["text_cfg"]
        return found

    @property
    def tokenizer(self) -> RepositoryFiles | None:
        """Repository of the tokenizer; None for CLIP's own, or one in the checkpoint's folder."""
        name = self.text.get("hf_tokenizer_name")
        if not name or self.folder is not None:
            return None
        return RepositoryFiles(str(name), VOCABULARIES, TOKENIZER_FILES)

    @property
    def tower(self) -> RepositoryFiles | None:
        """Repository of the text tower's configuration, if transformers builds it; else None."""
        name = self.text.get("hf_model_name")
        return RepositoryFiles(str(name), (("config.json",),)) if name else None


def published(model: str, tag: str) -> Checkpoint:
    """Describe a model of open_clip's list with the weights of a tag, or `random` ones.

    Raises:
        MmfuseError: for an unknown model or tag, or a tag that was trained with the other GELU.
    """
    config = _config(model)
    if tag == RANDOM:
        return Checkpoint(model, config, preprocess(config, _default()))
    tags = _tags().get(model, {})
    elsewhere = _tags().get(model.removesuffix("-quickgelu"), {})
    key = tag.lower().replace("-", "_")
    if key not in tags and key not in elsewhere:
        raise unknown(f"tag of CLIP {model}", tag, [*tags, RANDOM])
    entry = tags.get(key) or elsewhere[key]
    _same_gelu(model, tag, config, entry)
    repository, _, name = entry["hf_hub"].rpartition("/")
    if not repository:
        raise MmfuseError(
            f"clip: {model}/{tag} is published at {entry['url']} only; fetch it, --weights PATH"
        )
    safe = [f"{name.rpartition('.')[0]}.safetensors", name] if name else list(WEIGHTS)
    wanted = RepositoryFiles(repository, (tuple(safe),))
    return Checkpoint(model, config, preprocess(config, entry), published=wanted)


def local(path: Path, model: str, tag: str) -> Checkpoint:
    """Describe a local weights file of a listed model, or a folder in open_clip's hub format.

    Raises:
        MmfuseError: for a folder without configuration or weights, or a tag with the other GELU.
    """
    if path.is_dir():
        return _folder(path, model, tag)
    if path.suffix != ".npz":
        check_plain("clip", path)
    config, (label, entry) = _config(model), _usual(model, tag)
    known = _tags().get(model.removesuffix("-quickgelu"), {}).get(tag)
    if known:
        _same_gelu(model, tag, config, known)
    return Checkpoint(model, config, preprocess(config, entry), local=path, preprocessed_as=label)


def preprocess(config: dict[str, Any], entry: dict[str, Any]) -> Preprocess:
    """Preprocessing of a model, from its input size and its weights' entry in open_clip's table."""
    size = config["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = entry["mean"], entry["std"]
    return Preprocess(
        size=(height, width),
        mode=entry["resize_mode"],
        scale=(height, width),
        interpolation="bilinear" if entry["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(mean) if isinstance(mean, list | tuple) else (mean,) * 3,
        std=tuple(std) if isinstance(std, list | tuple) else (std,) * 3,
        fill=(entry.get("fill_color", 0),) * 3,
    )


def vocabulary() -> Path:
    """File with the byte pairs of CLIP's own tokenizer."""
    return _home() / "bpe_simple_vocab_16e6.txt.gz"


def _folder(path: Path, model: str, tag: str) -> Checkpoint:
    whole = path / CONFIG
    if not whole.is_file():
        entry = _usual(model, tag)[1]
        own = {name: entry[name] for name in _PREPROCESSING if name in entry}
        known = {"model_cfg": _config(model), "preprocess_cfg": own}
        raise MmfuseError(
            f"clip: {path} holds no {CONFIG}; give the weights file in it"
            f"{proposal(CONFIG, known, f'or, if its model is {model}, ')}"
        )
    try:
        stated = json.loads(whole.read_text(encoding="utf-8"))
        config = stated["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise MmfuseError(f"clip: {whole} is no open_clip configuration: {error!r}") from error
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise MmfuseError(f"clip: {path} holds no weights; looked for {', '.join(WEIGHTS)}")
    own = {key: v for key, v in stated.get("preprocess_cfg", {}).items() if v is not None}
    prepared = preprocess(config, {**_default(), **own})
    return Checkpoint(f"local-dir:{path}", config, prepared, local=weights, folder=path)


def _same_gelu(model: str, tag: str, config: dict[str, Any], entry: dict[str, Any]) -> None:
    trained, built = entry.get("quick_gelu", False), config.get("quick_gelu", False)
    if trained != built:
        plain = model.removesuffix("-quickgelu")
        right = f"{plain}-quickgelu" if trained else plain
        raise MmfuseError(
            f"clip: {tag} was trained {'with' if trained else 'without'} QuickGELU and {model} is "
            f"built {'with' if built else 'without'} it, which gives plausible but wrong vectors; "
            f"use clip:{right}/{tag}"
        )


@cache
def _home() -> Path:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise MmfuseError(
            "clip needs the package open_clip_torch; run: pip install open_clip_torch"
        )
    return Path(spec.origin).parent


@cache
def _config(model: str) -> dict[str, Any]:
    path = _home() / "model_configs" / f"{model}.json"
    if "/" in model or not path.is_file():
        names = sorted(p.stem for p in path.parent.glob("*.json"))
        near = ", ".join(difflib.get_close_matches(model, names, n=4, cutoff=0.3))
        raise MmfuseError(
            f"clip: open_clip has no model named {model!r}; nearest: {near or ', '.join(names[:4])}"
        )
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@cache
def _table() -> dict[str, Any]:
    """open_clip's table of published weights, by running that part of its code without imports."""
    path = _home() / "pretrained.py"
    constants = (_home() / "constants.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"copy": copy}
    exec(compile(constants, "constants.py", "exec"), names)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body: list[ast.stmt] = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.For | ast.Expr)
        or (isinstance(node, ast.FunctionDef) and node.name.endswith("cfg"))
    ]
    exec(compile(ast.Module(body, []), str(path), "exec"), names)
    return names


def _tags() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = _table()["_PRETRAINED"]
    return found


def _usual(model: str, tag: str) -> tuple[str, dict[str, Any]]:
    """The entry of a tag, else that which all tags of a model share, else the default; whose."""
    tags = _tags().get(model, {})
    if tag in tags:
        return f"{model}/{tag}", tags[tag]
    kinds = {json.dumps([entry.get(n) for n in _PREPROCESSING]) for entry in tags.values()}
    if len(kinds) == 1:
        return model, next(iter(tags.values()))
    return "open_clip's default", _default()


def _default() -> dict[str, Any]:
    """open_clip's default preprocessing."""
    found: dict[str, Any] = _table()["_pcfg"]()
    return found


_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_UNUSED = ("logit_scale", "logit_bias")  # tensors that no vector depends on
PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # open_clip's words

Tokens = tuple[NDArray[np.int64], bool]  # token ids of a text, and whether it was cut


def load(
    checkpoint: Checkpoint,
    path: Path | None,
    tower: Path | None,
    dtype: "torch.dtype",
    device: "torch.device",
) -> tuple[Any, str]:
    """Load a model in evaluation mode on the device, with a remark on a plain weights file, or "".

    Args:
        checkpoint: what to build.
        path: its weights; None for random ones from a fixed seed, or those of a plain file.
        tower: folder of the text tower's configuration, where transformers builds it.
        dtype: compute dtype.
        device: of the model.

    Raises:
        MmfuseError: for weights of another model, or a file that is not plain tensors.
    """
    import open_clip

    precision = PRECISION[str(dtype).removeprefix("torch.")]
    options: dict[str, Any] = {}
    if tower is not None:
        local = {"hf_model_name": str(tower), "hf_model_pretrained": False}
        options["text_cfg"] = {**checkpoint.text, **local}
    plain = checkpoint.plain if checkpoint.plain and checkpoint.plain.suffix != ".npz" else None
    source = None if checkpoint.folder or plain else path and str(path)
    with seeded(), _quiet():
        try:
            model = open_clip.create_model(
                checkpoint.name, source, precision=precision, device=device, **options
            )
        except (RuntimeError, AssertionError, KeyError, pickle.UnpicklingError) as error:
            first = str(error).strip().splitlines()[0]
            raise MmfuseError(
                f"clip: {path} does not fit {checkpoint.name}, or holds more than plain tensors "
                f"({first}); name its model with --encoder clip:MODEL/TAG"
            ) from error
    remark = ""
    if plain is not None:
        remark = load_weights(
            "clip",
            plain,
            model,
            checkpoint.name,
            optional=_UNUSED,
            convert=partial(_converted, model),
            hint="name its model, --encoder clip:MODEL/TAG",
        )
    return model.eval().requires_grad_(requires_grad=False), remark


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning that a model has random weights, which here is known."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _converted(model: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Tensors of older and other programs by open_clip's names, where it knows them."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    found: dict[str, Any] = convert_state_dict(model, dict(tensors))
    if "positional_embedding" in found and not hasattr(model, "positional_embedding"):
        found = convert_to_custom_text_state_dict(found)
    return found


def tokenizer(text: dict[str, Any], context: int, folder: Path | None) -> Callable[[str], Tokens]:
    """Build a function from a text to its tokens.

    Args:
        text: the `text_cfg` of the model.
        context: maximal number of tokens.
        folder: of its vocabulary; None for CLIP's own.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    options = text.get("tokenizer_kwargs", {})
    if folder is None:
        return partial(_cut, SimpleTokenizer(context_length=context, **options), context)
    mode = text.get("tokenizer_mode")
    return partial(
        _padded, HFTokenizer(str(folder), context, tokenizer_mode=mode, **options), context
    )


def _cut(tokenizer: Any, context: int, words: str) -> Tokens:  # noqa: ANN401
    """CLIP's own tokens of a text, without the padding of zeros."""
    tokens = [tokenizer.sot_token_id, *tokenizer.encode(words), tokenizer.eot_token_id]
    cut = len(tokens) > context
    if cut:
        tokens = [*tokens[: context - 1], tokenizer.eot_token_id]
    return np.array(tokens, np.int64), cut


def _padded(tokenizer: Any, context: int, words: str) -> Tokens:  # noqa: ANN401
    """All tokens up to the context length with padding, which such models may attend to."""
    whole = tokenizer.tokenizer(tokenizer.clean_fn(words), truncation=False)["input_ids"]
    return tokenizer([words])[0].numpy(), len(whole) > context


def is_causal(model: Any) -> bool:  # noqa: ANN401
    """Whether a text's vector does not depend on the padding, which may then be left out."""
    import open_clip

    return (
        type(model) is open_clip.CLIP
        and getattr(model, "attn_mask", None) is not None
        and getattr(model, "text_pool_type", None) == "argmax"
    )


def encode_causal_text(model: Any, ids: "torch.Tensor") -> "torch.Tensor":  # noqa: ANN401
    """open_clip's `encode_text` for texts shorter than the context length; (B, L) → (B, D)."""
    import torch

    length, dtype = ids.shape[1], model.transformer.get_cast_dtype()
    values = model.token_embedding(ids).to(dtype) + model.positional_embedding[:length].to(dtype)
    values = model.transformer(values, attn_mask=model.attn_mask[:length, :length])
    ends = model.ln_final(values)[torch.arange(len(ids)), ids.argmax(dim=-1)]  # (B, H)
    projection = model.text_projection
    if projection is not None:
        ends = projection(ends) if isinstance(projection, torch.nn.Linear) else ends @ projection
    found: torch.Tensor = ends
    return found
