"""Preprocessing for transformers models: text to tokens, audio to samples, images to pixels."""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.media.audio import check_resampling, checked_samples
from pipelines.media.payloads import Frames, Unreadable, Waveform
from pipelines.media.video import decode_frames

# A word, number or row of signs with the blank before it, in pieces of at most six characters.
_PIECE = re.compile(r" ?[^\W\d_]{1,5}| ?\d{1,3}| ?[^\w\s]{1,3}|_+|\s+")


@dataclass(frozen=True)
class PreparedInput:
    """A prepared input.

    Attributes:
        values: tokens (L,), samples (L,), a spectrogram, or pixels (3, H, W) or (T, 3, H, W).
        real: length without padding: tokens or samples.
        cut: whether the input was cut for its length.
    """

    values: NDArray[Any]
    real: int
    cut: bool = False


@dataclass(frozen=True)
class ModelBatch:
    """A batch for the model: arrays by argument name, and each item's length without padding."""

    arrays: dict[str, NDArray[Any]]
    real: NDArray[np.int64]


class Processor(Protocol):
    """Preprocessing of one kind of payload."""

    def prepare(self, payload: Any) -> tuple[PreparedInput, int]:  # noqa: ANN401
        """Payload → prepared input and its cost."""

    def groups(self, items: Sequence[PreparedInput]) -> list[list[int]]:
        """Indices of items that can share a batch without influencing each other."""

    def collate(self, items: Sequence[PreparedInput]) -> ModelBatch:
        """Items of one group → a padded batch."""


@dataclass(frozen=True)
class HashTokenizer:
    """Tokens for random weights, which come without a vocabulary: pieces of words, hashed.

    Its texts have about as many tokens as those of byte pairs have, so that speed can be told.

    Attributes:
        config: of the model, with its `vocab_size` and the ids of the tokens around a text.
    """

    config: Mapping[str, Any]

    VERSION: ClassVar[int] = 1

    @property
    def pad_token_id(self) -> int:
        """The token of padding."""
        return int(self.config.get("pad_token_id") or 0)

    def fields(self) -> dict[str, object]:
        """What the tokens depend on, as JSON."""
        return {"hashed": self.VERSION}

    def __call__(
        self, text: str, *, truncation: bool = False, max_length: int = 0, verbose: bool = False
    ) -> dict[str, list[int]]:
        """The tokens of a text, as a tokenizer of transformers gives them."""
        first, last = (int(self.config.get(f"{end}_token_id") or 0) for end in ("bos", "eos"))
        reserved = max(first, last, self.pad_token_id) + 1
        room = int(self.config["vocab_size"]) - reserved
        tokens = [reserved + zlib.crc32(piece.encode()) % room for piece in _PIECE.findall(text)]
        if truncation:
            tokens = tokens[: max(max_length - 2, 0)]
        return {"input_ids": [first, *tokens, last]}


@dataclass(frozen=True)
class TextProcessor:
    """Text and code, tokenised by the model's own tokenizer, cut at `length` tokens.

    Attributes:
        folder: of the vocabulary; None for hashed words.
        length: maximal number of tokens.
        prompt: put before every text.
        stripped: whether white space around a text is stripped.
        lower: whether a text is lower-cased first.
        config: of the model, where its folder has none; else empty.
    """

    folder: Path | None
    length: int
    prompt: str = ""
    stripped: bool = False
    lower: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, payload: str) -> tuple[PreparedInput, int]:
        """Text → tokens; the cost is their number.

        Raises:
            Unreadable: for white space only.
        """
        if not payload.strip():
            raise Unreadable("empty", "the text is only white space")
        text = self.prompt + payload
        text = text.strip() if self.stripped else text
        text = text.lower() if self.lower else text
        tokens = self._tokenizer(text, verbose=False)["input_ids"]
        cut = len(tokens) > self.length
        if cut:
            tokens = self._tokenizer(text, truncation=True, max_length=self.length)["input_ids"]
        return PreparedInput(np.array(tokens, np.int64), len(tokens), cut), len(tokens)

    def groups(self, items: Sequence[PreparedInput]) -> list[list[int]]:
        """One group: the attention mask hides padding."""
        return [list(range(len(items)))]

    def collate(self, items: Sequence[PreparedInput]) -> ModelBatch:
        """(B, L) token ids and their mask."""
        real = np.array([item.real for item in items])
        tokens = np.full((len(items), real.max()), self._tokenizer.pad_token_id or 0, np.int64)
        for row, item in zip(tokens, items, strict=True):
            row[: item.real] = item.values
        present = (np.arange(real.max()) < real[:, None]).astype(np.int64)
        return ModelBatch({"input_ids": tokens, "attention_mask": present}, real)

    def __getstate__(self) -> dict[str, object]:
        """Without the tokenizer, which each process loads itself."""
        return {name: value for name, value in vars(self).items() if name != "_tokenizer"}

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401
        if self.folder is None:
            return HashTokenizer(self.config)
        from transformers import AutoConfig, AutoTokenizer

        known = {"config": AutoConfig.for_model(**self.config)} if self.config else {}
        return AutoTokenizer.from_pretrained(
            self.folder, local_files_only=True, trust_remote_code=False, **known
        )


