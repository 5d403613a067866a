"""A disk that refuses: a clear error, and a store as if the refused step had not begun."""

import errno
import os
import resource
import subprocess
import sys

import pytest
import store_filler
from project import with_project
from store_rows import fill, key_of, open_writer, shrink

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.verify import verify

REFUSALS = {
    errno.ENOSPC: "disk is full",
    errno.EDQUOT: "quota",
    errno.EROFS: "read-only",
    errno.EACCES: "no permission",
    errno.EIO: "input/output error",
}


@pytest.mark.parametrize("number", REFUSALS)
def test_a_refusing_disk_is_a_clear_error_and_the_store_stays_whole(tmp_path, monkeypatch, number):
    """Whichever write is refused, the next run takes the store up and ends well."""
    shrink(monkeypatch.setattr)
    store = FeatureStore(Home(tmp_path / "home"), "toy")
    rows = list(range(400))
    sync = os.fsync
    for fails_at in (0, 1, 2, 5, 11, 12, 17, 23, 31):
        calls = 0

        def refuse(handle, fails_at=fails_at):
            nonlocal calls
            calls += 1
            if calls > fails_at:
                raise OSError(number, os.strerror(number))
            sync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(MmfuseError, match=f"{tmp_path}.*{REFUSALS[number]}"):
                fill(open_writer(store, rows), rows)
        assert [d for d in verify(store.home).damages if d.what != "commit"] == []
    fill(open_writer(store, rows), rows)
    assert verify(store.home).damages == ()
    assert len(store.whole(key_of()).values) == 400


def test_a_limit_on_file_size_is_a_clear_error(tmp_path):
    """A real refusal by the system, without any pretending."""
    script = (
        "import resource, signal, sys, store_filler\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = store_filler.opened(Path(sys.argv[1]), 'pooled')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "store_filler.fill_slowly(writer, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "home")],
        env=with_project(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "files of this size are not allowed here" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 9000
    store_filler.fill_slowly(store_filler.opened(tmp_path / "home", "pooled"), 0)
    assert verify(Home(tmp_path / "home")).damages == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_clear_error(tmp_path):
    """Nothing is written where nothing may be written."""
    (tmp_path / "home").mkdir(mode=0o500)
    with pytest.raises(MmfuseError, match="no permission"):
        open_writer(FeatureStore(Home(tmp_path / "home"), "toy"), [1, 2])
