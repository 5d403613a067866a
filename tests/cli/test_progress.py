"""Bars in a terminal: late, within its width, gone at the end; plain lines without one."""

import itertools
import re
import sys
import time

import pytest
from terminal import terminal
from waiting import wait_until

from mmfuse_cli import console
from pipelines.training.loop import Epoch

LONG = "データセット/画像と音声のとても長い名前 👩\u200d🔬🎉 of Ünïcödé-Größe pixels/image and more"


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Bars are drawn at once: no test waits two seconds."""
    monkeypatch.setattr(console, "_DELAY", 0.0)


def epoch(number: int, of: int, score: float, *, stage: str = "fit", active: bool = True) -> Epoch:
    """An epoch of one replica."""
    return Epoch(stage, number, of, (0.1,), (0.1,), (score,), (1e-3,), (active,))


def test_a_short_step_leaves_nothing_on_a_terminal(monkeypatch):
    """Not a byte is written before a step has lasted two seconds: nothing can flicker."""
    assert console._DELAY == 2.0
    monkeypatch.setattr(console, "_DELAY", 3600.0)
    with terminal() as screen:
        assert list(console.track(range(5), "rows", 5)) == [0, 1, 2, 3, 4]
        with console.step("a step"), console.epochs("concat on digits") as on_epoch:
            on_epoch(epoch(1, 9, 0.5))
    assert screen.raw == ""


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_long_step_shows_counts_rate_and_time_left(at_once, width):
    """Within the width, whatever the label; at the end the line is empty and the cursor back."""
    with terminal(width) as screen:
        for done in console.track(range(100), LONG, 100):
            if done == 50:
                (line,) = screen.wait_for(" 50/100")
                screen.wait_for(" left")
                (line,) = screen.lines
        console.clear()
        screen.wait_for("")
    assert screen.lines == []
    assert screen.is_cursor_shown
    assert re.search(r" 50/100  ([\d.,]+/(s|min)  )?\d+:\d\d left$", line), line
    assert line.startswith("データ")
    assert ("━━━" in line) == (width >= 80)
    assert ("…" in line) == (width < 200)
    assert ("/s" in line or "/min" in line) == (width >= 80)
    assert LONG.replace("\u200d", "") in line or width < 200


def test_bars_inside_each_other_and_lines_above_them(at_once):
    """One below the other; a note while they are drawn stands above them, on a line of its own."""
    with terminal() as screen:
        for run in console.track(["a", "b"], "evaluate runs", 2):
            for number in console.track(range(4), f"score {run}", 4):
                if (run, number) == ("b", 1):
                    screen.wait_for("score b")
                    console.note("something to say")
                    screen.wait_for("something to say")
                    screen.wait_for("1/4")
                    lines = screen.lines
        console.show([], as_json=False, ends=["the end"])
        screen.wait_for("the end")
    assert lines[0] == "something to say"
    assert [line.split("  ")[0] for line in lines[1:]] == ["evaluate runs", "score b"]
    assert "1/2" in lines[1]
    assert screen.lines == ["something to say", "the end"]


def test_training_counts_the_epochs_of_a_stage(at_once):
    """Epochs, rate, validation score and an upper bound of the time; a stage's name if it has one.

    Between two stages, and after the last one, nothing is counted.
    """
    with terminal(100) as screen, console.epochs("ef_cl on digits") as on_epoch:
        screen.wait_for("ef_cl on digits")
        assert "epochs" not in screen.raw
        for number in range(1, 5):
            on_epoch(epoch(number, 100, 0.25, stage="align"))
        (align,) = screen.wait_for("at most")
        on_epoch(epoch(5, 100, 0.25, stage="align", active=False))
        wait_until(lambda: len(screen.lines) == 1 and "align" not in screen.lines[0])
        on_epoch(epoch(1, 20, 0.5))
        (fit,) = screen.wait_for("1/20 epochs")
    assert screen.lines == []
    assert re.fullmatch(
        r"ef_cl on digits: align  [━─]+  +4/100 epochs  [\d.,]+/(s|min)  val 0\.250  "
        r"at most [\d:]+( days)? left",
        align,
    )
    assert re.fullmatch(r"ef_cl on digits  [━─]+   1/20 epochs  val 0\.500", fit)


def test_ctrl_c_leaves_a_clean_line(at_once):
    """Neither a half-drawn bar nor the `^C` that the terminal writes itself stays on the screen."""
    with terminal() as screen:
        steps = console.track(itertools.count(), "rows", 100)
        next(steps)
        screen.wait_for("0/100")
        sys.stderr.rich_proxied_file.write("^C")  # as a terminal does
        wait_until(lambda: "^C" in screen.raw)
        console.error("stopped; run the same command again to resume")
        screen.wait_for("stopped")
        del steps
    assert screen.lines == ["stopped; run the same command again to resume"]
    assert screen.is_cursor_shown


def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch, at_once):
    """TERM=dumb is treated as a file: a line every ten seconds, no bar."""
    with terminal() as screen:
        monkeypatch.setenv("TERM", "dumb")
        assert list(console.track(range(3), "rows", 3)) == [0, 1, 2]
    assert screen.raw == ""


def test_lines_without_a_terminal(capsys, monkeypatch):
    """Every ten seconds one line says how far a step is; nothing else is written."""
    now = itertools.count(0, 6)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    assert list(console.track(range(5), "rows", 1000)) == [0, 1, 2, 3, 4]
    with console.epochs("concat on digits") as on_epoch, console.step("a step"):
        for number in (1, 2):
            on_epoch(epoch(number, 9, 0.5))
    with console.counted("runs", "{done} of {total} runs done") as move:
        move(3, 8)
    assert capsys.readouterr().err.splitlines() == [
        "rows: 2 of 1,000",
        "rows: 4 of 1,000",
        "concat on digits: fit 2/9, validation 0.500",
        "3 of 8 runs done",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (5, "0:05"), (754, "12:34"), (3723, "1:02:03"), (3 * 86400, "3 days")],
)
def test_durations_read_like_a_clock(seconds, text):
    """Minutes and seconds, hours where there are some, days where they are many."""
    assert console._clock(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(1616.2, "1,616/s"), (12.34, "12.3/s"), (0.5, "0.5/s"), (0.05, "3.0/min")]
)
def test_slow_rates_are_by_the_minute(rate, text):
    """A rate never reads as nothing."""
    assert console._rate(rate) == text
