"""Runs a transcript's commands for real and gives back the transcript as it came out."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from prestarted import prestarted
from waiting import HANG

_MMFUSE = Path(sys.executable).with_name("mmfuse")
_PROGRESS = re.compile(r".+: ([\d,]+ of [\d,]+|\w+ \d+/\d+(, validation \S+)?)")  # slow ones only
_LOOSE = (  # what differs from machine to machine → what the transcript says instead
    (r"\b\d{8}-[a-z_]+-[A-Za-z0-9_.-]+-[0-9a-f]{6}\b", "RUN"),
    (r"(?<=[a-z])-[0-9a-f]{6}\b", "-######"),
    (r"-[0-9a-f]{8}\b", "-########"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b", "WHEN"),
    (r"\b\d[\d,]*(\.\d+)? (ms|s|min|h)\b", "# s"),
    (r"\b\d+(\.\d+)? (kB|MB|GB|TB)\b", "# MB"),
    (r"\b\d+\.\d{3}\b( ± \d+\.\d{3}\b)?", "#.###"),
    (r"\b0\.000\d\b|<0\.0001", "#.###"),
    (r"[+-]#\.###", "±#.###"),
    (r"(?m)^.* bottleneck.*\n", ""),  # which streams share one is chance
    (r"(?m)^(.+ on .+): (\w+ )?(used|stopped|\d+ of \d+ replicas) .*$", r"\1: # epochs"),
    (r" {2,}", "  "),
    (r"(?m)^(\S+  \S+/\S+(?: \S+)*(?:  [\d,]+){4}  \d+(?: \(.*\))?)  [\d,]+$", r"\1  #"),  # rows/s
)


def loosened(text: str, more: tuple[tuple[str, str], ...] = ()) -> str:
    """The text without what differs from machine to machine: times, sizes, scores, run ids.

    Args:
        text: what commands printed.
        more: further (pattern, replacement) pairs.
    """
    for pattern, instead in (*_LOOSE, *more):
        text = re.sub(pattern, instead, text)
    return text


def is_progress(line: str) -> bool:
    """Whether a line is progress, which only slow machines print."""
    return _PROGRESS.fullmatch(line) is not None


@dataclass
class Walk:
    """A folder to walk in: commands run there, and see nothing of this machine's settings.

    Attributes:
        folder: the working folder of every command.
        loose: further (pattern, replacement) pairs for what may differ in this walk.
        environment: variables set for every command.
        fresh: whether every command is a process of its own from the first import on, not a fork
            of one that has torch already.
    """

    folder: Path
    loose: tuple[tuple[str, str], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    fresh: bool = False

    def replay(self, transcript: Path) -> tuple[str, str]:
        """(what the transcript says, what came out when its commands were run again)."""
        said = transcript.read_text(encoding="utf-8")
        commands = [line[2:] for line in said.splitlines() if line.startswith("$ ")]
        about = "".join(f"{line}\n" for line in said.splitlines() if line.startswith("# "))
        return said, "\n".join([about, *(self.run(command) for command in commands)])

    def run(self, command: str) -> str:
        """One command as a block of a transcript: output, `! ` before errors, the exit code."""
        program, *words = shlex.split(command)
        code, output, errors = self.ended([self.program(program), *words])
        told = (line for line in errors.splitlines() if not is_progress(line))
        marked = "".join(f"! {line}\n" for line in told)
        block = loosened(f"{output}{marked}".replace(str(self.folder), "HERE"), self.loose)
        lines = "".join(f"{line.rstrip()}\n" for line in block.splitlines())
        return f"$ {command}\n{lines}[exit {code}]\n"

    def ended(self, command: list[str]) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command that ran to its end."""
        if self.fresh or command[0] == sys.executable:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.variables(),
                capture_output=True,
                text=True,
                check=False,
                timeout=HANG,
            )
            return done.returncode, done.stdout, done.stderr
        process = prestarted().start(command, folder=self.folder, environment=self.variables())
        output, errors = process.communicate(timeout=HANG)
        return process.wait(), output, errors

    def program(self, word: str) -> str:
        """Path of the program that a word of a transcript means."""
        return {"mmfuse": str(_MMFUSE), "python": sys.executable}[word]

    def variables(self) -> dict[str, str]:
        """The environment of every command: nothing of this machine's settings."""
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(self.folder / "user")}
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, **quiet, "XDG_CACHE_HOME": str(self.folder / "user"), **self.environment}
