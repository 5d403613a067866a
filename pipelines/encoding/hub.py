"""Find and download a model's files: a local path, the hub's cache, or the hub."""

import hashlib
import http.client
import json
import struct
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache.errors import MmfuseError
from cache.storage.weight_digests import WeightsMemory
from pipelines import catalog
from pipelines.progress import Track, untracked

TIMEOUT = 5.0  # seconds to wait for the hub's answer
STALL_SECONDS = 30.0  # seconds without a byte until a download fails
CHUNK = 1 << 20
_ONE = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BFLOAT16_ONE = 0x3F80


@dataclass(frozen=True)
class RepositoryFiles:
    """Files needed of a repository: one of each group, and those of `extra` that exist.

    `with_weights` is False where the weights come from elsewhere.
    """

    repository: str
    groups: tuple[tuple[str, ...], ...]
    extra: tuple[str, ...] = ()
    with_weights: bool = True


@dataclass(frozen=True)
class File:
    """One file of a model; `path` is None until it is downloaded."""

    name: str
    sha256: str
    size: int
    path: Path | None


@dataclass(frozen=True)
class Download:
    """Files that an encoder must still download, with their size and licence."""

    repository: str
    commit: str
    licence: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    def fetch(self, track: Track = untracked) -> None:
        """Download into the hub's cache; the next call resumes a partial download.

        Args:
            track: progress, one step a mebibyte.

        Raises:
            MmfuseError: if the connection breaks, or a file's sha256 is not what the hub stated.
        """
        for file in self.files:
            try:
                _large(self.repository, file, self.commit, track)
            except (OSError, http.client.HTTPException) as error:
                raise MmfuseError(
                    f"{self.repository}: the download of {file.name} broke off ({error}); run the "
                    "same command again to resume it"
                ) from error