@dataclass(frozen=True)
class AudioProcessor:
    """Audio, by the model's own feature extractor at its own rate.

    Attributes:
        folder: of the model; None where its preprocessor_config.json is `stated`.
        shortest: minimal number of samples; shorter clips are padded with silence.
        masked: whether the model takes an attention mask; if not, only clips of one length share
            a batch, since its group norm is over all of time.
        stated: the preprocessor_config.json, without a folder.
    """

    folder: Path | None
    shortest: int
    masked: bool
    stated: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, payload: Waveform) -> tuple[PreparedInput, int]:
        """Waveform → the extractor's output; the cost is its number of samples.

        Raises:
            Unreadable: for audio without samples, with NaN or infinity, or too long to resample.
        """
        samples = checked_samples(payload)
        rate = int(self._extractor.sampling_rate)
        if payload.rate != rate:
            import soxr

            check_resampling(len(samples), payload.rate, rate)
            samples = soxr.resample(samples, payload.rate, rate, quality="HQ")
        samples = np.pad(samples, (0, max(self.shortest - len(samples), 0)))
        made = self._extractor(samples, sampling_rate=rate, return_tensors="np")
        values = np.asarray(made[self._argument][0], np.float32)
        if values.ndim == 1:
            return PreparedInput(values, len(values)), len(values)
        most = getattr(self._extractor, "n_samples", None) or len(samples)
        return PreparedInput(values, min(len(samples), most), len(samples) > most), values.size

    def groups(self, items: Sequence[PreparedInput]) -> list[list[int]]:
        """One group if padding can be masked, else by shape."""
        if self.masked and all(item.values.ndim == 1 for item in items):
            return [list(range(len(items)))]
        found: dict[tuple[int, ...], list[int]] = {}
        for place, item in enumerate(items):
            found.setdefault(item.values.shape, []).append(place)
        return list(found.values())

    def collate(self, items: Sequence[PreparedInput]) -> ModelBatch:
        """(B, L) samples, with their mask where lengths differ; or (B, …) spectrograms."""
        real = np.array([item.real for item in items])
        if items[0].values.ndim > 1:
            return ModelBatch({self._argument: np.stack([item.values for item in items])}, real)
        values = np.zeros((len(items), real.max()), np.float32)
        for row, item in zip(values, items, strict=True):
            row[: item.real] = item.values
        arrays: dict[str, NDArray[Any]] = {self._argument: values}
        if self.masked:
            present = np.arange(real.max()) < real[:, None]
            arrays["attention_mask"] = present.astype(np.int64)
        return ModelBatch(arrays, real)

    def __getstate__(self) -> dict[str, object]:
        """Without the extractor, which each process loads itself."""
        return {name: value for name, value in vars(self).items() if name != "_extractor"}

    @property
    def hop(self) -> int:
        """Samples per spectrogram column."""
        return int(getattr(self._extractor, "hop_length", 0) or 160)

    @property
    def _argument(self) -> str:
        return str(self._extractor.model_input_names[0])

    @cached_property
    def _extractor(self) -> Any:  # noqa: ANN401
        if self.folder is None:
            import transformers

            options = dict(self.stated)
            return getattr(transformers, options.pop("feature_extractor_type"))(**options)
        from transformers import AutoFeatureExtractor

        return AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
            self.folder, local_files_only=True, trust_remote_code=False
        )


