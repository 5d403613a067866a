"""Weights from the hub: requests, reported sizes, resumed downloads, and work without a hub."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from waiting import HANG

COMMIT = "a" * 40
BIG = bytes(range(256)) * 400
FILES = {"model.safetensors": BIG, "config.json": b'{"hidden_size": 4}'}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as one public repository needs."""

    def do_GET(self):
        """Answer a question about the repository, or a part of a file."""
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/api/models/team/model"):
            return self._json(self._listing())
        name = self.path.rpartition("/")[2].partition("?")[0]
        if "/resolve/" not in self.path or name not in FILES:
            return self._json({"error": "Repository not found"}, 404, "RepoNotFound")
        content = FILES[name]
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            broken = self.server.break_after if content is BIG else None
            if broken is not None:
                self.server.break_after = None
            self.wfile.write(content[start:broken])
        return None

    do_HEAD = do_GET  # noqa: N815 - the server's own name

    def _listing(self):
        siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
        sha = hashlib.sha256(BIG).hexdigest()
        siblings[0]["lfs"] = {"sha256": sha, "size": len(BIG), "pointerSize": 134}
        return {
            "id": "team/model", "sha": COMMIT, "siblings": siblings,
            "cardData": {"license": "apache-2.0"}, "tags": [],
        }  # fmt: skip

    def _json(self, value, status=200, code=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture
def hub():
    """A hub on this machine, on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.break_after = [], None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


_CODE = """
import json, os, sys
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ.update(HF_ENDPOINT=sys.argv[1], HF_HOME=sys.argv[2], HF_HUB_DISABLE_XET="1")
from pathlib import Path
from cache.errors import MmfuseError
from cache.storage.weight_digests import WeightsMemory
from pipelines.encoding.hub import RepositoryFiles, find_files
groups = (("model.safetensors", "pytorch_model.bin"), ("config.json",))
wanted = RepositoryFiles(sys.argv[3], groups)
try:
    files, download = find_files(wanted, WeightsMemory(None))
    if download and "fetch" in sys.argv:
        shown = []
        download.fetch(lambda items, label, total: shown.append([label, total]) or items)
        print(json.dumps(shown))
    print(json.dumps([{n: [f.sha256, f.size, bool(f.path)] for n, f in files.items()},
                      download and [download.commit, download.licence, download.size]]))
except MmfuseError as error:
    print("ERROR", error)
print(json.dumps([m for m in ("torch", "transformers") if m in sys.modules]))
"""


def _run(hub, home, repository="team/model", *words):
    address = hub if isinstance(hub, str) else f"http://127.0.0.1:{hub.server_port}"
    done = subprocess.run(
        [sys.executable, "-c", _CODE, address, str(home), repository, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"  # no torch
    return lines[:-1]


def test_the_hub_states_digests_before_anything_large_is_fetched(hub, tmp_path):
    """A fingerprint needs no weights here: name, size, licence and sha256 come from the hub."""
    (line,) = _run(hub, tmp_path)
    files, download = json.loads(line)
    assert files["model.safetensors"] == [hashlib.sha256(BIG).hexdigest(), len(BIG), False]
    assert files["config.json"][2]
    assert download == [COMMIT, "apache-2.0", len(BIG)]
    assert not [path for _, path, _ in hub.asked if path.endswith("model.safetensors")]


def test_fetched_weights_are_found_again_without_asking(hub, tmp_path):
    """After a download the same files come from the cache, with the same digests, offline too."""
    shown, line = _run(hub, tmp_path, "team/model", "fetch")
    assert json.loads(shown) == [["team/model model.safetensors, 0 MB", 1]]
    asked = len(hub.asked)
    (again,) = _run(hub, tmp_path)
    before, after = json.loads(line), json.loads(again)
    assert len(hub.asked) == asked
    assert after[1] is None
    assert {n: f[0] for n, f in before[0].items()} == {n: f[0] for n, f in after[0].items()}


def test_everything_is_asked_at_the_resolved_commit_and_without_telemetry(hub, tmp_path):
    """Files are requested by commit, and nothing says which program asks from where."""
    _run(hub, tmp_path, "team/model", "fetch")
    resolved = [path for _, path, _ in hub.asked if "/resolve/" in path]
    assert resolved
    assert all(COMMIT in path for path in resolved)
    assert not any("torch/" in headers.get("user-agent", "") for _, _, headers in hub.asked)


def test_an_interrupted_download_is_resumed(hub, tmp_path):
    """A partial download is resumed: only the rest is requested, and the whole is checked."""
    hub.break_after = 70_000
    (line,) = _run(hub, tmp_path, "team/model", "fetch")
    assert "broke off" in line
    _run(hub, tmp_path, "team/model", "fetch")
    starts = [
        headers.get("range") or headers.get("Range")
        for command, path, headers in hub.asked
        if command == "GET" and path.endswith("model.safetensors")
    ]
    assert starts == [None, "bytes=70000-"]
    (line,) = _run(hub, tmp_path)
    assert json.loads(line)[0]["model.safetensors"][0] == hashlib.sha256(BIG).hexdigest()


def test_weights_that_arrive_damaged_are_deleted(hub, tmp_path):
    """What does not have the announced sha256 is never found as weights afterwards."""
    hub.break_after = 70_000
    _run(hub, tmp_path, "team/model", "fetch")
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    (line,) = _run(hub, tmp_path, "team/model", "fetch")
    assert "arrived damaged" in line
    assert not list(tmp_path.rglob("*.part"))
    (line,) = _run(hub, tmp_path)
    assert not json.loads(line)[0]["model.safetensors"][2]


def test_a_repository_that_is_not_there_is_an_error(hub, tmp_path):
    """The error names the repository and says what to do instead."""
    (line,) = _run(hub, tmp_path, "team/other")
    assert "no weights of team/other" in line
    assert "no public repository" in line
    assert "--weights PATH" in line


def test_a_hub_that_cannot_be_reached_is_an_error_at_once(tmp_path):
    """No retry loop: a refused connection is reported at once, with what to do instead."""
    (line,) = _run("http://127.0.0.1:9", tmp_path)
    assert "cannot be reached" in line
    assert "pixels (image)" in line
