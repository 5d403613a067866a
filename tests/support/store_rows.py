"""Rows for the store's tests: samples, digests and a toy encoder whose vectors name their input."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from cache.feature_store import FeatureStore
from cache.format.streams import StreamKey, StreamSpec
from cache.samples import Modality, Samples, Task
from cache.writing.journal import Failure
from cache.writing.writer import StreamWriter

WIDTH = 8


def shrink(setting: Callable[[str, object], object]) -> None:
    """Chunks of 16 rows, shards of 3 chunks, units of 16 sequences: a test has many of them."""
    setting("cache.format.grid.CHUNK_BYTES", 16 * WIDTH * 4)
    setting("cache.format.grid.CHUNKS_PER_SHARD", 3)
    setting("cache.writing.sequences.PART_BYTES", 1)


def key_of(tag: str = "a", modality: str = "image") -> StreamKey:
    """A key whose fingerprint depends on a word."""
    return StreamKey("toy", hashlib.blake2b(tag.encode(), digest_size=32).hexdigest(), modality)


def spec_of(*, sequence: bool = False, dtype: str = "float32", width: int = WIDTH) -> StreamSpec:
    """What the toy encoder makes."""
    return StreamSpec("image", width, dtype, sequence, {"toy": 1}, {"weights": "weight-free"})


def samples_of(inputs: Sequence[int], split: str = "train") -> Samples:
    """Samples with one class number each."""
    rows = len(inputs)
    return Samples(
        ids=np.array([f"s{row}" for row in range(rows)], object),
        splits=np.array([split] * rows, object),
        targets=np.arange(rows, dtype=np.int64) % 2,
        groups=None,
        task=Task("classes", ("a", "b")),
        modalities=(Modality("image", "image"),),
        source="synthetic",
    )


def digests_of(inputs: Sequence[int]) -> np.ndarray:
    """(N, 16) digests; a negative number has none."""
    rows = [
        bytes(16)
        if number < 0
        else hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).digest()
        for number in inputs
    ]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)


def vector(number: int, *, sequence: bool = False, width: int = WIDTH) -> np.ndarray:
    """What the toy encoder makes of an input: every number is a function of it."""
    frames = number % 4 + 1 if sequence else 1
    values = np.arange(frames * width, dtype=np.float32).reshape(frames, width) + number * 0.5
    return values if sequence else values[0]


def expected(inputs: Sequence[int], *, sequence: bool = False, width: int = WIDTH) -> np.ndarray:
    """The values of a whole stream, by a loop."""
    return np.concatenate(
        [np.atleast_2d(vector(i, sequence=sequence, width=width)) for i in inputs]
    )


def open_writer(store: FeatureStore, inputs: Sequence[int], **options) -> StreamWriter:
    """A writer for these inputs; `None` among them is absent."""
    spec = options.pop("spec", spec_of())
    key = options.pop("key", key_of())
    absent = np.array([number is None for number in inputs])
    numbers = [0 if number is None else number for number in inputs]
    return store.writer(
        key,
        spec=spec,
        samples=options.pop("samples", samples_of(inputs)),
        inputs=digests_of(numbers),
        absent=absent,
        **options,
    )


def fill(writer: StreamWriter, inputs: Sequence[int], fails: Sequence[int] = ()) -> list[int]:
    """Encode what is to be encoded and publish; returns the inputs that were encoded."""
    spec, encoded = writer.generation.spec, []
    for shard in writer.shards:
        claim = writer.claim(shard)
        if claim is None:
            continue
        with claim:
            for row in claim.todo.tolist():
                encoded.append(inputs[row])
                if inputs[row] in fails:
                    claim.fail(row, Failure("truncated", f"input {inputs[row]}"))
                else:
                    value = vector(inputs[row], sequence=spec.sequence, width=spec.width)
                    claim.put([row], [value])
            claim.commit()
    writer.finish()
    return encoded
