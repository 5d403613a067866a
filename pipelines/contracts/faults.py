"""Faults: an error inside a plug-in's own file, told with the line of it that raised."""

import traceback
from pathlib import Path

from pipelines import catalog


def told(error: Exception) -> str:
    """`RuntimeError: boom (my_head.py, line 21)`; without a place where no such file is in it."""
    own = set(catalog.files().values())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if str(Path(frame.filename).absolute()) in own]
    said = f"{type(error).__name__}: {error}"
    return f"{said} ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else said
