"""CLIP and related models through open_clip: image, text and video embeddings, not normalised.

Transparency of images is dropped, as the loaders of the reference libraries do, not blended.
Images for a plain weights file are prepared as open_clip does for the named model and tag.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from cache.storage.weight_digests import WeightsMemory
from pipelines.device import to_device
from pipelines.encoding import open_clip
from pipelines.encoding.hub import (
    Download,
    File,
    find_files,
    local_weights,
    read_local,
    weights_tag,
)
from pipelines.encoding.open_clip import Checkpoint
from pipelines.encoding.pretrained import (
    PretrainedEncoder,
    as_single_frames,
    encode_images,
    image_pixels,
    normalize_pixels,
    to_rows,
    trained_or_random,
    video_fields,
)
from pipelines.encoding.weights import RANDOM, SEED
from pipelines.media.payloads import Unreadable

KINDS: dict[Kind, int | None] = {"image": 512, "text": 512, "video": 512}
NEEDS_WEIGHTS = True
DEFAULT = "ViT-B-32-quickgelu/openai"

Item = tuple[NDArray[Any], bool]  # pixels or tokens, and whether text was cut


@dataclass(frozen=True, kw_only=True)
class Clip(PretrainedEncoder):
    """A CLIP checkpoint; text beyond the context length is cut and counted as truncated.

    A video is `frames` evenly spaced images, encoded one by one and pooled by their maximum, or
    stored one by one with `sequence`.
    """

    checkpoint: Checkpoint
    memory: WeightsMemory
    frames: int = 15

    VERSION: ClassVar[int] = 1
    LIBRARIES: ClassVar[tuple[str, ...]] = ("open_clip_torch", "torch", "pillow")

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """Every kind, with the width of the checkpoint's one embedding space."""
        return dict.fromkeys(KINDS, int(self.checkpoint.config["embed_dim"]))

    @property
    def weights(self) -> Literal["pretrained", "random"]:
        """Whether the checkpoint was ever trained, read off its normalisation layers."""
        if self.checkpoint.is_random:
            return "random"
        path = self._file.path
        if path is None:
            return "pretrained"
        if path.suffix == ".safetensors":
            return weights_tag(path)
        return trained_or_random(self._model)

    def fields(self, kind: Kind) -> dict[str, object]:
        """Weights by sha256, architecture, preprocessing, and the compute dtype."""
        random = self.checkpoint.is_random
        found: dict[str, object] = {
            **self._common_fields(),
            "weights": {"random": SEED} if random else {"sha256": self._file.sha256},
            "model": self.checkpoint.config,
            "normalise": False,
        }
        if kind == "text":
            return {**found, "tokenizer": self._vocabulary}
        found["preprocess"] = self.checkpoint.preprocess.fields()
        return found | video_fields(kind, self.frames)

    def download(self) -> Download | None:
        """What is to be fetched before the first batch; None where all of it is here."""
        return self._found[1]

    def prepare(self, kind: Kind, payload: Any) -> tuple[Item, int]:  # noqa: ANN401
        """Image → (H, W, 3) uint8; text → (L,) tokens; video → (T, H, W, 3) uint8.

        The cost is the number of tokens or images.

        Raises:
            Unreadable: for a text of white space only.
        """
        if kind == "text":
            if not payload.strip():
                raise Unreadable("empty", "the text is only white space")
            tokens, cut = self._tokenise(payload)
            return (tokens, cut), len(tokens)
        values, cost = image_pixels(kind, payload, self.checkpoint.preprocess, self.frames)
        return (values, False), cost

    def truncated(self, item: Item) -> bool:
        """Whether a text was cut for its length."""
        return item[1]

    @property
    def _memory(self) -> WeightsMemory:
        return self.memory

    @property
    def _plain(self) -> Path | None:
        return self.checkpoint.plain

    @property
    def _is_random(self) -> bool:
        return self.checkpoint.is_random

    @property
    def _assumed(self) -> str:
        checkpoint = self.checkpoint
        height, width = checkpoint.preprocess.size
        return (
            f"read as {checkpoint.name}, with the preprocessing of {checkpoint.preprocessed_as}: "
            f"{height} × {width} pixels, {checkpoint.preprocess.interpolation}"
        )

    def _source(self) -> dict[str, object]:
        published, plain = self.checkpoint.published, self.checkpoint.plain
        return {
            "model": Path(self.checkpoint.name).name,
            "repository": published.repository if published else None,
            **({"file": plain.name} if plain else {}),
        }

    def _run(self, model: Any, kind: Kind, batch: Sequence[Item]) -> list[NDArray[Any]]:  # noqa: ANN401
        items = [values for values, _ in batch]
        if kind == "text":
            return as_single_frames(self._texts(model, items), sequence=self.sequence)

        def run(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
            values = normalize_pixels(images, self.checkpoint.preprocess, self._device)
            # In half precision open_clip keeps norms and embeddings in float32: ask no parameter.
            values = values if model is self.__dict__.get("_exact") else values.to(self._dtype)
            return to_rows(model.encode_image(values))

        return encode_images(run, kind, items, sequence=self.sequence)

    def _texts(self, model: Any, batch: list[NDArray[np.int64]]) -> NDArray[np.float32]:  # noqa: ANN401
        longest = self._context
        if open_clip.is_causal(model):  # a text's vector does not depend on what follows its end
            longest = max(len(tokens) for tokens in batch)
        tokens = np.zeros((len(batch), longest), np.int64)
        for row, own in zip(tokens, batch, strict=True):
            row[: len(own)] = own
        ids = to_device(tokens, self._device)
        if longest < self._context:
            return to_rows(open_clip.encode_causal_text(model, ids))
        return to_rows(model.encode_text(ids))

    @property
    def _context(self) -> int:
        return int(self.checkpoint.text.get("context_length", 77))

    @cached_property
    def _found(self) -> tuple[dict[str, File], Download | None]:
        if self.checkpoint.published is None:
            return {}, None
        return find_files(self.checkpoint.published, self.memory)

    @cached_property
    def _file(self) -> File:
        if self.checkpoint.local is not None:
            return read_local(self.checkpoint.local, self.memory)
        return next(iter(self._found[0].values()))

    @cached_property
    def _words(self) -> dict[str, File]:
        """Files of a tokenizer that is not CLIP's own."""
        wanted, folder = self.checkpoint.tokenizer, self.checkpoint.folder
        if wanted is not None:
            return find_files(wanted, self.memory)[0]
        if folder is None or not self.checkpoint.text.get("hf_tokenizer_name"):
            return {}
        names = {*open_clip.VOCABULARIES[0], *open_clip.TOKENIZER_FILES} - {"config.json"}
        there = sorted(name for name in names if (folder / name).is_file())
        return {name: read_local(folder / name, self.memory) for name in there}

    @cached_property
    def _vocabulary(self) -> dict[str, object]:
        own = {"bpe": read_local(open_clip.vocabulary(), self.memory)}
        files = self._words or own
        return {"context": self._context, **{name: file.sha256 for name, file in files.items()}}

    @cached_property
    def _tokenise(self) -> Callable[[str], open_clip.Tokens]:
        return open_clip.tokenizer(self.checkpoint.text, self._context, _folder(self._words))

    def _load(self) -> Any:  # noqa: ANN401
        checkpoint, path = self.checkpoint, None
        if checkpoint.local or checkpoint.published:
            download = self.download()
            if download is not None:
                download.fetch()
                del self.__dict__["_found"], self.__dict__["_file"]
            path = self._file.path
        wanted = checkpoint.tower
        tower = None if wanted is None else _folder(find_files(wanted, self.memory)[0])
        model, remark = open_clip.load(checkpoint, path, tower, self._dtype, self._device)
        self._remarks.extend([remark] if remark else [])
        return model


def build(
    *,
    model: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sequence: bool = False,
    frames: int = 15,
    memory: Path | None = None,
) -> Clip:
    """A CLIP checkpoint as an encoder; nothing is loaded yet.

    Args:
        model: MODEL/TAG of open_clip, such as `ViT-B-16/openai`; the tag `random` is random weights
            from a fixed seed.
        weights: a plain weights file of that model (.safetensors, or .pt, .pth and .bin of plain
            tensors), or a folder with `open_clip_config.json` and weights.
        device: `auto`, `cpu`, `cuda`, …
        dtype: compute dtype.
        sequence: a vector for each image of a video.
        frames: evenly spaced images taken of a video.
        memory: file of weights digests and golden probes.
    """
    name, _, published = (model or DEFAULT).partition("/")
    if model == RANDOM:
        name, published = DEFAULT.partition("/")[0], RANDOM
    if weights is None:
        checkpoint = open_clip.published(name, published or "openai")
    elif published == RANDOM:
        raise MmfuseError(f"clip:{model} asks for random weights; leave --weights {weights} out")
    else:
        checkpoint = open_clip.local(local_weights(weights, "clip").resolve(), name, published)
    return Clip(
        name="clip",
        checkpoint=checkpoint,
        memory=WeightsMemory(memory),
        frames=frames,
        sequence=sequence,
        device=device,
        dtype=dtype,
    )


def _folder(files: Mapping[str, File]) -> Path | None:
    """Folder that holds the files of one repository."""
    return next((file.path.parent for file in files.values() if file.path), None)
