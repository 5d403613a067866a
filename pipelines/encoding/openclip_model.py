"""A loaded CLIP model and its tokenizer: open_clip's own, without padding that cannot be seen."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from pipelines.encoding.open_clip import Checkpoint

if TYPE_CHECKING:
    import torch

SEED = 0  # of random weights
PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # open_clip's words

Tokens = tuple[NDArray[np.int64], bool]  # a text's tokens, and whether some were cut off


def load(
    checkpoint: Checkpoint,
    path: Path | None,
    tower: Path | None,
    dtype: "torch.dtype",
    device: "torch.device",
) -> Any:  # noqa: ANN401 - open_clip has no types
    """The model in evaluation mode on the device.

    Args:
        checkpoint: what to build.
        path: its weights; None for random ones, the same for ever.
        tower: folder of the text tower's configuration, where transformers builds it.
        dtype: what it computes in.
        device: where.

    Raises:
        MmfuseError: for weights of another model, or a file that is not plain tensors.
    """
    import open_clip
    import torch

    precision = PRECISION[str(dtype).removeprefix("torch.")]
    options: dict[str, Any] = {}
    if tower is not None:
        local = {"hf_model_name": str(tower), "hf_model_pretrained": False}
        options["text_cfg"] = {**checkpoint.text, **local}
    source = None if checkpoint.folder else path and str(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
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
    return model.eval().requires_grad_(requires_grad=False)


def tokenizer(text: dict[str, Any], context: int, folder: Path | None) -> Callable[[str], Tokens]:
    """A function from a text to its tokens.

    Args:
        text: the `text_cfg` of the model.
        context: the most tokens it takes.
        folder: where its vocabulary lies, if it is not CLIP's own.
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
    """Tokens from start to end as CLIP's own tokenizer gives them, without the zeros after."""
    tokens = [tokenizer.sot_token_id, *tokenizer.encode(words), tokenizer.eot_token_id]
    cut = len(tokens) > context
    if cut:
        tokens = [*tokens[: context - 1], tokenizer.eot_token_id]
    return np.array(tokens, np.int64), cut


def _padded(tokenizer: Any, context: int, words: str) -> Tokens:  # noqa: ANN401
    """All tokens up to the context length, padding included, since models may look at it."""
    whole = tokenizer.tokenizer(tokenizer.clean_fn(words), truncation=False)["input_ids"]
    return tokenizer([words])[0].numpy(), len(whole) > context


def is_causal(model: Any) -> bool:  # noqa: ANN401
    """Whether a text's vector sees nothing behind its end, so that padding may be left out."""
    import open_clip

    return (
        type(model) is open_clip.CLIP
        and getattr(model, "attn_mask", None) is not None
        and getattr(model, "text_pool_type", None) == "argmax"
    )


def encode_causal_text(model: Any, ids: "torch.Tensor") -> "torch.Tensor":  # noqa: ANN401
    """open_clip's `encode_text` for fewer places than the context length; (B, L) → (B, D)."""
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
