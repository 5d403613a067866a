"""A transformers model as an encoder: a layer's hidden states, pooled over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from cache.samples import Kind
from pipelines.device import to_device
from pipelines.encoding.model_files import CONFIG, PREPROCESSOR, VOCABULARY, proposal
from pipelines.encoding.pooling import (
    OPTIONAL,
    POOLER,
    POOLS,
    HiddenStates,
    audio_frames,
    build,
    hidden_states,
    load,
    pool,
    receptive_field,
    submodel,
)
from pipelines.encoding.pretrained import (
    FolderEncoder,
    pool_frames,
    to_rows,
    video_fields,
)
from pipelines.encoding.processors import (
    AudioProcessor,
    HashTokenizer,
    ImageProcessor,
    ModelBatch,
    PreparedInput,
    Processor,
    TextProcessor,
    default_preprocessor,
)
from pipelines.encoding.weights import load_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel as Model

_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "embed_dim")
_OFFSET = (
    "roberta",
    "camembert",
    "mpnet",
    "longformer",
    "esm",
)  # position ids start after the padding id
_POOLED = ("siglip",)  # families with a trained attention pool


@dataclass(frozen=True)
class ModelSettings:
    """Options of a transformers model.

    Attributes:
        pooling: `cls` (the first token), `mean` or `max` over what is not padding, `pooler` (the
            model's own); `auto` is mean, and for images the first token, the family's own pool,
            or the mean of a feature map.
        layer: index into the hidden states; -1 is the last, after its final norm.
        length: maximal number of tokens of a text.
        frames: images of a video, pooled by their maximum.
        stripped: whether white space around a text is stripped.
        lower: whether a text is lower-cased first.
        prompt: put before every text.
    """

    pooling: str = "auto"
    layer: int = -1
    length: int = 512
    frames: int = 15
    stripped: bool = False
    lower: bool = False
    prompt: str = ""

    def __post_init__(self) -> None:
        """Check the pooling words."""
        known = {"auto", "pooler", *POOLS}
        for word in self.pooling.split("+"):
            if word not in known:
                raise unknown("pooling", word, known)


class PostProcessing(Protocol):
    """A step after pooling, such as a dense layer or normalisation."""

    @property
    def width(self) -> int | None:
        """Width of the output; None if unchanged."""

    def fields(self) -> dict[str, object]:
        """The step as JSON, for the fingerprint."""

    def apply(self, vectors: "torch.Tensor", folder: Path) -> "torch.Tensor":
        """(B, D) → (B, width)."""


@dataclass(frozen=True, kw_only=True)
class TransformersModel(FolderEncoder):
    """A transformers model of text, audio or images, or the two submodels of CLIP and SigLIP.

    Attributes:
        settings: pooling, layer and input options.
        only: kinds to serve; () for all that the model's files are for.
        finish: steps after pooling.
    """

    settings: ModelSettings
    only: tuple[Kind, ...] = ()
    finish: tuple[PostProcessing, ...] = ()

    VERSION: ClassVar[int] = 1
    LIBRARIES: ClassVar[tuple[str, ...]] = ("transformers", "tokenizers", "torch")
    PICKLED: ClassVar[tuple[str, ...]] = ("_processors",)

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """Kinds that its files serve, with the width of the vectors.

        Raises:
            MmfuseError: without weights, or for a model that serves none of the kinds.
        """
        config, preprocessor = self._config, self.folder.described(PREPROCESSOR)
        words = bool(self._vocabulary)
        kinds: tuple[Kind, ...] = ()
        if "sampling_rate" in preprocessor:
            kinds = ("audio",)
        elif preprocessor:
            kinds = ("image", "video")
        if words and (not kinds or ("image" in kinds and "text_config" in config)):
            kinds = (*kinds, "text", "code")
        kinds = tuple(kind for kind in kinds if not self.only or kind in self.only)
        if not kinds:
            raise MmfuseError(
                f"{self.name}: {self.folder.name} holds neither a vocabulary nor a {PREPROCESSOR} "
                f"for {', '.join(self.only) or 'any kind'}{self._proposal()}"
            )
        return {kind: self._width(kind) for kind in kinds}

    def fields(self, kind: Kind) -> dict[str, object]:
        """Weights by sha256, architecture, preprocessing, layer and pooling."""
        settings = self.settings
        found: dict[str, object] = {
            **self._common_fields(),
            "model": self._config,
            "pooling": settings.pooling,
            "layer": settings.layer,
            "finish": [step.fields() for step in self.finish],
        }
        if kind in ("text", "code"):
            return found | {
                "length": self._length,
                "tokenizer": self._vocabulary,
                "prompt": settings.prompt,
                "stripped": settings.stripped,
                "lower": settings.lower,
            }
        found["preprocess"] = self.folder.described(PREPROCESSOR)
        return found | video_fields(kind, settings.frames)

    def prepare(self, kind: Kind, payload: Any) -> tuple[PreparedInput, int]:  # noqa: ANN401
        """Payload → item and its cost in tokens, samples or images.

        Raises:
            Unreadable: for blank text, and audio without samples or with NaN.
        """
        return self._processors[kind].prepare(payload)

    def truncated(self, item: PreparedInput) -> bool:
        """Whether an input was cut for its length."""
        return item.cut

    def _run(
        self, model: "Model", kind: Kind, batch: Sequence[PreparedInput]
    ) -> list[NDArray[Any]]:
        processor = self._processors[kind]
        found: list[NDArray[Any]] = [np.empty(0)] * len(batch)
        for places in processor.groups(batch):
            given = processor.collate([batch[place] for place in places])
            rows = self._rows(model, kind, processor, given)
            for place, row in zip(places, rows, strict=True):
                found[place] = row
        return found

    def _run_exact(self, kind: Kind, batch: Sequence[PreparedInput]) -> list[NDArray[Any]]:
        """One by one, without padding."""
        return [self._forward(self._exact, kind, [item])[0] for item in batch]

    def _rows(
        self, model: "Model", kind: Kind, processor: Processor, given: ModelBatch
    ) -> list[NDArray[Any]]:
        """One vector or sequence an item."""
        found, present = self._states(model, kind, processor, given)
        if self.sequence and kind != "video":
            rows = to_rows(found.values)
            counts = present.sum(dim=1).tolist()
            return [row[:count] for row, count in zip(rows, counts, strict=True)]
        pooled = pool(self._pooling(kind, found), found, present)
        vectors = to_rows(self._finished(pooled))
        if kind == "video":
            return pool_frames(vectors, given.real.tolist(), sequence=self.sequence)
        return list(vectors)

    def _states(
        self, model: "Model", kind: Kind, processor: Processor, given: ModelBatch
    ) -> tuple[HiddenStates, "torch.Tensor"]:
        """Hidden states (B, T, D), and which of them are not padding (B, T)."""
        import torch

        arrays = {n: to_device(v, self._device) for n, v in given.arrays.items()}
        if isinstance(processor, ImageProcessor):
            arrays["pixel_values"] = processor.scale(arrays["pixel_values"])
        arrays = {n: v.to(model.dtype) if v.is_floating_point() else v for n, v in arrays.items()}
        part = submodel(model, kind)
        found = hidden_states(part, arrays, self.settings.layer)
        rows, count = found.values.shape[:2]
        real = torch.from_numpy(given.real)
        if isinstance(processor, AudioProcessor):
            first = next(iter(arrays.values()))
            real = audio_frames(part, real, first, processor.hop, count)
        elif isinstance(processor, ImageProcessor):
            real = torch.full((rows,), count)
        places = torch.arange(count, device=self._device)
        return found, places < real.to(self._device)[:, None]

    def _pooling(self, kind: Kind, found: HiddenStates) -> str:
        if self.settings.pooling != "auto":
            return self.settings.pooling
        if kind not in ("image", "video") or found.is_map:
            return "mean"
        family = str(self._config.get("model_type"))
        return "pooler" if any(word in family for word in _POOLED) else "cls"

    def _finished(self, vectors: "torch.Tensor") -> "torch.Tensor":
        for step in self.finish:
            vectors = step.apply(vectors, self.folder.path)
        return vectors

    def _width(self, kind: Kind) -> int:
        if self.sequence and kind != "video":
            return self._hidden(kind)
        widths = [step.width for step in self.finish if step.width is not None]
        if widths:
            return widths[-1]
        return self._hidden(kind) * len(self.settings.pooling.split("+"))

    def _hidden(self, kind: Kind) -> int:
        part = {"text": "text_config", "code": "text_config"}.get(kind, "vision_config")
        config = {**self._config, **self._config.get(part, {})}
        for name in _WIDTHS:
            if isinstance(config.get(name), int):
                return int(config[name])
        if config.get("hidden_sizes"):
            return int(config["hidden_sizes"][-1])
        raise MmfuseError(
            f"{self.name}: its config.json does not state the width of its hidden states"
        )

    @property
    def _length(self) -> int:
        """Maximal number of tokens: the option, but no more than the model has positions for."""
        config = {**self._config, **self._config.get("text_config", {})}
        places = config.get("max_position_embeddings") or self.settings.length
        if any(family in str(config.get("model_type")) for family in _OFFSET):
            places -= int(config.get("pad_token_id") or 0) + 1
        own = self.folder.described("tokenizer_config.json").get("model_max_length")
        return min(self.settings.length, places, own or places)

    @cached_property
    def _processors(self) -> dict[Kind, Processor]:
        folder, settings = self.folder, self.settings
        place = None if folder.is_stated else folder.model
        found: dict[Kind, Processor] = {}
        for kind in self.kinds:
            if kind in ("text", "code"):
                found[kind] = TextProcessor(
                    place,
                    self._length,
                    settings.prompt,
                    settings.stripped,
                    settings.lower,
                    folder.stated.get(CONFIG, {}),
                )
            elif kind == "audio":
                stated = folder.described(PREPROCESSOR)
                masked = bool(stated.get("return_attention_mask"))
                found[kind] = AudioProcessor(place, receptive_field(self._config), masked, stated)
            else:
                found[kind] = ImageProcessor(folder.model, settings.frames)
        return found

    @property
    def _vocabulary(self) -> dict[str, object]:
        """What identifies the tokenizer; empty without one."""
        if self.folder.is_stated and "vocab_size" in self._config:
            return HashTokenizer(self._config).fields()
        return dict(self.folder.digests(VOCABULARY))

    @property
    def _assumed(self) -> str:
        return f"read as {self.folder.like}"

    @property
    def _uses_pooler(self) -> bool:
        return POOLER in self.settings.pooling.split("+")

    def _proposal(self) -> str:
        """The preprocessor_config.json that a local folder lacks, where it can be told."""
        if self.folder.local is None or self.folder.described(PREPROCESSOR):
            return ""
        known = self.folder.proposed.get(PREPROCESSOR)
        if known:
            return proposal(PREPROCESSOR, known)
        usual = default_preprocessor(self._config)
        family = self._config.get("model_type")
        condition = f"if its model has the usual preprocessing of {family} in transformers, "
        return proposal(PREPROCESSOR, usual, condition) if usual else ""

    def _load(self) -> Any:  # noqa: ANN401
        pooler = self._uses_pooler
        if not self.folder.random and self.folder.plain is None:
            return load(self.name, self.folder.model, pooler=pooler).to(self._device, self._dtype)
        model = build(self.name, self._config)
        if self.folder.plain is not None:
            remark = load_weights(
                self.name,
                self.folder.plain,
                model,
                self.folder.like,
                optional=[word for word in OPTIONAL if not (pooler and word == POOLER)],
                hint="for another model: --encoder hf:MODEL",
            )
            self._remarks.extend([remark] if remark else [])
        return model.to(self._device, self._dtype)
