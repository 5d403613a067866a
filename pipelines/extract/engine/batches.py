"""Batches of samples with similar cost, and encoding them within the memory of the device."""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from cache.storage.objects import put
from cache.writing.journal import Failure
from pipelines.encoding.encoder import Encoder
from pipelines.media.payloads import Unreadable

# Samples prepared before the first of them is encoded: many where lengths vary and items are
# small, few where an item is large. A batch never spans two windows.
WINDOWS: dict[Kind, int] = {
    "text": 2048,
    "code": 2048,
    "tabular": 2048,
    "series": 1024,
    "audio": 256,
    "image": 512,
    "layout": 512,
    "video": 64,
}
_MAX_SHORT_FACTOR = 4  # batches of short samples may hold this many times more rows
MAX_FIRST_FAILURES = 100  # inputs that may fail before the first succeeds
_BUCKETS = 40  # powers of two above a length that are searched
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


@dataclass(frozen=True)
class BatchBudget:
    """Limits of one batch.

    Attributes:
        rows: samples in a batch of equal costs.
        cost: largest padded cost of a batch, its size times its largest cost; None for `rows` times
            the window's mean cost.
    """

    rows: int
    cost: int | None = None


# One batch on a CPU should not outlast the time between two checkpoints; one on a GPU should fill
# it. Costs are tokens, audio samples (here at 16 kHz) and images; see `Encoder.prepare`.
_WEIGHT_FREE = BatchBudget(256)
_CPU: dict[Kind, BatchBudget] = {
    "text": BatchBudget(32, 4_096),
    "code": BatchBudget(32, 4_096),
    "audio": BatchBudget(8, 60 * 16_000),
    "video": BatchBudget(4, 64),
}
_GPU: dict[Kind, BatchBudget] = {
    "text": BatchBudget(256, 32_768),
    "code": BatchBudget(256, 32_768),
    "audio": BatchBudget(64, 240 * 16_000),
    "video": BatchBudget(64, 512),
}


def default_budget(kind: Kind, device: str, *, weights: bool) -> BatchBudget:
    """Default batch budget of a kind on a device.

    Args:
        kind: of the modality.
        device: where it is encoded, `cpu` or another.
        weights: whether the encoder has weights; without, encoding is cheap.
    """
    if not weights:
        return _WEIGHT_FREE
    if device == "cpu":
        return _CPU.get(kind, BatchBudget(32))
    return _GPU.get(kind, BatchBudget(256))


def bucketed_batches(costs: Sequence[int], budget: BatchBudget) -> list[list[int]]:
    """Positions grouped into batches, costliest first, so that out-of-memory shows at once.

    Equal costs stay in order. A batch holds at most `budget.rows` samples (four times as many if
    they are short) and at most `budget.cost` padded, but always one.
    """
    if not costs:
        return []
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    alike = costs[order[0]] == costs[order[-1]]
    most = budget.rows if alike else _MAX_SHORT_FACTOR * budget.rows
    padded = budget.cost or max(1, round(budget.rows * sum(costs) / len(costs)))
    found: list[list[int]] = []
    batch: list[int] = []
    for place in order:
        largest = costs[batch[0]] if batch else 0
        if batch and (len(batch) >= most or (len(batch) + 1) * largest > padded):
            found.append(batch)
            batch = []
        batch.append(place)
    found.append(batch)
    return found


class AllInputsFailedError(MmfuseError):
    """All first inputs failed: the data path or the encoder is wrong, not single rows."""


