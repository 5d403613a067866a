"""Markdown pages of the project: their blocks, their generated sections, their commands run."""

import contextlib
import io
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from project import ROOT
from walking import is_progress

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NOT_RUN = "<!-- not run -->\n"  # stands above a block of commands that a test only parses
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARKED = r"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->"


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands.

    Attributes:
        commands: its lines that call mmfuse.
        output: text of the ```text block that follows at once, or None.
        span: where that text stands in the page.
        run: whether the commands are meant to be run as they stand.
    """

    commands: tuple[str, ...]
    output: str | None
    span: tuple[int, int]
    run: bool


def name_of(page: Path) -> str:
    """The page's path below the project, such as docs/tutorial.md."""
    return page.relative_to(ROOT).as_posix()


def code(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [block[2] for block in found if block[1] == language]


def shell(page: Path) -> list[Block]:
    """Shell blocks of a page, each with the output that the page shows."""
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    blocks = []
    for number, block in enumerate(found):
        if block[1] != "sh":
            continue
        after = found[number + 1] if number + 1 < len(found) else None
        shown = (
            after
            if after and after[1] == "text" and not text[block.end() : after.start()].strip()
            else None
        )
        commands = re.findall(r"(?:^|&& (?:\.venv/bin/)?)(mmfuse .*)$", block[2], re.MULTILINE)
        blocks.append(
            Block(
                commands=tuple(commands),
                output=shown[2] if shown else None,
                span=shown.span(2) if shown else (0, 0),
                run=not text[: block.start()].endswith(NOT_RUN) and ".venv/bin" not in block[2],
            )
        )
    return blocks


def sections(page: Path) -> list[str]:
    """Names of the generated sections of a page."""
    return re.findall(r"<!-- /(\w+) -->", page.read_text(encoding="utf-8"))


def section(page: Path, name: str) -> str:
    """Text of a generated section as it stands in the page."""
    found = re.search(_MARKED.format(name=name), page.read_text(encoding="utf-8"), re.DOTALL)
    return found[1] if found else ""


def rewrite(page: Path, name: str, text: str) -> None:
    """Put a generated section's text into its page."""
    whole = page.read_text(encoding="utf-8")
    new = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
    new_page = re.sub(_MARKED.format(name=name), lambda _: new, whole, flags=re.DOTALL)
    page.write_text(new_page, encoding="utf-8")


def show(page: Path, number: int, output: str) -> None:
    """Put the output of a page's shell block, by its number among them, below it."""
    text = page.read_text(encoding="utf-8")
    start, end = shell(page)[number].span
    page.write_text(f"{text[:start]}{output}{text[end:]}", encoding="utf-8")


def type_in(folder: Path, command: str) -> tuple[int, str]:
    """Exit code of a command and what a terminal would show of it, without progress.

    It runs in this process, which has torch imported once for all commands.

    Args:
        folder: where it is typed.
        command: starts with mmfuse.
    """
    from threadpoolctl import threadpool_limits

    from mmfuse_cli import arguments
    from mmfuse_cli.main import app

    said, code = io.StringIO(), 0
    before = Path.cwd()
    os.chdir(folder)
    try:
        # One thread: numpy may have been imported before OMP_NUM_THREADS was set.
        with (
            threadpool_limits(1),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            app(args=arguments.to_the_front(shlex.split(command)[1:]), prog_name="mmfuse")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.chdir(before)
    lines = said.getvalue().replace(f"{folder}/", "").splitlines()
    return code, "".join(f"{line.rstrip()}\n" for line in lines if not is_progress(line))
