"""Small deterministic encoders and datasets: real plug-in objects that the tests of stage 1 run."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from cache.samples import Modality, Task
from pipelines.data.dataset import Dataset
from pipelines.media.payloads import Unreadable

WIDTH = 8


def vector_of(text, width=WIDTH):
    """(D,) float32 in [0, 1) that any two texts differ in."""
    data = hashlib.shake_128(text.encode()).digest(4 * width)
    return (np.frombuffer(data, "<u4") / 2**32).astype(np.float32)


def texts(columns, name="small", train=0.6, **more):
    """A dataset whose modalities are text columns, given as name → list of cells."""
    count = len(next(iter(columns.values())))
    bounds = [max(2, int(train * count)), count - 1]
    splits = ["train"] * bounds[0] + ["val"] * (bounds[1] - bounds[0]) + ["test"]
    table = pl.DataFrame(
        {
            "id": [f"s{row}" for row in range(count)],
            "split": more.pop("splits", splits),
            "target": [row % 2 for row in range(count)],
            **{key: pl.Series(cells, dtype=pl.String) for key, cells in columns.items()},
        }
    )
    modalities = tuple(Modality(key, more.get("kind", "text")) for key in columns)
    return Dataset(name, table, modalities, Task("classes", ("a", "b")), more.get("root"))


@dataclass
class Echo:
    """A text's own vector; words in it cause failures while it is prepared or encoded.

    Attributes:
        seen: every text that was encoded, in order; one list of a batch each.
        capacity: padded cost above which memory does not suffice, or None.
        company: whether a vector depends on the other texts of its batch, as real encoders do in
            their last bits.
        delay: seconds a batch takes.
        interrupt_at: number of the batch during which Ctrl-C is pressed.
    """

    capacity: int | None = None
    company: bool = False
    delay: float = 0.0
    interrupt_at: int | None = None
    version: int = 1
    storage: str = "float32"
    width: int = WIDTH
    kind: str = "text"
    name: str = "echo"
    sequence: bool = False
    weights: str = "weight-free"
    seen: list = field(default_factory=list)

    @property
    def kinds(self):
        """One kind, one width."""
        return {self.kind: self.width}

    def fields(self, kind):
        """What made the vectors."""
        return {"version": self.version, "company": self.company, "width": self.width}

    def provenance(self):
        """Nothing more."""
        return {}

    def prepare(self, kind, payload):
        """The text and its length."""
        if "UNREADABLE" in payload:
            raise Unreadable("odd", payload, transient=True)
        if "RAISES" in payload:
            raise ValueError(payload)
        if "EXITS" in payload:
            os._exit(3)
        return payload, len(payload)

    def encode(self, kind, batch):
        """Texts → vectors."""
        if self.capacity is not None and len(batch) * max(map(len, batch)) > self.capacity:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if any("POISON" in text for text in batch):
            raise ValueError("a poisoned batch")
        self.seen.append(list(batch))
        if self.interrupt_at == len(self.seen):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(self.delay)
        return [self._vector(text, batch) for text in batch]

    def _vector(self, text, batch):
        vector = vector_of(text, self.width)
        if self.company:
            vector = vector + vector_of("|".join(batch), self.width)
        if "NAN" in text:
            vector[3] = np.nan
        if "HUGE" in text:
            vector[0] = 1e6
        if self.sequence:
            return np.stack([vector] * len(text))
        return vector

    @property
    def encoded(self):
        """Every text that was encoded."""
        return [text for batch in self.seen for text in batch]


@dataclass
class Announced(Echo):
    """Prints that it is in the middle of its work."""

    def encode(self, kind, batch):
        """As Echo's."""
        if len(self.seen) == 2:
            print("encoding", flush=True)  # noqa: T201 - what the test waits for
        return super().encode(kind, batch)


@dataclass
class Centred(Echo):
    """A fitted encoder: subtracts the mean of the training texts' vectors."""

    name: str = "centred"
    mean: list | None = None
    fits: int = 0

    @property
    def kinds(self):
        """A width only when fitted."""
        return {"text": None if self.mean is None else self.width}

    def fit(self, kind, payloads):
        """The mean, as JSON."""
        self.fits += 1
        self.mean = np.mean([vector_of(text) for text in payloads], axis=0).tolist()
        return {"mean": self.mean}

    def restore(self, state):
        """The mean again."""
        self.mean = state["mean"]

    def encode(self, kind, batch):
        """Vectors without the mean."""
        return [v - np.array(self.mean, np.float32) for v in super().encode(kind, batch)]
