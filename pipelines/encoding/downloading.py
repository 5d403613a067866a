"""Fetching a model's files from the hub into its own cache: resumable, checked by sha256."""

import hashlib
import http.client
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmfuseError
from pipelines.progress import Track, untracked

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """One file of a model; `path` is None while it is only on the hub."""

    name: str
    sha256: str
    size: int
    path: Path | None


@dataclass(frozen=True)
class Download:
    """What is still to be fetched for an encoder, to be told before it is."""

    repository: str
    commit: str
    licence: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    def fetch(self, track: Track = untracked) -> None:
        """Download into the hub's cache; broken off, the next call goes on where it stopped.

        Args:
            track: shown every mebibyte.

        Raises:
            MmfuseError: if the connection breaks, or what came is not what the hub announced.
        """
        for file in self.files:
            try:
                _large(self.repository, file, self.commit, track)
            except (OSError, http.client.HTTPException) as error:
                raise MmfuseError(
                    f"{self.repository}: the download of {file.name} broke off ({error}); run the "
                    "same command again to go on where it stopped"
                ) from error


def small(repository: str, name: str, commit: str) -> Path:
    """Fetch a configuration or vocabulary at once; it lies in the hub's cache then."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True
    disable_progress_bars()  # progress is `track`'s to show
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
    small(repository, file.name, commit)  # the hub's client finds the blob and links it


def _received(address: str, part: Path, size: int) -> Iterator[int]:
    """The number of bytes here, after each mebibyte; what an earlier call received comes first."""
    have = part.stat().st_size if part.exists() else 0
    yield from range(CHUNK, have + 1, CHUNK)
    if have >= size:
        return
    headers = {"User-Agent": "mmfuse", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(address, headers=headers)
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as answer,
        part.open("ab" if answer.status == 206 else "wb") as file,
    ):
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            yield file.tell()
    if part.stat().st_size < size:
        raise ConnectionError(f"{part.stat().st_size:,} of {size:,} bytes came")


def _checked(part: Path, file: File) -> None:
    with part.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise MmfuseError(
            f"{file.name} came damaged: its sha256 is {found}, the hub announced {file.sha256}; "
            "it was deleted, run the same command again"
        )
