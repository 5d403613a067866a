"""Ctrl-C in the middle of an extraction: kept, said, and gone on with."""

import signal
import subprocess
import time

import pytest
from walking import Walk

STEP = "extract --dataset digits --encoder mfcc --workers 0"


@pytest.fixture
def walk(tmp_path):
    """A walk in a folder where nothing was done yet."""
    return Walk(tmp_path)


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(walk):
    """Exit code 130, one sentence on how to go on, and the next run settles every row."""
    process = subprocess.Popen(
        [walk.program("mmfuse"), *STEP.split()],
        cwd=walk.folder,
        env=walk.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    claims = "artifacts/features/digits.meta/streams/*/audio/1/claims/*"
    deadline = time.monotonic() + 60
    while not list(walk.folder.glob(claims)) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    again = walk.run(f"mmfuse {STEP}")
    assert again.endswith("[exit 0]\n")
    _, _, rows, new, reused, *_ = next(
        line for line in again.splitlines() if line.startswith("digits")
    ).split("  ")
    assert rows == "1,797"
    assert int(new.replace(",", "")) + int(reused.replace(",", "")) == 1639
