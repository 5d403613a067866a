"""Ctrl-C in the middle of an extraction: kept, said, and gone on with."""

import signal

import pytest
from prestarted import prestarted
from waiting import HANG, wait_until
from walking import Walk

STEP = "extract --dataset digits --encoder mfcc --workers 0"


@pytest.fixture
def walk(tmp_path):
    """A walk in a folder where nothing was done yet."""
    return Walk(tmp_path)


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(walk):
    """Exit code 130, one sentence on how to go on, and the next run settles every row."""
    command = [walk.program("mmfuse"), *STEP.split()]
    process = prestarted().start(command, folder=walk.folder, environment=walk.variables())
    claims = "artifacts/features/digits.meta/streams/*/audio/1/claims/*"
    wait_until(lambda: process.poll() is not None or list(walk.folder.glob(claims)))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=HANG)
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
