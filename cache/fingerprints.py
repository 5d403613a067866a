"""Fingerprints of what made a stream, and digests of the bytes behind a row."""

import hashlib
import json
from collections.abc import Mapping


def fingerprint(fields: Mapping[str, object]) -> str:
    """Hex blake2b-256 of the fields as canonical JSON; the order of keys does not matter.

    Raises:
        TypeError: for a value that is not JSON, since its repr would not be stable.
    """
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def digest(kind: str, data: bytes) -> bytes:
    """16 bytes that identify an input: blake2b-128 of its bytes, personal to its kind.

    The kind is part of it, so the text "a.png" and a file with the same bytes differ.
    """
    return hashlib.blake2b(data, digest_size=16, person=kind.encode()[:16]).digest()


def sha256_file(path: str) -> str:
    """Hex sha256 of a file, read in blocks."""
    with open(path, "rb") as file:  # noqa: PTH123 - hashlib wants the file object itself
        return hashlib.file_digest(file, "sha256").hexdigest()
