"""This machine as tables: versions, devices, cores, disk space and weights found."""

import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.device import cores
from pipelines.reports.table import Column, Table, bytes_text

_LIBRARIES = (
    "torch", "torchvision", "numpy", "zarr", "polars", "h5py", "scikit-learn", "open_clip_torch",
    "transformers", "timm", "sentence-transformers", "av", "soundfile", "pillow",
    "pillow-heif",
)  # fmt: skip
_Device = tuple[str | None, int | None, int | None, int | None]  # model, cores, threads, bytes
_Place = tuple[bool, int | None, list[str] | None]  # exists, free bytes, names in it


def versions() -> Table:
    """Versions of mmfuse, Python and the libraries that results depend on."""
    rows = [("mmfuse", _version("mmfuse")), ("python", platform.python_version())]
    rows += [(name, _version(name)) for name in _LIBRARIES]
    columns = ("library", Column("version", empty="not installed"))
    return Table("versions", columns, tuple(rows), name="versions")


def devices() -> Table:
    """Devices that encoders and heads can run on; imports torch."""
    import torch

    rows: list[tuple[str, _Device]] = [
        ("cpu", (None, cores(), torch.get_num_threads(), None)),
    ]
    for number in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(number)
        rows.append((f"cuda:{number}", (seen.name, None, None, seen.total_memory)))
    if torch.backends.mps.is_available():
        rows.append(("mps", ("Apple GPU", None, None, None)))
    lacking = () if len(rows) > 1 else ("no GPU that torch can use: encoders run on the CPU",)
    fields = ("model", "cores", "threads", "memory_bytes")
    columns = ("device", Column("what it is", fields, _device_text, tuple))
    return Table("devices", columns, tuple(rows), lacking, "devices")


def places(home: Path, roots: Sequence[Path], weights: Sequence[Path]) -> Table:
    """Folders of features, raw data and weights, with the space left.

    Args:
        home: of features and runs.
        roots: of raw data.
        weights: folders where libraries store downloaded weights.
    """
    own: _Place = (home.exists(), _free(home), None)
    rows = [("home", str(home.resolve()), own)]
    rows += [("data", str(root.resolve()), _held(root)) for root in roots]
    rows += [("weights", str(folder), _held(folder)) for folder in weights]
    fields = ("exists", "free_bytes", "entries")
    columns = (Column("for", ("use",)), "folder", Column("state", fields, _state_text, tuple))
    return Table("places", columns, tuple(rows), name="places")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device_text(device: _Device) -> str:
    model, count, threads, memory = device
    if count is not None:
        return f"{count} cores, torch uses {threads} threads"
    return f"{model}, {bytes_text(memory)}" if memory else str(model)


def _free(folder: Path) -> int:
    """Free bytes of the disk that the folder is or would be on."""
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _held(folder: Path) -> _Place:
    if not folder.is_dir():
        return False, None, None
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return True, None, names


def _state_text(place: _Place) -> str:
    exists, free, entries = place
    if free is not None:
        return f"{bytes_text(free)} free{'' if exists else ', not made yet'}"
    return ", ".join(entries or ()) or ("empty" if exists else "not there")