def fetch_small(repository: str, name: str, commit: str) -> Path:
    """Download a configuration or vocabulary into the hub's cache."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True
    disable_progress_bars()  # `track` shows progress
    return Path(hf_hub_download(repository, name, revision=commit))


def _large(repository: str, file: File, commit: str, track: Track) -> None:
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    constants.HF_HUB_DISABLE_TELEMETRY = True
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    blobs = Path(constants.HF_HUB_CACHE) / folder / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    blob, part = blobs / file.sha256, blobs / f"{file.sha256}.part"
    with FileLock(f"{part}.lock"):
        if not blob.exists():
            where = get_hf_file_metadata(hf_hub_url(repository, file.name, revision=commit))
            total = -(-file.size // CHUNK)
            label = f"{repository} {file.name}, {file.size / 1e6:,.0f} MB"
            for _ in track(_received(where.location, part, file.size), label, total):
                pass
            _checked(part, file)
            part.replace(blob)
    fetch_small(repository, file.name, commit)  # the hub's client finds the blob and links it


def _received(address: str, part: Path, size: int) -> Iterator[int]:
    """Yield the number of bytes on disk after each mebibyte, those of an earlier call first."""
    have = part.stat().st_size if part.exists() else 0
    yield from range(CHUNK, have + 1, CHUNK)
    if have >= size:
        return
    headers = {"User-Agent": "mmfuse", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(address, headers=headers)
    with (
        urllib.request.urlopen(request, timeout=STALL_SECONDS) as answer,
        part.open("ab" if answer.status == 206 else "wb") as file,
    ):
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            yield file.tell()
    if part.stat().st_size < size:
        raise ConnectionError(f"{part.stat().st_size:,} of {size:,} bytes arrived")


def _checked(part: Path, file: File) -> None:
    with part.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise MmfuseError(
            f"{file.name} arrived damaged: its sha256 is {found}, the hub stated {file.sha256}; "
            "it was deleted, run the same command again"
        )


def find_files(
    wanted: RepositoryFiles, memory: WeightsMemory
) -> tuple[dict[str, File], Download | None]:
    """Files by name, and the download that is still needed, if any.

    Looks in the hub's cache first and asks the hub only for what is not there. The hub states the
    sha256 of large files, so an encoder's fingerprint does not need them to be downloaded.

    Raises:
        MmfuseError: where the files are not cached and the hub cannot be used, without retrying.
    """
    for snapshot in _snapshots(wanted.repository):
        names = _choose(wanted, _names(snapshot).__contains__)
        if names is not None:
            return {name: read_local(snapshot / name, memory, name) for name in names}, None
    return _ask(wanted, memory)


def read_local(path: Path, memory: WeightsMemory, name: str = "") -> File:
    """A local file with its sha256."""
    return File(name or path.name, memory.sha256(path), path.stat().st_size, path)


def local_weights(word: str | Path, encoder: str) -> Path:
    """The file or folder behind `--weights`.

    Raises:
        MmfuseError: if there is no such path.
    """
    path = Path(word).expanduser()
    if not path.exists():
        raise MmfuseError(f"{encoder}: no such file or folder of weights: {path}")
    return path


def missing_weights(wanted: RepositoryFiles, why: str) -> MmfuseError:
    """Error for missing weights: places searched, `--weights`, and encoders without download."""
    from huggingface_hub import constants

    if not wanted.with_weights:
        names = " or ".join(wanted.groups[0])
        return MmfuseError(
            f"no {names} of {wanted.repository}: not in {constants.HF_HUB_CACHE}, and {why}; take "
            "a local folder that holds it"
        )
    free = ", ".join(
        f"{name} ({', '.join(kinds)})"
        for name, entry in sorted(catalog.entries("encoders").items())
        if isinstance(kinds := entry.constants.get("KINDS"), dict)
        and not entry.constants.get("NEEDS_WEIGHTS")
    )
    return MmfuseError(
        f"no weights of {wanted.repository}: not in {constants.HF_HUB_CACHE}, and {why}; "
        f"give a local copy with --weights PATH, or use an encoder that needs no download: {free}"
    )


def weights_tag(path: Path) -> Literal["pretrained", "random"]:
    """`random` if no normalisation layer of a safetensors file was ever trained.

    Every one-dimensional `…weight` is then exactly all 1 (or all 0, as some are initialised), with
    a `…bias` of exactly 0; training changes them all. Files without any count as pretrained.
    """
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(min(length, path.stat().st_size)))
        except (struct.error, ValueError) as error:
            raise MmfuseError(f"{path} is cut, damaged or no safetensors file") from error
        norms = 0
        for name, entry in header.items():
            if not name.endswith(".weight") or len(entry["shape"]) != 1:
                continue
            norms += 1
            values = _values(file, 8 + length, entry)
            one = _BFLOAT16_ONE if entry["dtype"] == "BF16" else 1
            if not ((values == one).all() or (values == 0).all()):
                return "pretrained"
            bias = header.get(name.removesuffix("weight") + "bias")
            if bias is not None and _values(file, 8 + length, bias).any():
                return "pretrained"
    return "random" if norms else "pretrained"


def _values(file: Any, start: int, entry: dict[str, Any]) -> np.ndarray[Any, Any]:  # noqa: ANN401
    begin, end = entry["data_offsets"]
    file.seek(start + begin)
    return np.frombuffer(file.read(end - begin), _ONE.get(entry["dtype"], "u1"))


def _choose(wanted: RepositoryFiles, has: Callable[[str], bool]) -> list[str] | None:
    """The first existing name of each group, and all existing extras; None if a group has none."""
    chosen = [next((name for name in group if has(name)), None) for group in wanted.groups]
    if None in chosen:
        return None
    return [*filter(None, chosen), *filter(has, wanted.extra)]


def _names(folder: Path) -> set[str]:
    """Paths below a folder as the hub writes them."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _snapshots(repository: str) -> Sequence[Path]:
    """Snapshot folders of a repository in the hub's cache, `main` first, then newest."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    top = Path(constants.HF_HUB_CACHE) / folder
    branch = top / "refs" / "main"
    main = branch.read_text(encoding="utf-8").strip() if branch.is_file() else ""
    found = [p for p in (top / "snapshots").glob("*") if p.is_dir()]
    return sorted(found, key=lambda p: (p.name == main, p.stat().st_mtime_ns), reverse=True)


def _ask(wanted: RepositoryFiles, memory: WeightsMemory) -> tuple[dict[str, File], Download | None]:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    if constants.HF_HUB_OFFLINE:
        raise missing_weights(wanted, "HF_HUB_OFFLINE is set")
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        info = HfApi().model_info(wanted.repository, files_metadata=True, timeout=TIMEOUT)
    except GatedRepoError as error:
        raise missing_weights(wanted, "the hub asks for a licence to be accepted first") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise missing_weights(wanted, "the hub has no public repository of that name") from error
    except HfHubHTTPError as error:
        raise missing_weights(wanted, f"the hub answered {error}") from error
    except Exception as error:
        if not _is_network(error):
            raise
        raise missing_weights(wanted, f"the hub cannot be reached ({error})") from error
    there = {file.rfilename: file for file in info.siblings or []}
    names = _choose(wanted, there.__contains__)
    if names is None:
        wants = ", ".join(" or ".join(group) for group in wanted.groups)
        raise missing_weights(wanted, f"its repository on the hub does not hold {wants}")
    commit, files = str(info.sha), {}
    for name in names:
        large = there[name].lfs
        if large is None:  # configurations and vocabularies of a few kilobytes
            files[name] = read_local(fetch_small(wanted.repository, name, commit), memory, name)
        else:
            files[name] = File(name, large.sha256, large.size, None)
    missing = tuple(file for file in files.values() if file.path is None)
    licence = str(getattr(info.card_data, "license", None) or "not stated")
    download = Download(wanted.repository, commit, licence, missing)
    return files, download if missing else None


def _is_network(error: Exception) -> bool:
    """Whether an error comes from the hub client's transport, whichever HTTP library it uses."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(names & {"TransportError", "RequestException"})