@dataclass(frozen=True)
class ImageProcessor:
    """Images, resized and cropped by the model's own processor, as uint8 where that is exact.

    A video is `frames` of its images.
    """

    folder: Path
    frames: int

    def prepare(self, payload: Any) -> tuple[PreparedInput, int]:  # noqa: ANN401
        """Image → (3, H, W), video → (T, 3, H, W); the cost is the number of images."""
        if isinstance(payload, Frames):
            shown = decode_frames(payload, self.frames)
            values = np.stack([self._resized(image) for image in shown])
            return PreparedInput(values, len(values)), len(values)
        return PreparedInput(self._resized(payload), 1), 1

    def groups(self, items: Sequence[PreparedInput]) -> list[list[int]]:
        """One group."""
        return [list(range(len(items)))]

    def collate(self, items: Sequence[PreparedInput]) -> ModelBatch:
        """(images, 3, H, W), those of videos one after another."""
        shown = [item.values if item.values.ndim == 4 else item.values[None] for item in items]
        return ModelBatch(
            {"pixel_values": np.concatenate(shown)}, np.array([len(v) for v in shown])
        )

    def scale(self, values: Any) -> Any:  # noqa: ANN401 - a tensor on the device
        """Rescale and normalise uint8 pixels on their device, as the model's processor does."""
        import torch

        if values.dtype != torch.uint8:
            return values
        one = self._processor
        values = values.to(torch.float32)
        if one.do_rescale:
            values = values * one.rescale_factor
        if one.do_normalize:
            mean, std = (
                torch.tensor(list(constants), device=values.device)[:, None, None]
                for constants in (one.image_mean, one.image_std)
            )
            values = (values - mean) / std
        return values

    def __getstate__(self) -> dict[str, object]:
        """Without the processor, which each process loads itself."""
        return {name: value for name, value in vars(self).items() if name != "_processor"}

    def _resized(self, image: Any) -> NDArray[Any]:  # noqa: ANN401
        own = self._processor(
            images=image, do_rescale=False, do_normalize=False, return_tensors="pt"
        )
        values = own["pixel_values"][0].numpy()
        if values.dtype == np.uint8:
            return np.ascontiguousarray(values)
        whole = np.rint(values)
        if np.array_equal(whole, values) and values.min() >= 0 and values.max() <= 255:
            return np.ascontiguousarray(whole.astype(np.uint8))
        made = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return np.ascontiguousarray(made.numpy().astype(np.float32))

    @cached_property
    def _processor(self) -> Any:  # noqa: ANN401
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            self.folder, local_files_only=True, trust_remote_code=False
        )


def default_preprocessor(config: Mapping[str, Any]) -> dict[str, Any]:
    """The usual preprocessing of an architecture in transformers, as preprocessor_config.json.

    Args:
        config: the model's config.json.

    Returns:
        JSON, with the sizes of the model; empty for models of text.
    """
    import transformers
    from transformers.models.auto import feature_extraction_auto, image_processing_auto

    family = str(config.get("model_type"))
    images: Any = vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
    sounds: Any = vars(feature_extraction_auto)["FEATURE_EXTRACTOR_MAPPING_NAMES"]
    names = images.get(family) or sounds.get(family)
    if isinstance(names, Mapping):  # newer versions: by what it computes with
        names = names.get("torchvision") or next(iter(names.values()))
    elif isinstance(names, Sequence) and not isinstance(names, str):  # older: slow and fast
        names = next((name for name in names if name), None)
    if not names:
        return {}
    own = getattr(transformers, names)()
    found: dict[str, Any] = json.loads(json.dumps(own.to_dict(), default=int))
    sizes = config.get("vision_config") or config
    if {"height", "width"} <= set(found.get("size") or ()) and "image_size" in sizes:
        found["size"] = dict.fromkeys(("height", "width"), sizes["image_size"])
    if "num_mel_bins" in config:
        found["feature_size"] = config["num_mel_bins"]
    if "feat_extract_norm" in config:
        found["return_attention_mask"] = config["feat_extract_norm"] == "layer"
    return found
