"""A model's files: a folder, local or on the hub, or plain weights; digests and descriptions."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
from pipelines.encoding.weights import SEED, check_plain, is_path

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
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
Description = Mapping[str, Mapping[str, Any]]  # JSON files by name
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
        plain: a plain weights file, instead of those of the folder.
        random: whether the weights are random ones from a fixed seed, instead of those of a file.
        like: the model that describes plain or random weights, for messages.
        stated: JSON files that no folder has to hold, since they are known of that model.
        proposed: JSON files that a message shows where a local folder lacks them.
    """

    repository: str
    local: Path | None
    groups: tuple[tuple[str, ...], ...]
    extra: tuple[str, ...]
    memory: WeightsMemory
    inner: str = ""
    plain: Path | None = None
    random: bool = False
    like: str = ""
    stated: Description = field(default_factory=dict)
    proposed: Description = field(default_factory=dict)

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
    def is_stated(self) -> bool:
        """Whether no folder is needed: all that describes the model is known."""
        return not self.repository and self.local is None

    @property
    def name(self) -> str:
        """What messages call it: the repository or the local place."""
        return self.repository or str(self.plain or self.local)

    @property
    def weights(self) -> list[File]:
        """The files that hold tensors."""
        if self.random:
            return []
        if self.plain is not None:
            return [read_local(self.plain, self.memory)]
        ends = (".safetensors", ".bin")
        return [f for n, f in self.files.items() if self._own(n) and n.endswith(ends)]

    @property
    def identity(self) -> dict[str, object]:
        """The weights in a fingerprint: digests by name, that of a plain file, or the seed."""
        if self.random:
            return {"random": SEED}
        if self.plain is not None:
            return {"sha256": self.weights[0].sha256}
        return {file.name: file.sha256 for file in self.weights}

    @property
    def tag(self) -> Literal["pretrained", "random"] | None:
        """Whether the model was ever trained; None where that needs loading it."""
        if self.random:
            return "random"
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
            return dict(self.stated.get(name, {}))
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
        if self.is_stated:
            return {}, None
        if self.local is None:
            own = self.plain is None and not self.random
            wanted = RepositoryFiles(self.repository, groups, self.extra, with_weights=own)
            return find_files(wanted, self.memory)
        files = {}
        for group in groups:
            name = next((n for n in group if (self.local / n).is_file()), None)
            if name is None:
                raise MmfuseError(
                    f"{self.local} holds no {' or '.join(group)}{self._proposal(group)}"
                )
            files[name] = read_local(self.local / name, self.memory, name)
        there = [name for name in self.extra if (self.local / name).is_file()]
        return files | {n: read_local(self.local / n, self.memory, n) for n in there}, None

    def _proposal(self, names: Iterable[str]) -> str:
        for name in (name.removeprefix(self.inner) for name in names):
            if name in self.proposed:
                return proposal(name, self.proposed[name])
            if name == CONFIG:
                return (
                    "; its model's own belongs there, or name the model and the weights file alone:"
                    " --encoder NAME:MODEL --weights FILE"
                )
        return ""

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
    groups: tuple[tuple[str, ...], ...] = (WEIGHTS, (CONFIG,)),
    extra: tuple[str, ...] = (*VOCABULARY, PREPROCESSOR),
    random: bool = False,
    known: Description | None = None,
) -> ModelFiles:
    """Locate a model's files: `--weights`, else a local path as its name, else the hub.

    What describes a plain weights file, or random weights, is what is known; else the folder or
    repository that is named; else the folder in which the weights file lies.

    Args:
        encoder: its name, for messages.
        repository: of the hub, or the path of a folder; "" if no model is named.
        weights: a folder or a plain weights file; None for those of the repository.
        memory: file of digests.
        groups: one file of each group is needed.
        extra: files that are used where they exist.
        random: whether the weights are random.
        known: JSON files of the named model.

    Raises:
        MmfuseError: for a missing path, or weights that nothing describes.
    """
    known, digests = known or {}, WeightsMemory(memory)
    if random and weights is not None:
        raise MmfuseError(
            f"{encoder} is asked for random weights and for those of {weights}: leave one out"
        )
    place = None
    if weights is not None or is_path(repository):
        place = local_weights(weights or repository, encoder).resolve()
    plain = None if place is None or place.is_dir() else place
    if plain is not None:
        check_plain(encoder, plain)
    if plain is None and not random:
        where = "" if place else repository
        return ModelFiles(where, place, groups, extra, digests, proposed=known)
    needed = tuple(group for group in groups if not {*group} & {*WEIGHTS, *known})
    named = "" if plain and weights is None else repository
    local = _describing_folder(encoder, named, plain, needed, is_known=bool(known))
    return ModelFiles(
        "" if local or not needed else named,
        local,
        needed,
        extra,
        digests,
        plain=plain,
        random=random,
        like=named or str(local or ""),
        stated=known,
    )


def _describing_folder(
    encoder: str,
    named: str,
    plain: Path | None,
    needed: tuple[tuple[str, ...], ...],
    *,
    is_known: bool,
) -> Path | None:
    """The local folder with the needed files; None if they are on the hub, or none are needed."""
    if not needed:
        return None
    if is_path(named):
        return local_weights(named, encoder).resolve()
    if plain is not None and (is_known or not named):
        folder = plain.parent
        if all(any((folder / name).is_file() for name in group) for group in needed):
            return folder
    if named:
        return None
    raise MmfuseError(
        f"{encoder}: nothing says what model {plain or 'with random weights'} is of: there is no "
        f"{' or '.join(needed[0])} beside it; name the model, --encoder {encoder}:MODEL"
    )


def proposal(name: str, description: Mapping[str, Any], condition: str = "") -> str:
    """The end of a message on a missing JSON file: the file as it is to be saved."""
    shown = json.dumps(description, indent=1)
    shown = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s*\n\s*", " ", found[0]), shown)
    return f"; {condition}save this there as {name}:\n{shown}"
