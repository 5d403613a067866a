"""Remembered digests of weights files (by git's rule), descriptions of models, probe vectors."""

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.fingerprints import sha256_file
from cache.storage.file_digests import RACY_NS
from cache.storage.objects import put


@dataclass(frozen=True)
class WeightsMemory:
    """Small facts on models in a JSON file; in this process only if `path` is None."""

    path: Path | None

    def sha256(self, file: Path) -> str:
        """Hex sha256 of a file, read again only if its size, time or inode changed."""
        place, found = str(file.resolve()), file.stat()
        stamp = [found.st_size, found.st_mtime_ns, found.st_ino]
        known = _PROCESS.get(place) or self._load("files").get(place)
        if isinstance(known, list) and known[:3] == stamp:
            _PROCESS[place] = known
            return str(known[3])
        started = time.time_ns()
        digest = sha256_file(place)
        if found.st_mtime_ns + RACY_NS < started:
            _PROCESS[place] = [*stamp, digest]
            self._keep("files", place, [*stamp, digest])
        return digest

    def description(self, key: str) -> dict[str, Any] | None:
        """What is remembered of an architecture, if anything."""
        known = _DESCRIBED.get((self.path, key)) or self._load("architectures").get(key)
        if not isinstance(known, dict):
            return None
        _DESCRIBED[self.path, key] = known
        return dict(known)

    def describe(self, key: str, description: dict[str, Any]) -> None:
        """Remember what a library says of an architecture; the key holds its version."""
        _DESCRIBED[self.path, key] = description
        self._keep("architectures", key, description)

    def probe(self, key: str) -> NDArray[np.float64] | None:
        """The vector (D,) recorded under a stream's fingerprint, if any."""
        known = self._load("probes").get(key)
        return None if known is None else np.array(known, np.float64)

    def record(self, key: str, vector: NDArray[np.float32]) -> None:
        """Record a probe's vector (D,)."""
        self._keep("probes", key, [float(f"{value:.6g}") for value in vector])

    def _load(self, section: str) -> dict[str, object]:
        if self.path is not None:
            # An unreadable memory is no error: the files are read again.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                return dict(json.loads(self.path.read_text(encoding="utf-8")).get(section, {}))
        return {}

    def _keep(self, section: str, key: str, value: object) -> None:
        if self.path is None:
            return
        everything = {name: self._load(name) for name in _SECTIONS}
        everything[section][key] = value
        # An unwritable home is reported by the feature store, where it matters.
        with contextlib.suppress(OSError, MmfuseError):
            put(self.path, json.dumps(everything).encode())


_SECTIONS = ("files", "probes", "architectures")
_DESCRIBED: dict[tuple[Path | None, str], dict[str, Any]] = {}  # seen by this process, by memory
_PROCESS: dict[str, list[object]] = {}  # digests of files read by this process, by resolved path
