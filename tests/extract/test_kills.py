"""Extraction by real processes: killed at any moment, interrupted, several at once."""

import json
import os
import signal
import time

import numpy as np
import pytest
from prestarted import WITHOUT_TORCH, prestarted
from project import ROOT, with_project
from waiting import HANG, killed_and_finished

from cache.feature_store import FeatureStore
from cache.layout import Home

SCRIPT = ROOT / "tests" / "support" / "extracting.py"


def start(home, what, workers=0, *roots, libraries=WITHOUT_TORCH, own_group=False, **more):
    """A process that extracts, past its imports."""
    process = prestarted(libraries).start(
        [SCRIPT, home, what, workers, *roots],
        environment=with_project(OMP_NUM_THREADS="1", **more),
        own_group=own_group,
        strict=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def crew(count, home, what, go):
    """Processes that begin together once `go` exists."""
    return [start(home, what, GO=str(go)) for _ in range(count)]


def end(process, code=0):
    """What a process said when it ended by itself; nothing may be on its stderr."""
    output, errors = process.communicate(timeout=HANG)
    assert (process.returncode, errors) == (code, "")
    return json.loads(output.splitlines()[-1])


def tree(home):
    """Every object of the Zarr groups with its bytes."""
    top = home / "features"
    found = (p for zarr in top.glob("*.zarr") for p in zarr.rglob("*") if p.is_file())
    return {str(path.relative_to(top)): path.read_bytes() for path in found}


def check_kills(tmp_path, what, kills, *roots):
    """Kill runs at random moments until so many have been; every store ends byte-identical."""
    process = start(tmp_path / "whole", what, 0, *roots)
    began = time.monotonic()
    end(process)
    seconds = time.monotonic() - began
    expected = tree(tmp_path / "whole")
    for home in killed_and_finished(tmp_path, lambda h: start(h, what, 0, *roots), kills, seconds):
        assert tree(home) == expected


@pytest.mark.parametrize(
    ("what", "kills"),
    [
        ("digits", 2),
        ("0.002", 4),
        pytest.param("digits", 10, marks=pytest.mark.slow),
        pytest.param("0.002", 10, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(tmp_path, what, kills):
    """SIGKILL loses nothing that a re-run does not repair: all arrays are byte-identical."""
    check_kills(tmp_path, what, kills)


@pytest.mark.slow
def test_killed_at_any_moment_files_in_archives_give_the_same_bytes(tmp_path, pack):
    """The same on avdigits, whose images and audio are members of archives."""
    check_kills(tmp_path, "avdigits", 5, pack("avdigits").parent)


def test_four_processes_share_one_stream(tmp_path):
    """Each input is encoded by exactly one of them, and the bytes are those of one process."""
    end(start(tmp_path / "alone", "0.001"))
    together = crew(4, tmp_path / "shared", "0.005", tmp_path / "go")
    (tmp_path / "go").touch()
    said = [end(process) for process in together]
    assert all(report["complete"] for one in said for report in one["reports"])
    encoded = [text for one in said for text in one["encoded"]]
    assert len(encoded) == len(set(encoded)) == 3000
    assert sum(1 for one in said if one["encoded"]) >= 2
    assert tree(tmp_path / "shared") == tree(tmp_path / "alone")


def test_what_a_killed_process_held_is_taken_over(tmp_path):
    """Of three processes one is killed in the middle; the others wait for nobody and finish.

    A lease never expires by age here, so that waiting for that would hang.
    """
    end(start(tmp_path / "alone", "0.001"))
    together = crew(3, tmp_path / "shared", "0.02", tmp_path / "go")
    (tmp_path / "go").touch()
    assert together[0].stdout.readline() == "encoding\n"
    together[0].kill()
    together[0].communicate()
    said = [end(process) for process in together[1:]]
    assert all(report["complete"] for one in said for report in one["reports"])
    assert tree(tmp_path / "shared") == tree(tmp_path / "alone")


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_quietly_and_the_next_run_goes_on(tmp_path, workers):
    """SIGINT to the whole process group, as a terminal sends it: no traceback, nothing redone."""
    process = start(tmp_path, "0.1", workers, own_group=True)
    assert process.stdout.readline() == "encoding\n"
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
    again = end(start(tmp_path, "digits", libraries=()))
    assert again["heavy"] == []
    assert [report["new"] for report in again["reports"]] == [0, 0, 0]
    assert all(report["complete"] for report in again["reports"])


def test_a_stream_left_by_a_kill_is_not_readable_before_it_is_done(tmp_path):
    """A killed run leaves no stream that stage 2 would take for whole."""
    process = start(tmp_path, "0.05")
    assert process.stdout.readline() == "encoding\n"
    process.kill()
    process.communicate()
    streams = FeatureStore(Home(tmp_path), "crowd").streams()
    assert [stream.complete for stream in streams] == [False]
    assert end(start(tmp_path, "0.001"))["reports"][0]["complete"]
    (stream,) = FeatureStore(Home(tmp_path), "crowd").streams()
    assert stream.counts == {"ok": 3000, "absent": 0, "failed": 0, "pending": 0}
    assert np.isfinite(FeatureStore(Home(tmp_path), "crowd").whole(stream.key).values).all()
