"""Legs: the seconds of each part of an extraction, and one sentence that names the slowest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_BOTTLENECK_SHARE = 1 / 3  # share of the time below which no stage held the others up
_MIN_SECONDS_FOR_ADVICE = 30.0  # seconds above which advice is worth a reader's time


@dataclass
class Timings:
    """Seconds of one stream's extraction.

    `load` is what the first sample took, weights included, before the others were begun. `read` and
    `prepare` are summed over workers; the `waited` ones are those in which the encoder stood still,
    for inputs or for the shelf.
    """

    read: float = 0.0
    prepare: float = 0.0
    encode: float = 0.0
    write: float = 0.0
    load: float = 0.0
    waited_inputs: float = 0.0
    waited_writer: float = 0.0
    total: float = 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that the block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.perf_counter() - start)

    def seconds(self) -> dict[str, float]:
        """The timings and the whole, in seconds."""
        timings = ("load", "read", "prepare", "encode", "write", "total")
        return {stage: round(getattr(self, stage), 4) for stage in timings}

    def bottleneck(self, workers: int, cores: int) -> str:
        """Which stage the others waited for, with its share of the time, and what would help."""
        spent = max(self.total - self.load, 1e-9)
        parts = {
            "inputs": self.waited_inputs,
            "encode": self.encode,
            "writer": self.waited_writer,
        }
        slowest = max(parts, key=lambda part: parts[part])
        if parts[slowest] < _BOTTLENECK_SHARE * spent:
            return "start-up and bookkeeping took most of the time: no stage was a bottleneck"
        share = f"{min(1.0, parts[slowest] / spent):.0%}"
        if slowest == "encode":
            return f"encoding took {share} of the time: it was the bottleneck"
        if slowest == "writer":
            return f"the encoder waited {share} of the time for the disk: it was the bottleneck"
        stage = "reading" if self.read > self.prepare else "preparing"
        more = min(cores, 2 * workers) if workers else cores - 1
        advice = (
            f"; try --workers {more}"
            if more > workers and self.total > _MIN_SECONDS_FOR_ADVICE
            else ""
        )
        if workers:
            return (
                f"the encoder waited {share} of the time for inputs: {stage} was the bottleneck "
                f"({workers} worker{'s' * (workers > 1)}{advice})"
            )
        return (
            f"{stage} inputs took {share} of the time: it was the bottleneck (no workers{advice})"
        )
