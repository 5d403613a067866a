"""Timings: seconds of each step of an extraction, and a sentence that names the bottleneck."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_BOTTLENECK_SHARE = 1 / 3  # share of the time above which a step is the bottleneck
_MIN_SECONDS_FOR_ADVICE = 30.0  # shorter runs get no advice


@dataclass
class Timings:
    """Seconds of one stream's extraction.

    `load` is the first sample, loading of weights included, before the others begin. `read` and
    `prepare` are summed over workers; in the `waited` ones the encoder was idle, waiting for inputs
    or for the shard writer.
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
    def timed(self, step: str) -> Iterator[None]:
        """Add the duration of the block to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, step, getattr(self, step) + time.perf_counter() - start)

    def seconds(self) -> dict[str, float]:
        """Seconds of each step and in total."""
        timings = ("load", "read", "prepare", "encode", "write", "total")
        return {step: round(getattr(self, step), 4) for step in timings}

    def bottleneck(self, workers: int, cores: int) -> str:
        """One sentence: the slowest step, its share of the time, and advice."""
        spent = max(self.total - self.load, 1e-9)
        parts = {
            "inputs": self.waited_inputs,
            "encode": self.encode,
            "writer": self.waited_writer,
        }
        slowest = max(parts, key=lambda part: parts[part])
        if parts[slowest] < _BOTTLENECK_SHARE * spent:
            return "start-up and bookkeeping took most of the time: no step was a bottleneck"
        share = f"{min(1.0, parts[slowest] / spent):.0%}"
        if slowest == "encode":
            return f"encoding took {share} of the time: it was the bottleneck"
        if slowest == "writer":
            return f"the encoder waited {share} of the time for the disk: it was the bottleneck"
        step = "reading" if self.read > self.prepare else "preparing"
        more = min(cores, 2 * workers) if workers else cores - 1
        advice = (
            f"; try --workers {more}"
            if more > workers and self.total > _MIN_SECONDS_FOR_ADVICE
            else ""
        )
        if workers:
            return (
                f"the encoder waited {share} of the time for inputs: {step} was the bottleneck "
                f"({workers} worker{'s' * (workers > 1)}{advice})"
            )
        return f"{step} inputs took {share} of the time: it was the bottleneck (no workers{advice})"
