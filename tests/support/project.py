"""Where the project is, and the environment of processes that tests start."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def with_project(**more: str) -> dict[str, str]:
    """Environment of a process that imports the project and what tests share."""
    own = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    return {**os.environ, "PYTHONPATH": own, **more}
