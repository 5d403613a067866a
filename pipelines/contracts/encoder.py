"""Conformance checks of an encoder: one by name, or a user's own file."""

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from cache.samples import Kind
from pipelines import catalog
from pipelines.contracts.result import Check, CheckFailedError, describe_error
from pipelines.contracts.sample_payloads import sample_payloads
from pipelines.encoding.encoder import Encoder, build_encoder, is_fitted_encoder
from pipelines.media.payloads import Unreadable
from pipelines.progress import Track, untracked

COSINE = 0.99999  # least cosine of a row's vectors in different batches, float32


@dataclass(frozen=True)
class EncoderUnderTest:
    """An encoder to check: its word, how to build it anew, where its weights and digests are."""

    word: str
    build: Callable[[], Encoder]
    weights: str | None = None
    memory: Path | None = None

    def encoder(self) -> Encoder:
        """A new instance, fitted on the sample payloads if it is a fitted encoder."""
        made = self.build()
        if is_fitted_encoder(made):
            kind = next(iter(made.kinds))
            made.fit(kind, sample_payloads(kind))
        return made


def is_encoder(word: str) -> bool:
    """Whether a word names a built-in encoder, or a file with a constant KINDS."""
    if word.endswith(".py"):
        if not Path(word).is_file():
            raise MmfuseError(f"no such file: {word}")
        return "KINDS" in catalog.read_source(word).constants
    return catalog.split_encoder_word(word)[0] in catalog.entries("encoders")


def check_encoder(
    word: str, *, weights: str | None = None, track: Track = untracked
) -> list[Check]:
    """Run every check on an encoder.

    Args:
        word: a name, a name and a model, or the path of a file with `build`.
        weights: path of local weights.
        track: progress.

    Raises:
        MmfuseError: where there is no such encoder, or its weights are not here.
    """
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / "weights.json"  # as every home has one
        subject = EncoderUnderTest(
            word,
            lambda: build_encoder(word, weights=weights, device="cpu", memory=memory),
            weights,
            memory,
        )
        subject.build()
        return [_run_check(one, subject) for one in track(CHECKS, "checks", len(CHECKS))]


def kinds_are_declared(subject: EncoderUnderTest) -> str:
    """Its kinds are in KINDS, a literal that is read without importing the file."""
    word, _ = catalog.split_encoder_word(subject.word)
    declared = catalog.read_source(word).constants.get("KINDS")
    if not isinstance(declared, dict):
        raise CheckFailedError("there is no literal KINDS, such as KINDS = {'text': 64}")
    missing = set(subject.encoder().kinds) - set(declared)
    if missing:
        raise CheckFailedError(f"it serves {', '.join(sorted(missing))}, which KINDS does not name")
    return ", ".join(sorted(declared))


def vectors_fit(subject: EncoderUnderTest) -> str:
    """Each input gives a finite vector of the declared width, in the stored dtype too."""
    encoder, seen = subject.encoder(), 0
    if encoder.storage not in ("float16", "float32"):
        raise CheckFailedError(f"storage is {encoder.storage!r}, not float16 or float32")
    for kind, payloads in _inputs(encoder):
        for number, vector in enumerate(_encode(encoder, kind, payloads)):
            wanted = ("T, " if encoder.sequence else "") + str(encoder.kinds[kind])
            fits = vector.ndim == 1 + encoder.sequence
            if not fits or vector.shape[-1] != encoder.kinds[kind]:
                raise CheckFailedError(f"{kind} {number}: shape {vector.shape}, not ({wanted})")
            if not np.issubdtype(vector.dtype, np.floating):
                raise CheckFailedError(f"{kind} {number}: {vector.dtype} is no floating point")
            with np.errstate(over="ignore"):
                stored = vector.astype(encoder.storage)
            if not np.isfinite(stored).all():
                raise CheckFailedError(
                    f"{kind} {number}: NaN, infinity, or above {encoder.storage}"
                )
            seen += 1
    return f"{seen} inputs of {', '.join(encoder.kinds)}"


def inputs_matter(subject: EncoderUnderTest) -> str:
    """Different inputs have different vectors."""
    encoder = subject.encoder()
    for kind, payloads in _inputs(encoder):
        found = _encode(encoder, kind, payloads)
        for number, one in enumerate(found):
            for place, other in enumerate(found[number + 1 :], number + 1):
                if one.shape == other.shape and np.allclose(one, other, atol=1e-4):
                    raise CheckFailedError(f"{kind} {number} and {place} have the same vector")
    return "no two alike"


def again_is_the_same(subject: EncoderUnderTest) -> str:
    """The same inputs give the same bits again, also from an encoder that is built anew."""
    encoder, anew = subject.encoder(), subject.encoder()
    for kind, payloads in _inputs(encoder):
        first = _encode(encoder, kind, payloads)
        for what, other in (("a second time", encoder), ("built anew", anew)):
            for number, two in enumerate(_encode(other, kind, payloads)):
                if not np.array_equal(first[number], two):
                    raise CheckFailedError(f"{kind} {number} differs {what}")
    return "bit for bit"


