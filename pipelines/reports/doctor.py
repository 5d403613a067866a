"""This machine as tables: versions, devices, cores, disk space and weights found."""

import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.device import cores
from pipelines.reports.table import Table, bytes_text

_LIBRARIES = (
    "torch", "torchvision", "numpy", "zarr", "polars", "h5py", "scikit-learn", "open_clip_torch",
    "transformers", "timm", "sentence-transformers", "av", "soundfile", "pillow",
    "pillow-heif",
)  # fmt: skip


def versions() -> Table:
    """Versions of mmfuse, Python and the libraries that results depend on."""
    rows = [("mmfuse", _version("mmfuse")), ("python", platform.python_version())]
    rows += [(name, _version(name)) for name in _LIBRARIES]
    return Table("versions", ("library", "version"), tuple(rows))


def devices() -> Table:
    """Devices that encoders and heads can run on; imports torch."""
    import torch

    rows = [("cpu", f"{cores()} cores, torch uses {torch.get_num_threads()} threads")]
    for number in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(number)
        rows.append((f"cuda:{number}", f"{seen.name}, {bytes_text(seen.total_memory)}"))
    if torch.backends.mps.is_available():
        rows.append(("mps", "Apple GPU"))
    lacking = () if len(rows) > 1 else ("no GPU that torch can use: encoders run on the CPU",)
    return Table("devices", ("device", "what it is"), tuple(rows), lacking)


def places(home: Path, roots: Sequence[Path], weights: Sequence[Path]) -> Table:
    """Folders of features, raw data and weights, with the space left.

    Args:
        home: of features and runs.
        roots: of raw data.
        weights: folders where libraries store downloaded weights.
    """
    rows = [("home", str(home.resolve()), _space(home))]
    rows += [("data", str(root.resolve()), _held(root)) for root in roots]
    rows += [("weights", str(folder), _held(folder)) for folder in weights]
    return Table("places", ("for", "folder", "state"), tuple(rows))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _space(folder: Path) -> str:
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    free = bytes_text(shutil.disk_usage(there).free)
    return f"{free} free{'' if folder.exists() else ', not made yet'}"


def _held(folder: Path) -> str:
    if not folder.is_dir():
        return "not there"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return ", ".join(names) if names else "empty"
