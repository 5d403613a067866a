"""A frozen transformers model as an encoder: its own inputs, a layer of it, pooled over time."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from cache.samples import Kind
from pipelines.device import pick_device, pick_dtype
from pipelines.encoding import pretrained
from pipelines.encoding.encoder import Storage
from pipelines.encoding.hub import Download
from pipelines.encoding.model_files import PREPROCESSOR, VOCABULARY, ModelFiles
from pipelines.encoding.pooling import (
    POOLS,
    HiddenStates,
    audio_frames,
    hidden_states,
    load,
    pool,
    receptive_field,
    submodel,
)
from pipelines.encoding.processors import (
    AudioProcessor,
    ImageProcessor,
    ModelBatch,
    PreparedInput,
    Processor,
    TextProcessor,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel as Model

VERSION = 1
_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "embed_dim")
_OFFSET = ("roberta", "camembert", "mpnet", "longformer", "esm")  # positions start behind padding
_POOLED = ("siglip",)  # families whose attention pool is trained and meant


@dataclass(frozen=True)
class ModelSettings:
    """What is asked of a model.

    Attributes:
        pooling: `cls` (the first token), `mean` or `max` over what is not padding, `pooler` (the
            model's own); `auto` is mean, and for pictures the first token, the family's own pool,
            or the mean of a feature map.
        layer: index into the hidden states; -1 is the last, after its final norm.
        length: most tokens of a text.
        frames: pictures of a film, joined by the maximum of each number.
        sequence: all of what would be pooled.
        stripped: whether blanks around a text are taken off.
        lower: whether a text is put into lower case first.
        prompt: put before every text.
    """

    pooling: str = "auto"
    layer: int = -1
    length: int = 512
    frames: int = 15
    sequence: bool = False
    stripped: bool = False
    lower: bool = False
    prompt: str = ""

    def __post_init__(self) -> None:
        """Check words that come from the command line."""
        known = {"auto", "pooler", *POOLS}
        for word in self.pooling.split("+"):
            if word not in known:
                raise unknown("pooling", word, known)


class PostProcessing(Protocol):
    """What is done to pooled vectors, after the model."""

    @property
    def width(self) -> int | None:
        """Of what comes out; None for as before."""

    def fields(self) -> dict[str, object]:
        """As JSON, for the fingerprint."""

    def apply(self, vectors: "torch.Tensor", folder: Path) -> "torch.Tensor":
        """(B, D) → (B, width)."""


@dataclass(frozen=True)
class TransformersModel:
    """One transformers model of text, sound or pictures; both of CLIP's and SigLIP's towers."""

    name: str
    folder: ModelFiles
    settings: ModelSettings
    device: str
    dtype: str
    only: tuple[Kind, ...] = ()
    finish: tuple[PostProcessing, ...] = ()
    storage: Storage = "float16"

    @property
    def sequence(self) -> bool:
        """Whether it gives (T, D) a sample."""
        return self.settings.sequence

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """What its files say it is for, with the width of its hidden states.

        Raises:
            MmfuseError: without weights, or for a model that serves none of our kinds.
        """
        config, preprocessor = self._config, self.folder.described(PREPROCESSOR)
        words = bool(self.folder.digests(VOCABULARY))
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
                f"{self.name}: {self.folder.repository or self.folder.local} holds neither a "
                f"vocabulary nor a {PREPROCESSOR} for {', '.join(self.only) or 'any kind'}"
            )
        return {kind: self._width(kind) for kind in kinds}

    @property
    def weights(self) -> Literal["pretrained", "random"]:
        """Whether the model was ever trained, read off its normalisation layers."""
        return self.folder.tag or pretrained.trained_or_random(self._model)

    def fields(self, kind: Kind) -> dict[str, object]:
        """Weights by sha256, architecture, what is done to the input, layer and pooling."""
        made: dict[str, object] = {
            "encoder": self.name,
            "version": VERSION,
            "weights": {file.name: file.sha256 for file in self.folder.weights},
            "model": self._config,
            "pooling": self.settings.pooling,
            "layer": self.settings.layer,
            "sequence": self.sequence,
            "compute": self.dtype,
            "storage": self.storage,
            "finish": [step.fields() for step in self.finish],
        }
        if kind in ("text", "code"):
            made |= {"length": self._length, "tokenizer": self.folder.digests(VOCABULARY)}
            asked = self.settings
            return made | {
                "prompt": asked.prompt, "stripped": asked.stripped, "lower": asked.lower
            }  # fmt: skip
        made["preprocess"] = self.folder.described(PREPROCESSOR)
        if kind == "video":
            made |= {"frames": self.settings.frames, "decoder": "pyav"}
        return made

    def provenance(self) -> dict[str, object]:
        """Repository, libraries, and once loaded where and in what it ran."""
        told: dict[str, object] = {
            "repository": self.folder.repository or None,
            "versions": pretrained.versions("transformers", "tokenizers", "torch"),
        }
        if "_model" in self.__dict__:
            told |= {"device": str(self._device), "dtype": str(self._dtype)}
        return told

    def download(self) -> Download | None:
        """What is to be fetched before the first batch; None where all of it is here."""
        return self.folder.download

    def prepare(self, kind: Kind, payload: Any) -> tuple[PreparedInput, int]:  # noqa: ANN401
        """Payload → item and its cost in tokens, samples or pictures.

        Raises:
            Unreadable: for blank text, and sound without samples or with NaN.
        """
        return self._senses[kind].prepare(payload)

    def encode(self, kind: Kind, batch: Sequence[PreparedInput]) -> list[NDArray[Any]]:
        """Items → (D,) float32 each, or (T, D) with `sequence`."""
        if kind not in self._probed:
            self._probed.add(kind)
            self._check(kind)
        return self._encode(kind, batch)

    def truncated(self, item: PreparedInput) -> bool:
        """Whether some of an input was left out for its length."""
        return item.cut

    def __getstate__(self) -> dict[str, object]:
        """Without the loaded model: workers prepare, they do not encode."""
        kept: dict[str, object] = {own.name: getattr(self, own.name) for own in fields(self)}
        if "_senses" in self.__dict__:
            kept["_senses"] = self._senses
        return kept

    def _encode(self, kind: Kind, batch: Sequence[PreparedInput]) -> list[NDArray[Any]]:
        sense = self._senses[kind]
        found: list[NDArray[Any]] = [np.empty(0)] * len(batch)
        for places in sense.groups(batch):
            given = sense.given([batch[place] for place in places])
            rows = self._rows(self._model, kind, sense, given)
            for place, row in zip(places, rows, strict=True):
                found[place] = row
        return pretrained.again_in_float32(
            found, lambda bad: [self._alone(kind, batch[place]) for place in bad]
        )

    def _alone(self, kind: Kind, item: PreparedInput) -> NDArray[Any]:
        sense = self._senses[kind]
        return self._rows(self._exact, kind, sense, sense.given([item]))[0]

    def _rows(
        self, model: "Model", kind: Kind, sense: Processor, given: ModelBatch
    ) -> list[NDArray[Any]]:
        """One vector or sequence an item."""
        import torch

        with torch.inference_mode():
            found, present = self._states(model, kind, sense, given)
            if self.sequence and kind != "video":
                rows = pretrained.to_rows(found.values)
                counts = present.sum(dim=1).tolist()
                return [row[:count] for row, count in zip(rows, counts, strict=True)]
            pooled = pool(self._pooling(kind, found), found, present)
            vectors = pretrained.to_rows(self._finished(pooled))
        if kind == "video":
            return pretrained.pool_frames(vectors, given.real.tolist(), sequence=self.sequence)
        return list(vectors)

    def _states(
        self, model: "Model", kind: Kind, sense: Processor, given: ModelBatch
    ) -> tuple[HiddenStates, "torch.Tensor"]:
        """Hidden states (B, T, D) and which of them are not of padding (B, T)."""
        import torch

        arrays = {n: pretrained.to_device(v, self._device) for n, v in given.arrays.items()}
        if isinstance(sense, ImageProcessor):
            arrays["pixel_values"] = sense.scale(arrays["pixel_values"])
        arrays = {n: v.to(model.dtype) if v.is_floating_point() else v for n, v in arrays.items()}
        part = submodel(model, kind)
        found = hidden_states(part, arrays, self.settings.layer)
        rows, count = found.values.shape[:2]
        real = torch.from_numpy(given.real)
        if isinstance(sense, AudioProcessor):
            first = next(iter(arrays.values()))
            real = audio_frames(part, real, first, sense.hop, count)
        elif isinstance(sense, ImageProcessor):
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

    def _check(self, kind: Kind) -> None:
        memory = self.folder.memory
        if memory.path is None or kind == "video":
            return
        item, _ = self.prepare(kind, pretrained.probe_payload(kind))
        vector = self._encode(kind, [item])[0]
        vector = vector if vector.ndim == 1 else vector.mean(axis=0)
        pretrained.check_probe(self, kind, vector, memory)

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
        raise MmfuseError(f"{self.name}: its config.json does not say how wide its states are")

    @property
    def _config(self) -> dict[str, Any]:
        return self.folder.described("config.json")

    @property
    def _length(self) -> int:
        """Tokens a text is cut at: as asked, but no more than the model has places for."""
        config = {**self._config, **self._config.get("text_config", {})}
        places = config.get("max_position_embeddings") or self.settings.length
        if any(family in str(config.get("model_type")) for family in _OFFSET):
            places -= int(config.get("pad_token_id") or 0) + 1
        own = self.folder.described("tokenizer_config.json").get("model_max_length")
        return min(self.settings.length, places, own or places)

    @cached_property
    def _probed(self) -> set[Kind]:
        return set()

    @cached_property
    def _senses(self) -> dict[Kind, Processor]:
        place, kinds = self.folder.model, self.kinds
        sights = ImageProcessor(place, self.settings.frames)
        asked = self.settings
        words = TextProcessor(place, self._length, asked.prompt, asked.stripped, asked.lower)
        preprocessor = self.folder.described(PREPROCESSOR)
        masked = bool(preprocessor.get("return_attention_mask"))
        sounds = AudioProcessor(place, receptive_field(self._config), masked)
        every: dict[Kind, Processor] = {
            "image": sights, "video": sights, "text": words, "code": words, "audio": sounds,
        }  # fmt: skip
        return {kind: every[kind] for kind in kinds}

    @cached_property
    def _device(self) -> "torch.device":
        return pick_device(self.device)

    @property
    def _dtype(self) -> "torch.dtype":
        return pick_dtype(self.dtype, self._device)

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401
        return load(self.name, self.folder.model).to(self._device, self._dtype)

    @cached_property
    def _exact(self) -> Any:  # noqa: ANN401
        """The model in float32, for what overflows in half precision."""
        return copy.deepcopy(self._model).float()
