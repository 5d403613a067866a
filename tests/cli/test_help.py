"""What --help ends with: examples that can be typed."""

import shlex

import pytest
import typer.main
from typer.testing import CliRunner

from mmfuse_cli.examples import EXAMPLES
from mmfuse_cli.main import app


def commands(group=None, name=""):
    """Every command and group by its words, the whole first."""
    group = group or typer.main.get_command(app)
    found = {name: group}
    for word, inner in getattr(group, "commands", {}).items():
        found |= commands(inner, f"{name} {word}".strip())
    return found


def test_every_command_has_examples():
    """No command is left out, and none is shown that is not there."""
    assert set(EXAMPLES) == set(commands())


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_the_last_lines_of_the_help(name):
    """One a line, as it would be typed."""
    done = CliRunner().invoke(app, [*name.split(), "--help"])
    lines = [f"mmfuse {example}" for example in EXAMPLES[name]]
    assert [line.strip() for line in done.output.rstrip().splitlines()][-len(lines) :] == lines


@pytest.mark.parametrize("example", sorted({one for few in EXAMPLES.values() for one in few}))
def test_an_example_can_be_typed(example):
    """Its words, options and values are ones that the command takes; it is of that command."""
    words, known = shlex.split(example), commands()
    length = 2 if " ".join(words[:2]) in known else 1
    known[" ".join(words[:length])].make_context("mmfuse", words[length:])
    shown = next(name for name in reversed(EXAMPLES) if name and example.startswith(name))
    assert " ".join(words[:length]).startswith(shown)
