"""A model's folder, local or on the hub: its files, their digests and its JSON configurations."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cache.errors import MmfuseError
from cache.storage.weight_digests import WeightsMemory
from pipelines.encoding.hub import (
    Download,
    File,
    RepositoryFiles,
    find_files,
    local_weights,
    read_local,
    weights_tag,
)

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
VOCABULARY = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
PREPROCESSOR = "preprocessor_config.json"
_NOT_IDENTITY = {"transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model in one place.

    Attributes:
        repository: on the hub; "" for a local folder.
        local: the folder behind `--weights`, or None.
        groups: one file of each group is needed.
        extra: files that are used where they exist.
        memory: cache of digests.
        inner: subfolder that holds the model itself, mostly ""; `described` and `digests` take
            names inside it.
    """

    repository: str
    local: Path | None
    groups: tuple[tuple[str, ...], ...]
    extra: tuple[str, ...]
    memory: WeightsMemory
    inner: str = ""

    @property
    def files(self) -> dict[str, File]:
        """By name as the repository has it; without paths for what is still on the hub.

        Raises:
            MmfuseError: where they are neither local nor on the hub.
        """
        return self._found[0]

    @property
    def download(self) -> Download | None:
        """What is to be downloaded first; None where all of it is local."""
        return self._found[1]

    @property
    def path(self) -> Path:
        """The local folder with all files, downloaded if necessary."""
        if self.download is not None:
            self.download.fetch()
            del self.__dict__["_found"]
        for name, file in self.files.items():
            if file.path is not None:
                return Path(str(file.path).removesuffix(name))
        raise MmfuseError(f"{self.repository or self.local}: no file of it is here")

    @property
    def model(self) -> Path:
        """The folder of the model itself."""
        return self.path / self.inner

    @property
    def weights(self) -> list[File]:
        """The files that hold tensors."""
        ends = (".safetensors", ".bin")
        return [f for n, f in self.files.items() if self._own(n) and n.endswith(ends)]

    @property
    def tag(self) -> Literal["pretrained", "random"] | None:
        """Whether the model was ever trained; None where that needs loading it."""
        paths = [file.path for file in self.weights]
        if any(path is None for path in paths):
            return "pretrained"
        if not all(path and path.suffix == ".safetensors" for path in paths):
            return None
        return "pretrained" if "pretrained" in [weights_tag(p) for p in paths if p] else "random"

    def described(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder, without keys on where and by which version it was written."""
        file = self.files.get(f"{self.inner}{name}")
        if file is None or file.path is None:
            return {}
        found = json.loads(file.path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise MmfuseError(f"{file.path}: expected a JSON object")
        dropped = _NOT_IDENTITY
        return {k: v for k, v in found.items() if k not in dropped and not k.startswith("_")}

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Sha256 of those named files that exist."""
        whole = {name: f"{self.inner}{name}" for name in names}
        return {n: self.files[w].sha256 for n, w in whole.items() if w in self.files}

    def _own(self, name: str) -> bool:
        return name.startswith(self.inner) and "/" not in name.removeprefix(self.inner)

    @cached_property
    def _found(self) -> tuple[dict[str, File], Download | None]:
        files, download = self._look(self.groups)
        index = next((n for n in files if n.endswith(".index.json")), None)
        if index is None:
            return files, download
        shards = sorted({f"{self.inner}{name}" for name in self._shards(files[index])})
        found, download = self._look((*self.groups, *((shard,) for shard in shards)))
        return found, download

    def _look(self, groups: tuple[tuple[str, ...], ...]) -> tuple[dict[str, File], Download | None]:
        if self.local is None:
            return find_files(RepositoryFiles(self.repository, groups, self.extra), self.memory)
        files = {}
        for group in groups:
            name = next((n for n in group if (self.local / n).is_file()), None)
            if name is None:
                raise MmfuseError(f"{self.local} holds no {' or '.join(group)}")
            files[name] = read_local(self.local / name, self.memory, name)
        there = [name for name in self.extra if (self.local / name).is_file()]
        return files | {n: read_local(self.local / n, self.memory, n) for n in there}, None

    @staticmethod
    def _shards(index: File) -> Iterable[str]:
        if index.path is None:
            raise MmfuseError(f"{index.name} was to be downloaded and is missing")
        parts: dict[str, str] = json.loads(index.path.read_text(encoding="utf-8"))["weight_map"]
        return parts.values()


def find_model_files(
    encoder: str,
    repository: str,
    weights: str | None,
    memory: Path | None,
    *,
    groups: tuple[tuple[str, ...], ...] = (WEIGHTS, ("config.json",)),
    extra: tuple[str, ...] = (*VOCABULARY, PREPROCESSOR),
    inner: str = "",
) -> ModelFiles:
    """Locate a model's files: `--weights`, else a local path as its name, else the hub.

    Raises:
        MmfuseError: for a missing path, or a file where a folder is needed.
    """
    local = None
    if weights is not None or repository.startswith((".", "/", "~")):
        local = local_weights(weights or repository, encoder).resolve()
        if not local.is_dir():
            raise MmfuseError(
                f"{encoder}: --weights takes the folder that holds config.json beside the "
                f"weights; {local} is a file"
            )
    names = tuple(tuple(f"{inner}{name}" for name in group) for group in groups)
    more = tuple(f"{inner}{name}" for name in extra)
    where = "" if local else repository
    return ModelFiles(where, local, names, more, WeightsMemory(memory), inner)
