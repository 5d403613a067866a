"""Load a transformers model, get its hidden states for a kind, and pool them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.weights import seeded

if TYPE_CHECKING:
    import torch

POOLER = "pooler"
# Words in names of tensors that may be missing: poolers mostly are not used, and masked_spec_embed
# is used in training only.
OPTIONAL = (POOLER, "masked_spec_embed")


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of a batch.

    Attributes:
        values: (B, T, D) float32.
        pooled: (B, D) by the model's own pooler, or None.
        is_map: whether T is the flattened height × width of a feature map.
    """

    values: "torch.Tensor"
    pooled: "torch.Tensor | None"
    is_map: bool


def load(encoder: str, place: Path, *, pooler: bool = False) -> Any:  # noqa: ANN401 - any architecture
    """Load a transformers model in evaluation mode, with no randomly initialised tensors.

    Args:
        encoder: its name, for messages.
        place: the folder.
        pooler: whether the model's own pooler is used, and its weights have to be there.

    Raises:
        MmfuseError: where weights are missing or do not fit, or the model needs code of its own.
    """
    transformers = _quiet_transformers()
    try:
        model, info = transformers.AutoModel.from_pretrained(
            place, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (ValueError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise MmfuseError(f"{encoder}: {place} cannot be loaded: {first}") from error
    left = [name for name in info["missing_keys"] if not any(w in name for w in OPTIONAL)]
    if left or info.get("mismatched_keys"):
        raise MmfuseError(
            f"{encoder}: the weights in {place} lack {len(left)} tensors of "
            f"{type(model).__name__}, such as {sorted(left)[:2]}; they would be random"
        )
    if pooler and any(POOLER in name for name in info["missing_keys"]):
        raise no_pooler(encoder, f"the weights in {place}")
    return model.eval().requires_grad_(requires_grad=False)


def build(encoder: str, config: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any architecture
    """A transformers model as its config.json describes it, with random weights from a fixed seed.

    Raises:
        MmfuseError: for an architecture that transformers does not know.
    """
    transformers = _quiet_transformers()
    try:
        described = transformers.AutoConfig.for_model(**config)
        with seeded():
            model = transformers.AutoModel.from_config(described)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise MmfuseError(
            f"{encoder}: no model can be built from its config.json: {first}"
        ) from error
    return model.eval().requires_grad_(requires_grad=False)


def no_pooler(encoder: str, what: str) -> MmfuseError:
    """The error where a model's own pooler is asked for and has no trained weights."""
    return MmfuseError(
        f"{encoder}: {what} hold no pooler, so that pooling=pooler would be random; choose "
        "pooling=cls, mean or max"
    )


def _quiet_transformers() -> Any:  # noqa: ANN401 - the module
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # errors are raised here
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


def submodel(model: Any, kind: Kind) -> Any:  # noqa: ANN401
    """Submodel for a kind: CLIP's image or text encoder, or the encoder of an encoder-decoder."""
    part = {"text": "text_model", "code": "text_model"}.get(kind, "vision_model")
    if kind != "audio" and hasattr(model, part):
        return getattr(model, part)
    return model.get_encoder() if model.config.is_encoder_decoder else model


def hidden_states(part: Any, arrays: Mapping[str, "torch.Tensor"], layer: int) -> HiddenStates:  # noqa: ANN401
    """Run a submodel; `layer` indexes its hidden states, -1 is its output after the final norm."""
    import torch

    out = part(**arrays, output_hidden_states=layer != -1, return_dict=True)
    values = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
    is_map = values.ndim == 4
    if is_map:  # (B, D, H, W)
        values = values.flatten(2).mT  # (B, H W, D)
    return HiddenStates(values.to(torch.float32), getattr(out, "pooler_output", None), is_map)


def audio_frames(
    part: Any,  # noqa: ANN401
    real: "torch.Tensor",
    given: "torch.Tensor",
    hop: int,
    count: int,
) -> "torch.Tensor":
    """(B,) how many of `count` hidden states are of audio, not of padding.

    Args:
        part: the submodel.
        real: (B,) samples of each clip.
        given: the model's input: samples (B, L) or spectrograms (B, …).
        hop: samples per spectrogram column.
        count: T of the states.
    """
    import torch

    if given.ndim == 2 and hasattr(part, "_get_feat_extract_output_lengths"):
        found: torch.Tensor = part._get_feat_extract_output_lengths(real)
        return found
    if hasattr(part, "conv2"):  # Whisper: two columns of its spectrogram a state
        return torch.ceil(real / hop * count / given.shape[-1]).clamp(1, count).to(torch.int64)
    return torch.full_like(real, count)


def receptive_field(config: Mapping[str, Any]) -> int:
    """Receptive field in samples of a model's convolutions; 1 without any."""
    field, step = 1, 1
    kernels, strides = config.get("conv_kernel", []), config.get("conv_stride", [])
    for kernel, stride in zip(kernels, strides, strict=True):
        field, step = field + (kernel - 1) * step, step * stride
    return field


def pool(words: str, found: HiddenStates, present: "torch.Tensor") -> "torch.Tensor":
    """Pool (B, T, D) → (B, D), or (B, n D) for n pooling words joined by `+`.

    Args:
        words: of `POOLS`, or `pooler`.
        found: the states.
        present: (B, T) bool, True where it is not padding; always so for the first.
    """
    import torch

    parts = []
    for word in words.split("+"):
        if word != "pooler":
            parts.append(POOLS[word](found.values, present[..., None]))
        elif found.pooled is None:
            raise MmfuseError("this model has no pooler of its own; choose cls, mean or max")
        else:
            parts.append(found.pooled.to(torch.float32))
    return torch.cat(parts, dim=-1)


def _cls(values: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
    return values[:, 0]


def _mean(values: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
    return values.where(present, 0).sum(dim=1) / present.sum(dim=1)


def _max(values: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
    return values.where(present, float("-inf")).amax(dim=1)


def _mean_sqrt(values: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
    return values.where(present, 0).sum(dim=1) / present.sum(dim=1).sqrt()


def _weighted(values: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
    """The mean with weights 1, 2, 3, … in order of the tokens."""
    weights = present * present.cumsum(dim=1)
    return (values.where(present, 0) * weights).sum(dim=1) / weights.sum(dim=1)


def _last(values: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
    ends = present.sum(dim=1, keepdim=True) - 1  # (B, 1, 1)
    return values.take_along_dim(ends.expand(-1, 1, values.shape[-1]), dim=1)[:, 0]


POOLS: dict[str, Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]] = {
    "cls": _cls,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted,
    "lasttoken": _last,
}
