"""Devices, compute dtypes and CPU cores: words for them, checked, and what this machine has."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from cache.errors import MmfuseError, unknown

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Module = TypeVar("Module", bound=torch.nn.Module)

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
DTYPES = ("auto", "float32", "float16", "bfloat16")
_WITHOUT_DOUBLES = ("mps",)
_PIECE = 32 << 20  # bytes copied to a device at a time
_most: ContextVar[int | None] = ContextVar("threads before the outermost limit", default=None)
_PER_THREAD = 2e9  # operations that a thread should have to do: some twenty milliseconds


def cores() -> int:
    """CPU cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def threads_for(operations: float, *, blas: bool = True) -> Iterator[None]:
    """Run inside with as many threads of torch and BLAS as a piece of work is worth, at least one.

    Threads wait for each other after every operation: where pieces are small, or other processes
    want the cores, waiting takes longer than the work. Two threads of a busy BLAS take up to forty
    times as long for a small logistic regression as one.

    A command runs as a whole in `threads_for(0)`, and its larger pieces inside with what they are
    worth: as many as torch had before the command, at most.

    Args:
        operations: floating-point operations between two points where Python looks at results,
            such as one training step.
        blas: whether the piece calls BLAS by another way than torch; setting that takes a
            millisecond.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    most = _most.get() or before
    outer = _most.set(most)
    count = max(1, min(most, int(operations / _PER_THREAD)))
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas") if blas else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
        _most.reset(outer)


def where_double(device: "torch.device") -> "torch.device":
    """Where to compute in double precision: on the device, or on the CPU if it has no doubles."""
    import torch

    return torch.device("cpu") if device.type in _WITHOUT_DOUBLES else device


def onto(module: "Module", device: "torch.device") -> "Module":
    """Move a module to the device, in single precision where the device has no doubles."""
    return (module.float() if device.type in _WITHOUT_DOUBLES else module).to(device)


def to_device(values: "NDArray[Any]", device: "torch.device") -> "torch.Tensor":
    """A tensor of the values on the device; a view of them where that is the CPU.

    To a CUDA device asynchronously, in pieces by way of page-locked memory, which torch keeps and
    uses again: a page-locked copy of all would take as long as it saves.
    """
    import torch

    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    found = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    rows = max(1, _PIECE // max(1, tensor[:1].nbytes)) if tensor.ndim and len(tensor) else 1
    for source, target in zip(torch.split(tensor, rows), torch.split(found, rows), strict=True):
        target.copy_(source.pin_memory(), non_blocking=True)
    return found


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 matrix products and convolutions in float32 inside, not in TensorFloat-32.

    cuDNN rounds the inputs of float32 convolutions to 10 bits of mantissa unless told otherwise.
    """
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def check_device(word: str) -> str:
    """The word, if it names a device; whether this machine has it is not checked.

    Raises:
        MmfuseError: with the known ones; `cuda` and `xpu` may be numbered, as `cuda:1`.
    """
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", word):
        raise unknown("device", word, DEVICES)
    return word


def check_dtype(word: str) -> str:
    """The word, if it names a compute dtype.

    Raises:
        MmfuseError: with the known ones.
    """
    if word not in DTYPES:
        raise unknown("compute dtype", word, DTYPES)
    return word


def pick_device(word: str) -> "torch.device":
    """The device that a word names; `auto` is the first CUDA device, else the CPU.

    Raises:
        MmfuseError: for an unknown word, or a device that this machine does not have; there is
            no fallback.
    """
    import torch

    if check_device(word) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MmfuseError(
            f"no device {word} here ({reason}); leave --device out, or say --device cpu"
        ) from error
    return device


def pick_dtype(word: str, device: "torch.device") -> "torch.dtype":
    """`auto` computes in float16 on a CUDA device and in float32 elsewhere."""
    import torch

    name = word if word != "auto" else "float16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype
