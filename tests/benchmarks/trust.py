"""The store's guarantees at length: kills, damages, flipped bits, shared streams, random histories.

Run: python tests/benchmarks/trust.py [--kills 200] [--flips 1000] [--histories 300]. Prints them;
stops with an error at the first guarantee that does not hold. The tests do the same in small.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).parent.parent / "cache"))
import test_maintenance
from store_rows import shrink
from test_store_kills import arrays, start, whole_run
from test_store_model import StoreMachine

from cache.layout import Home
from cache.maintenance.repair import repair
from cache.maintenance.verify import verify


def kills(top: Path, count: int) -> None:
    """Kill an extraction again and again; begin anew whenever it got to its end."""
    for mode in ("pooled", "sequence"):
        seconds = whole_run(top / f"alone-{mode}", mode)
        wanted, rng = arrays(top / f"alone-{mode}"), np.random.default_rng(0)
        killed = runs = 0
        while killed < count // 2:
            home = top / f"killed-{mode}-{runs}"
            runs += 1
            while True:
                process = start(home, mode, killed)
                try:
                    process.wait(timeout=float(rng.uniform(0.1, 0.3 + seconds)))
                    process.communicate()
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    killed += 1
            whole_run(home, mode)
            assert arrays(home) == wanted, f"{home} differs"
        print(f"kills        {killed} SIGKILLs, {runs} {mode} streams, all byte-identical")


def flips(top: Path, count: int) -> None:
    """Flip single bits of any file; find, take back, run again, compare."""
    shrink(_set)
    for sequence in (False, True):
        home, rng, encoded = Home(top / f"flips-{sequence}"), np.random.default_rng(0), 0
        rows = len(test_maintenance.run(home, sequence))
        for _ in range(count // 2):
            path, at = test_maintenance.flip(home, rng)
            damages = verify(home).damages
            assert damages, f"byte {at} of {path} went unseen"
            repair(home, damages)
            encoded += len(test_maintenance.run(home, sequence))
            test_maintenance.values_are_right(home, sequence)
        kind = "sequence" if sequence else "pooled"
        print(
            f"flips        {count // 2} bits of a {kind} store: all found and mended, "
            f"{encoded / (count // 2):.1f} of {rows} rows encoded again each"
        )


def sharing(top: Path) -> None:
    """Four processes, one stream, ten times."""
    for mode in ("pooled", "sequence"):
        whole_run(top / f"one-{mode}", mode)
        for number in range(10):
            home, go = top / f"four-{mode}-{number}", top / f"go-{mode}-{number}"
            processes = [start(home, mode, seed, str(go)) for seed in range(4)]
            time.sleep(0.5)
            go.touch()
            for process in processes:
                _, errors = process.communicate()
                assert process.returncode == 0, errors.decode()
            assert arrays(home) == arrays(top / f"one-{mode}")
        print(f"sharing      4 processes × 10 {mode} streams: no row lost, all byte-identical")


def histories(count: int) -> None:
    """Random sequences of append, edit, reorder, kill, damage and collection against a model."""
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    length = settings(max_examples=count, stateful_step_count=25, deadline=None, database=None)
    run_state_machine_as_test(StoreMachine, settings=length)
    print(f"histories    {count} random histories of up to 25 steps: the model never differed")


def _set(name: str, value: object) -> None:
    import importlib

    module, _, attribute = name.rpartition(".")
    setattr(importlib.import_module(module), attribute, value)


def main() -> None:
    """Everything, in a folder that is removed at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--histories", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        kills(Path(name), options.kills)
        sharing(Path(name))
        flips(Path(name), options.flips)
    histories(options.histories)


if __name__ == "__main__":
    main()