class MemoryLimits:
    """Largest padded cost that fits into a device's memory, stored in a small JSON file.

    One number for each encoder, device and bucket of lengths: attention takes more of the same
    padded cost where inputs are long. A bucket ends at a power of two.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, int] = {}
        if path is not None and path.is_file():
            # An unreadable file is no error: limits are found again.
            with contextlib.suppress(OSError, ValueError):
                self._known = {str(k): int(v) for k, v in json.loads(path.read_text()).items()}

    def get(self, key: str, longest: int) -> int | None:
        """The known limit for a batch whose longest input has this cost; None if unknown.

        An untried bucket takes the limit of the next longer one that was tried, times how much
        shorter it is, as for memory that grows with the square of the length.
        """
        bucket = _bucket(longest)
        for times in (1 << power for power in range(_BUCKETS)):
            known = self._known.get(f"{key} {bucket * times}")
            if known is not None:
                return known * times
        return None

    def lower(self, key: str, longest: int, cost: int) -> None:
        """Record, also for later runs, that more than `cost` does not fit."""
        self._known[f"{key} {_bucket(longest)}"] = cost
        if self._path is not None:
            put(self._path, json.dumps(self._known, indent=1, sort_keys=True).encode())


class BatchEncoder:
    """Encodes batches, halving them on out-of-memory.

    Attributes:
        succeeded: whether any input was encoded.
        retries: batches that were halved because of memory.
    """

    def __init__(self, encoder: Encoder, kind: Kind, limits: MemoryLimits, key: str) -> None:
        self._encoder, self._kind = encoder, kind
        self._limits, self._key = limits, key
        self.succeeded = False
        self._failures = 0
        self.retries = 0

    def encode(self, items: Sequence[Any], costs: Sequence[int]) -> list[NDArray[Any] | Failure]:
        """Prepared items → a vector or a failure each, in order.

        A batch above the known limit is halved beforehand; one that runs out of memory lowers the
        limit and is halved; one that fails otherwise is halved to find the failing item.

        Raises:
            MmfuseError: from the encoder.
            AllInputsFailedError: when the first hundred inputs have all failed.
        """
        longest = max(costs)
        limit = self._limits.get(self._key, longest)
        padded = len(items) * longest
        if limit is not None and padded > limit and len(items) > 1:
            return self._halves(items, costs)
        found = self._attempt(items)
        if not isinstance(found, Failure):
            self.succeeded = True
            return list(found)
        if found.reason == "out-of-memory":
            _release()
            self.retries += 1
            self._limits.lower(self._key, longest, max(1, padded // 2))
        if len(items) > 1:
            return self._halves(items, costs)
        self._count_failure(found)
        return [found]

    def _halves(self, items: Sequence[Any], costs: Sequence[int]) -> list[NDArray[Any] | Failure]:
        middle = len(items) // 2
        first = self.encode(items[:middle], costs[:middle])
        return first + self.encode(items[middle:], costs[middle:])

    def _attempt(self, items: Sequence[Any]) -> list[NDArray[Any]] | Failure:
        """The vectors, or the failure; the traceback and its tensors are freed on return."""
        try:
            found = self._encoder.encode(self._kind, items)
        except MmfuseError:
            raise
        except Unreadable as fault:
            return Failure(fault.reason, fault.detail, fault.transient)
        except Exception as error:  # an encoder's error on one sample never ends the run
            if _out_of_memory(error):
                return Failure("out-of-memory", str(error).split("\n")[0], transient=True)
            return Failure("error", f"{type(error).__name__}: {error}")
        if len(found) != len(items):
            raise MmfuseError(
                f"encoder {self._encoder.name} gave {len(found)} vectors for {len(items)} inputs "
                f"of kind {self._kind}; it must give one for each, in order"
            )
        return [np.asarray(vector) for vector in found]

    def _count_failure(self, failure: Failure) -> None:
        self._failures += 1
        if self._failures >= MAX_FIRST_FAILURES and not self.succeeded:
            raise AllInputsFailedError(
                f"encoder {self._encoder.name} failed on each of the first {self._failures} inputs "
                f"of kind {self._kind}, the last with {failure.reason}: {failure.detail}"
            )


def _bucket(longest: int) -> int:
    """The power of two that ends the bucket of a length."""
    return 1 << (longest - 1).bit_length()


def _out_of_memory(error: Exception) -> bool:
    """Whether an error is out-of-memory, by name or message, since this file imports no torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in _OUT_OF_MEMORY
    )


def _release() -> None:
    """Free torch's cached blocks, so that a smaller batch finds contiguous memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
