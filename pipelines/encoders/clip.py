"""CLIP and its kin through open_clip: images, text and video in one space, raw vectors."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from cache.storage.weight_digests import WeightsMemory
from pipelines.device import check_dtype, pick_device, pick_dtype
from pipelines.encoding import open_clip, pretrained
from pipelines.encoding.encoder import Storage
from pipelines.encoding.hub import (
    Download,
    File,
    find_files,
    local_weights,
    read_local,
    weights_tag,
)
from pipelines.encoding.open_clip import Checkpoint
from pipelines.media.decode import pictures
from pipelines.media.images import frame_numbers, pixels
from pipelines.media.payloads import Unreadable

if TYPE_CHECKING:
    import torch

KINDS: dict[Kind, int | None] = {"image": 512, "text": 512, "video": 512}
NEEDS_WEIGHTS = True
DEFAULT = "ViT-B-32-quickgelu/openai"
VERSION = 1

Item = tuple[NDArray[Any], bool]  # what the model eats, and whether text was cut


@dataclass(frozen=True)
class Clip:
    """A CLIP checkpoint; text beyond the context length is cut, and said to be.

    Video is `frames` evenly spaced pictures, encoded one by one and joined by the maximum of each
    number, or kept with `sequence`.
    """

    checkpoint: Checkpoint
    device: str
    dtype: str
    frames: int
    sequence: bool
    memory: WeightsMemory
    name: str = "clip"
    storage: Storage = "float16"

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """Every kind in the one space of the checkpoint."""
        return dict.fromkeys(KINDS, int(self.checkpoint.config["embed_dim"]))

    @property
    def weights(self) -> Literal["pretrained", "random"]:
        """Whether the checkpoint was ever trained, read off its normalisation layers."""
        if self.checkpoint.local is None and self.checkpoint.published is None:
            return "random"
        path = self._file.path
        if path is None:
            return "pretrained"
        if path.suffix == ".safetensors":
            return weights_tag(path)
        return pretrained.trained_or_random(self._model)

    def fields(self, kind: Kind) -> dict[str, object]:
        """Weights by sha256, architecture, what is done to the input, and the compute dtype."""
        random = self.checkpoint.local is None and self.checkpoint.published is None
        made: dict[str, object] = {
            "encoder": self.name,
            "version": VERSION,
            "weights": {"random": open_clip.SEED} if random else {"sha256": self._file.sha256},
            "model": self.checkpoint.config,
            "compute": self.dtype,
            "storage": self.storage,
            "normalise": False,
            "sequence": self.sequence,
        }
        if kind == "text":
            return {**made, "tokenizer": self._vocabulary}
        made["preprocess"] = self.checkpoint.preprocess.fields()
        if kind == "video":
            made |= {"frames": self.frames, "decoder": "pyav"}
        return made

    def provenance(self) -> dict[str, object]:
        """The model's name and repository, libraries, and once loaded where and in what it ran."""
        source = self.checkpoint.published
        told: dict[str, object] = {
            "model": Path(self.checkpoint.name).name,
            "repository": source.repository if source else None,
            "versions": pretrained.versions("open_clip_torch", "torch", "pillow"),
        }
        if "_model" in self.__dict__:
            told |= {"device": str(self._device), "dtype": str(self._dtype)}
        return told

    def download(self) -> Download | None:
        """What is to be fetched before the first batch; None where all of it is here."""
        return self._found[1]

    def prepare(self, kind: Kind, payload: Any) -> tuple[Item, int]:  # noqa: ANN401
        """Picture → (H, W, 3) uint8; text → (L,) tokens; film → (T, H, W, 3) uint8.

        The cost is the number of tokens or pictures.

        Raises:
            Unreadable: for a text of blanks only.
        """
        if kind == "text":
            if not payload.strip():
                raise Unreadable("empty", "the text holds nothing but blanks")
            tokens, cut = self._tokenise(payload)
            return (tokens, cut), len(tokens)
        if kind == "image":
            return (pixels(payload, self.checkpoint.preprocess), False), 1
        shown = pictures(payload, frame_numbers(payload.count, self.frames))
        film = np.stack([pixels(picture, self.checkpoint.preprocess) for picture in shown])
        return (film, False), len(film)

    def encode(self, kind: Kind, batch: Sequence[Item]) -> list[NDArray[Any]]:
        """Prepared items → (D,) float32 each; with `sequence` (T, D), T = 1 but for video."""
        if kind not in self._probed:
            self._probed.add(kind)
            self._check(kind)
        return self._encode(kind, [values for values, _ in batch])

    def truncated(self, item: Item) -> bool:
        """Whether some of a text was left out for its length."""
        return item[1]

    def __getstate__(self) -> dict[str, object]:
        """Without the loaded model: workers prepare, they do not encode."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def _encode(self, kind: Kind, batch: list[NDArray[Any]]) -> list[NDArray[Any]]:
        found = self._run(self._model, kind, batch)
        return pretrained.again_in_float32(
            found, lambda places: self._run(self._exact, kind, [batch[p] for p in places])
        )

    def _run(self, model: Any, kind: Kind, batch: list[NDArray[Any]]) -> list[NDArray[Any]]:  # noqa: ANN401
        import torch

        with torch.inference_mode():
            if kind == "text":
                return pretrained.as_single_frames(
                    self._texts(model, batch), sequence=self.sequence
                )
            if kind == "image":
                return pretrained.as_single_frames(
                    self._images(model, batch), sequence=self.sequence
                )
            rows = self._images(model, [picture for film in batch for picture in film])
            counts = [len(film) for film in batch]
            return pretrained.pool_frames(rows, counts, sequence=self.sequence)

    def _images(self, model: Any, batch: list[NDArray[np.uint8]]) -> NDArray[np.float32]:  # noqa: ANN401
        values = pretrained.normalised(batch, self.checkpoint.preprocess, self._device)
        # In half precision open_clip keeps norms and embeddings in float32: ask no parameter.
        values = values if model is self.__dict__.get("_exact") else values.to(self._dtype)
        return pretrained.to_rows(model.encode_image(values))

    def _texts(self, model: Any, batch: list[NDArray[np.int64]]) -> NDArray[np.float32]:  # noqa: ANN401
        longest = self._context
        if open_clip.is_causal(model):  # what comes after a text's end is not seen from it
            longest = max(len(tokens) for tokens in batch)
        tokens = np.zeros((len(batch), longest), np.int64)
        for row, own in zip(tokens, batch, strict=True):
            row[: len(own)] = own
        ids = pretrained.to_device(tokens, self._device)
        if longest < self._context:
            return pretrained.to_rows(open_clip.encode_causal_text(model, ids))
        return pretrained.to_rows(model.encode_text(ids))

    def _check(self, kind: Kind) -> None:
        if kind == "video" or self.memory.path is None:
            return  # the pictures of a film are checked as images are
        (values, _), _ = self.prepare(kind, pretrained.probe_payload(kind))
        vector = self._encode(kind, [values])[0].reshape(-1)
        pretrained.check_probe(self, kind, vector, self.memory)

    @property
    def _context(self) -> int:
        return int(self.checkpoint.text.get("context_length", 77))

    @cached_property
    def _probed(self) -> set[Kind]:
        return set()

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
        """Files of a vocabulary that is not CLIP's own."""
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

    @cached_property
    def _device(self) -> "torch.device":
        return pick_device(self.device)

    @property
    def _dtype(self) -> "torch.dtype":
        return pick_dtype(self.dtype, self._device)

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401 - open_clip has no types
        checkpoint, path = self.checkpoint, None
        if checkpoint.local or checkpoint.published:
            download = self.download()
            if download is not None:
                download.fetch()
                del self.__dict__["_found"], self.__dict__["_file"]
            path = self._file.path
        wanted = checkpoint.tower
        tower = None if wanted is None else _folder(find_files(wanted, self.memory)[0])
        return open_clip.load(checkpoint, path, tower, self._dtype, self._device)

    @cached_property
    def _exact(self) -> Any:  # noqa: ANN401
        """The model in float32, for what overflows in half precision."""
        return copy.deepcopy(self._model).float()


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
        model: MODEL/TAG of open_clip, such as `ViT-B-16/openai`; the tag `random` is never trained.
        weights: a weights file of that model (.safetensors, or .pt and .bin of plain tensors), or a
            folder with `open_clip_config.json` and weights.
        device: where it encodes.
        dtype: what it computes in.
        sequence: keep a vector for each picture of a film.
        frames: pictures taken of a film.
        memory: file where digests and golden probes are kept.
    """
    name, _, published = (model or DEFAULT).partition("/")
    if weights is None:
        checkpoint = open_clip.published(name, published or "openai")
    elif published == "random":
        raise MmfuseError(f"clip:{model} asks for random weights; leave --weights {weights} out")
    else:
        checkpoint = open_clip.local(local_weights(weights, "clip").resolve(), name, published)
    return Clip(checkpoint, device, check_dtype(dtype), frames, sequence, WeightsMemory(memory))


def _folder(files: Mapping[str, File]) -> Path | None:
    """Where the files of one repository lie together."""
    return next((file.path.parent for file in files.values() if file.path), None)