def batches_do_not_matter(subject: EncoderUnderTest) -> str:
    """A row is the same alone, in a mixed batch, in its halves and in reversed order."""
    encoder, worst = subject.encoder(), 1.0
    for kind, payloads in _inputs(encoder):
        mixed = _encode(encoder, kind, payloads)
        others = {
            "alone": [_encode(encoder, kind, [payload])[0] for payload in payloads],
            "in reversed order": _encode(encoder, kind, payloads[::-1])[::-1],
            "in two batches": [
                *_encode(encoder, kind, payloads[:2]), *_encode(encoder, kind, payloads[2:])
            ],
        }  # fmt: skip
        for what, rows in others.items():
            for number, (one, two) in enumerate(zip(mixed, rows, strict=True)):
                near = cosine(one, two)
                if one.shape != two.shape or not near >= COSINE:
                    raise CheckFailedError(f"{kind} {number} {what}: cosine {near:.6f}")
                worst = min(worst, near)
    return f"cosine at least {worst:.6f}"


def inputs_travel(subject: EncoderUnderTest) -> str:
    """Encoder and prepared inputs survive pickling, used ones too; costs count from 1."""
    encoder = subject.encoder()
    for kind, payloads in _inputs(encoder):
        _encode(encoder, kind, payloads[:1])
        worker: Encoder = pickle.loads(pickle.dumps(encoder))
        for number, payload in enumerate(payloads):
            item, cost = worker.prepare(kind, payload)
            if not cost >= 1:
                raise CheckFailedError(f"{kind} {number}: its cost is {cost!r}")
            (sent,) = encoder.encode(kind, [pickle.loads(pickle.dumps(item))])
            if not np.array_equal(sent, _encode(encoder, kind, [payload])[0]):
                raise CheckFailedError(f"{kind} {number}: prepared in a worker, its vector differs")
    return "so worker processes can prepare"


def identity_is_plain(subject: EncoderUnderTest) -> str:
    """What identifies its vectors is JSON, the same when built anew and after use."""
    encoder, anew = subject.encoder(), subject.encoder()
    json.dumps(encoder.provenance())
    for kind, payloads in _inputs(encoder):
        before = fingerprint(encoder.fields(kind))
        _encode(encoder, kind, payloads[:1])
        for what, other in (("after use", encoder), ("built anew", anew)):
            if fingerprint(other.fields(kind)) != before:
                raise CheckFailedError(f"fields({kind!r}) differ {what}")
    return f"{len(encoder.fields(next(iter(encoder.kinds))))} fields"


def building_is_light(subject: EncoderUnderTest) -> str:
    """Building it and asking for its fields imports no torch: a second extract is fast."""
    code = (
        "import sys, pathlib; from pipelines.encoding.encoder import build_encoder\n"
        "memory = pathlib.Path(sys.argv[3]) if sys.argv[3] else None\n"
        "encoder = build_encoder(sys.argv[1], weights=sys.argv[2] or None, memory=memory)\n"
        "[encoder.fields(kind) for kind in encoder.kinds]\n"
        "print('torch' in sys.modules)"
    )
    paths = [subject.weights or "", str(subject.memory or "")]
    command = [sys.executable, "-c", code, subject.word, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailedError(done.stderr.strip().split("\n")[-1])
    if done.stdout.split()[-1] != "False":
        raise CheckFailedError("torch is imported before anything is encoded")
    return "seen in a fresh process"


CHECKS: tuple[Callable[[EncoderUnderTest], str], ...] = (
    kinds_are_declared,
    vectors_fit,
    inputs_matter,
    again_is_the_same,
    batches_do_not_matter,
    inputs_travel,
    identity_is_plain,
    building_is_light,
)


def cosine(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Cosine of two vectors or sequences; 1 where they are equal, zeros included."""
    a, b = np.asarray(one, float), np.asarray(two, float)
    if a.shape != b.shape:
        return -1.0
    if np.allclose(a, b, atol=1e-6):
        return 1.0
    return float(a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b)))


def _inputs(encoder: Encoder) -> Iterator[tuple[Kind, list[Any]]]:
    """Sample payloads of each kind that an encoder serves, without kinds that have none."""
    found = [(kind, sample_payloads(kind)) for kind in encoder.kinds]
    if not any(payloads for _, payloads in found):
        raise CheckFailedError(f"no sample payloads of {', '.join(encoder.kinds)} to try it on")
    yield from ((kind, payloads) for kind, payloads in found if payloads)


def _encode(encoder: Encoder, kind: Kind, payloads: Sequence[Any]) -> list[NDArray[Any]]:
    items = [encoder.prepare(kind, payload)[0] for payload in payloads]
    found = encoder.encode(kind, items)
    if len(found) != len(items):
        raise CheckFailedError(f"{len(found)} vectors for {len(items)} inputs of kind {kind}")
    return [np.asarray(vector) for vector in found]


def _run_check(check: Callable[[EncoderUnderTest], str], subject: EncoderUnderTest) -> Check:
    """Result of one check; any error raised by the encoder fails it."""
    text = (check.__doc__ or check.__name__).split("\n", 1)[0].rstrip(".")
    try:
        return Check(text, passed=True, detail=check(subject))
    except (CheckFailedError, Unreadable) as seen:
        return Check(text, passed=False, detail=str(seen))
    except MmfuseError:
        raise
    except Exception as error:  # a user's encoder may fail in any way; the others still run
        return Check(text, passed=False, detail=describe_error(error))
