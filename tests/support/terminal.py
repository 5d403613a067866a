"""A pseudo-terminal in place of stderr, and the screen that it would show."""

import os
import pty
import re
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from unicodedata import east_asian_width

import pytest
from waiting import HANG, wait_until

_PIECE = re.compile(r"\x1b\[(\?25)?(\d*)([A-Za-z])|[\r\n]|[^\x1b\r\n]")


class Screen:
    """What was written to a terminal, and what it shows of it.

    Attributes:
        width: columns.
        raw: everything written so far.
        is_cursor_shown: whether the cursor is visible.
    """

    def __init__(self, width: int) -> None:
        self.width, self.raw, self.is_cursor_shown = width, "", True

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without empty ones at its end; long ones are wrapped."""
        rows: list[list[str]] = [[]]
        row = column = 0
        for found in _PIECE.finditer(self.raw):
            cursor, number, order = found.groups()
            if cursor:
                self.is_cursor_shown = order == "h"
            elif order == "A":
                row = max(0, row - int(number or 1))
            elif order == "K":
                del rows[row][0 if number == "2" else column :]
            elif found[0] == "\r":
                column = 0
            elif found[0] == "\n":
                row, column = row + 1, 0
            elif not order:
                cells = 2 if east_asian_width(found[0]) in "WF" else 1
                if column + cells > self.width:
                    row, column = row + 1, 0
                    rows += [[] for _ in range(row + 1 - len(rows))]
                line = rows[row]
                line += [" "] * (column - len(line))
                line[column : column + cells] = [found[0], *[""] * (cells - 1)]
                column += cells
            rows += [[] for _ in range(row + 1 - len(rows))]
        shown = ["".join(line).rstrip() for line in rows]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def wait_for(self, words: str) -> list[str]:
        """The lines, once one of them has these words; without words, once there are none."""
        found: list[list[str]] = []

        def is_there() -> bool:
            found.append(self.lines)
            return any(words in line for line in found[-1]) if words else not found[-1]

        wait_until(is_there)
        return found[-1]


@contextmanager
def terminal(width: int = 80) -> Iterator[Screen]:
    """While it lasts, stderr is a terminal of this width."""
    keyboard, screen_end = pty.openpty()
    tty.setraw(screen_end, termios.TCSANOW)  # what is written arrives as it is
    screen = Screen(width)
    ended = threading.Event()

    def read() -> None:
        data = b""
        while not data.endswith(b"\0"):
            data += os.read(keyboard, 1 << 16)
            screen.raw = data.rstrip(b"\0").decode(errors="ignore")
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    with open(screen_end, "w", encoding="utf-8", buffering=1) as stream:  # noqa: PTH123 - a descriptor
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            patch.setenv("LINES", "24")
            patch.setenv("TERM", "xterm-256color")
            patch.setattr(sys, "stderr", stream)
            yield screen
        stream.write("\0")
        stream.flush()
        assert ended.wait(HANG)
    reader.join()
    os.close(keyboard)
