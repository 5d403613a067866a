"""Processes forked from one that has imported slow libraries, so that a test does not pay for it.

Run as a script it is the server: python prestarted.py SOCKET MODULE... Only libraries are imported
in advance, never the project, and none that starts threads: what runs in the fork is the program
from its first line, with its own arguments, folder, environment and output.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WITHOUT_TORCH = (
    "numpy",
    "zarr",
    "sklearn.datasets",
    "sklearn.linear_model",
    "scipy.signal",
)
WITH_TORCH = (*WITHOUT_TORCH, "torch", "torch.func")


class Process:
    """A running fork with the methods of `subprocess.Popen` that tests use; output is text."""

    def __init__(self, link: socket.socket, outputs: Sequence[int]) -> None:
        self._link = link
        self.stdout, self.stderr = (os.fdopen(each, encoding="utf-8") for each in outputs)
        self.pid: int = json.loads(link.recv(64))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative where a signal ended it, as soon as it has ended."""
        if self.returncode is None:
            self._link.settimeout(timeout)
            try:
                self.returncode = json.loads(self._link.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0) from None
            self._link.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To this process alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait, and give back all that was written: (stdout, stderr)."""
        if not hasattr(self, "_readers"):
            self._said = ["", ""]
            self._readers = [
                threading.Thread(target=self._read, args=each, daemon=True)
                for each in enumerate((self.stdout, self.stderr))
            ]
            for reader in self._readers:
                reader.start()
        self.wait(timeout)
        for reader in self._readers:
            reader.join()
        return self._said[0], self._said[1]

    def _read(self, number: int, stream: Any) -> None:
        with stream:
            self._said[number] = stream.read()


# Only a process of one thread may be forked. The last is for pyarrow, whose allocator has a thread
# of its own, and which scikit-learn imports with pandas wherever they are installed.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class Prestarted:
    """The server's other end: `start` gives a process that has the libraries already."""

    def __init__(self, libraries: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "socket"
        command = [sys.executable, __file__, str(self._path), *libraries]
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"listening\n"

    def start(
        self,
        words: Sequence[object],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        own_group: bool = False,
        strict: bool = False,
    ) -> Process:
        """A process that runs a Python program.

        Args:
            words: path of a script, then its arguments.
            folder: where it runs; else where this process is.
            environment: all of its variables; else those of this process.
            own_group: whether it leads a session of its own.
            strict: whether warnings are errors, as with `-W error`.
        """
        request = {
            "words": [str(word) for word in words],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "own_group": own_group,
            "strict": strict,
        }
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.connect(str(self._path))
        pipes = [os.pipe(), os.pipe()]
        socket.send_fds(link, [json.dumps(request).encode()], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        return Process(link, [read for read, _ in pipes])

    def close(self) -> None:
        """End the server once its forks have ended; those that do not are left behind."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.connect(str(self._path))
        try:
            self._server.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.communicate()
            raise
        finally:
            self._folder.cleanup()


@functools.cache
def prestarted(libraries: Sequence[str] = WITH_TORCH) -> Prestarted:
    """The server with these libraries, started once and ended with the tests.

    With `()` its forks have imported nothing but parts of the standard library.
    """
    server = Prestarted(libraries)
    atexit.register(server.close)
    return server


def _serve(path: str) -> dict[str, Any]:
    """Fork for every request; returns the request in the fork that is to run it."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen()
    os.write(1, b"listening\n")
    events = selectors.DefaultSelector()
    events.register(listening, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}  # by handle of the process
    ending = False
    while not ending or running:
        for handle in [key.fd for key, _ in events.select()]:
            if handle in running:
                child, link = running.pop(handle)
                events.unregister(handle)
                os.close(handle)
                with contextlib.suppress(OSError):  # nobody asks any more
                    _, status = os.waitpid(child, 0)
                    link.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
                link.close()
                continue
            link, _ = listening.accept()
            data, outputs, *_ = socket.recv_fds(link, 1 << 20, 2)
            if not data:
                ending = True
                continue
            child = os.fork()
            if not child:
                for each in (events, listening, link, *(other for _, other in running.values())):
                    each.close()
                for place, output in enumerate(outputs, start=1):
                    os.dup2(output, place)
                    os.close(output)
                request: dict[str, Any] = json.loads(data)
                return request
            for output in outputs:
                os.close(output)
            link.send(json.dumps(child).encode())
            watched = os.pidfd_open(child)
            events.register(watched, selectors.EVENT_READ)
            running[watched] = child, link
    os._exit(0)


def main() -> None:
    """Serve; in a fork, run its program."""
    path, *libraries = sys.argv[1:]
    for name in libraries:
        importlib.import_module(name)
    gc.freeze()  # what is here stays shared memory: no collection of a fork writes to it
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - numbers, no files
    assert threads == 1, f"{threads} threads would not be forked"
    request = _serve(path)
    if request["own_group"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["strict"]:
        warnings.simplefilter("error")
    own = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:1] = [str(Path(request["words"][0]).parent), *own]
    os._exit(_ended(request["words"]))  # taking all libraries down would copy their memory


def _ended(words: list[str]) -> int:
    """Run the program as `python WORDS...`; its exit code after all that an interpreter ends with.

    Only the destruction of modules is left out.
    """
    code: object = None
    try:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)  # noqa: T201 - as an interpreter does
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    main()
