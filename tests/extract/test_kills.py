"""Extraction by real processes: killed at any moment, interrupted, several at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from project import ROOT, with_project

from cache.feature_store import FeatureStore
from cache.layout import Home

SCRIPT = ROOT / "tests" / "support" / "extracting.py"


def start(home, what, workers=0, *roots, **more):
    """A process that extracts, past its imports."""
    environment = with_project(OMP_NUM_THREADS="1")
    words = [sys.executable, "-W", "error", SCRIPT, home, what, str(workers), *roots]
    process = subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        **more,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(process, code=0):
    """What a process said when it ended by itself; nothing may be on its stderr."""
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (code, "")
    return json.loads(output)


def tree(home):
    """Every object of the Zarr groups with its bytes."""
    top = home / "features"
    found = (p for zarr in top.glob("*.zarr") for p in zarr.rglob("*") if p.is_file())
    return {str(path.relative_to(top)): path.read_bytes() for path in found}


def check_kills(tmp_path, what, kills, *roots):
    """Kill runs at random moments until so many have been; every store ends byte-identical."""
    chance = random.Random(7)
    process = start(tmp_path / "whole", what, 0, *roots)
    began = time.monotonic()
    end(process)
    duration = time.monotonic() - began
    expected = tree(tmp_path / "whole")
    killed = homes = 0
    while killed < kills:
        home = tmp_path / f"home{homes}"
        homes += 1
        while not (home / "done").exists():
            process = start(home, what, 0, *roots)
            most = duration if killed < kills else 1000.0
            try:
                _, errors = process.communicate(timeout=chance.uniform(0, most))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
                _, errors = process.communicate()
            assert errors == ""
            if process.returncode == 0:
                (home / "done").touch()
        assert tree(home) == expected


@pytest.mark.parametrize(("what", "kills"), [("digits", 10), ("0.002", 10)])
def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(tmp_path, what, kills):
    """SIGKILL loses nothing that a re-run does not repair: all arrays are byte-identical."""
    check_kills(tmp_path, what, kills)


def test_killed_at_any_moment_files_in_archives_give_the_same_bytes(tmp_path, pack):
    """The same on avdigits, whose images and audio are members of archives."""
    check_kills(tmp_path, "avdigits", 5, pack("avdigits").parent)


def test_four_processes_share_one_stream(tmp_path):
    """Each input is encoded by exactly one of them, and the bytes are those of one process."""
    end(start(tmp_path / "alone", "0.001"))
    processes = [start(tmp_path / "shared", "0.001") for _ in range(4)]
    outputs = [end(process) for process in processes]
    assert all(report["complete"] for one in outputs for report in one["reports"])
    encoded = [text for one in outputs for text in one["encoded"]]
    assert len(encoded) == len(set(encoded)) == 3000
    assert sum(1 for one in outputs if one["encoded"]) >= 2
    assert tree(tmp_path / "shared") == tree(tmp_path / "alone")


def test_what_a_killed_process_held_is_taken_over(tmp_path):
    """Of three processes one is killed in the middle; the others do not wait for it and finish."""
    end(start(tmp_path / "alone", "0.004"))
    processes = [start(tmp_path / "shared", "0.004") for _ in range(3)]
    time.sleep(0.7)
    processes[0].kill()
    processes[0].communicate()
    began = time.monotonic()
    outputs = [end(process) for process in processes[1:]]
    assert time.monotonic() - began < 30
    assert all(report["complete"] for one in outputs for report in one["reports"])
    assert tree(tmp_path / "shared") == tree(tmp_path / "alone")


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_quietly_and_the_next_run_goes_on(tmp_path, workers):
    """SIGINT to the whole process group, as a terminal sends it: no traceback, nothing redone."""
    process = start(tmp_path, "0.02", workers, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any((tmp_path / "features").glob("*.meta/streams/*/*/1/journal/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    first = end(process)
    (report,) = first["reports"]
    assert report["interrupted"]
    assert 0 < report["new"] < 3000
    assert first["threads"] == ["MainThread"]
    second = end(start(tmp_path, "0", workers))
    assert sorted(first["encoded"] + second["encoded"]) == sorted(
        set(first["encoded"]) | set(second["encoded"])
    )
    assert len(first["encoded"]) + len(second["encoded"]) == 3000


def test_when_nothing_is_left_neither_torch_nor_zarr_is_imported(tmp_path):
    """A second extract of everything proves by digests alone that there is nothing to do."""
    end(start(tmp_path, "digits"))
    again = end(start(tmp_path, "digits"))
    assert again["heavy"] == []
    assert [report["new"] for report in again["reports"]] == [0, 0, 0]
    assert all(report["complete"] for report in again["reports"])


def test_a_stream_left_by_a_kill_is_not_readable_before_it_is_done(tmp_path):
    """A killed run leaves no stream that stage 2 would take for whole."""
    process = start(tmp_path, "0.05")
    time.sleep(1.0)
    process.kill()
    process.communicate()
    streams = FeatureStore(Home(tmp_path), "crowd").streams()
    assert [stream.complete for stream in streams] == [False]
    assert end(start(tmp_path, "0.001"))["reports"][0]["complete"]
    (stream,) = FeatureStore(Home(tmp_path), "crowd").streams()
    assert stream.counts == {"ok": 3000, "absent": 0, "failed": 0, "pending": 0}
    assert np.isfinite(FeatureStore(Home(tmp_path), "crowd").whole(stream.key).values).all()
