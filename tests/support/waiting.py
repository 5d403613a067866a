"""Waiting for what has to happen, however busy the machine is; nothing here measures speed."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANG = 300.0
"""Seconds after which what did not end is taken for hanging; no test comes near them."""


def wait_until(condition: Callable[[], Any]) -> None:
    """Look again and again until it holds."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def killed_and_finished(
    folder: Path, start: Callable[[Path], Any], kills: int, seconds: float
) -> list[Path]:
    """Homes in which runs were killed at random moments and then ended by themselves.

    Args:
        folder: where the homes are made.
        start: a home → the process that fills it, or goes on filling it.
        kills: how many processes are killed in all; a home that is done is followed by another.
        seconds: what a whole run takes; the moments lie below.
    """
    chance, killed, homes = random.Random(7), 0, []
    while killed < kills:
        homes.append(folder / f"home{len(homes)}")
        done = False
        while not done:
            process = start(homes[-1])
            try:
                wait = chance.uniform(0, seconds) if killed < kills else HANG
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                assert killed < kills, "it hangs"
                process.kill()
                killed += 1
                _, errors = process.communicate()
            assert errors == ""
            done = process.returncode == 0
    return homes
