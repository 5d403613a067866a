"""How fast the front door opens: `mmfuse --help` against `python -c "import typer"`.

Run: python tests/benchmarks/start_up.py
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROUNDS = 15


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print medians of alternating runs and their ratio."""
    door = [str(Path(sys.executable).with_name("mmfuse")), "--help"]
    bare = [sys.executable, "-c", "import typer"]
    pairs = [(seconds(door), seconds(bare)) for _ in range(ROUNDS + 2)][2:]  # two to warm up
    helped, imported = (median(times) for times in zip(*pairs, strict=True))
    print(f"mmfuse --help            {helped * 1e3:6.0f} ms")
    print(f'python -c "import typer" {imported * 1e3:6.0f} ms')
    print(f"ratio                    {helped / imported:6.2f}   (wanted: at most 3)")


if __name__ == "__main__":
    main()
