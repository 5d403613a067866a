"""The README is true: its commands parse and run, its tables and its map are what there is.

`pytest tests/house/test_readme.py --rewrite-walks` writes the tables and the map anew.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest
import tiny
import typer.main
from project import ROOT
from walking import Walk

from mmfuse_cli.main import app
from pipelines import catalog

README = ROOT / "README.md"
MAP = (  # the way of a sample, room by room
    "mmfuse_cli",
    "mmfuse_cli/main.py",
    "mmfuse_cli/arguments.py",
    "mmfuse_cli/console.py",
    "mmfuse",
    "pipelines",
    "pipelines/catalog.py",
    "pipelines/data/sources.py",
    "pipelines/data/tables.py",
    "pipelines/data/dataset.py",
    "pipelines/media/cells.py",
    "pipelines/encoding/encoder.py",
    "pipelines/extract/plan.py",
    "pipelines/extract/extract.py",
    "pipelines/features/load.py",
    "pipelines/features/table.py",
    "pipelines/features/missing.py",
    "pipelines/fusion/head.py",
    "pipelines/fusion/stems.py",
    "pipelines/fusion/losses.py",
    "pipelines/training/plan.py",
    "pipelines/training/request.py",
    "pipelines/training/loop.py",
    "pipelines/training/replicas.py",
    "pipelines/metrics/metrics.py",
    "pipelines/evaluation/evaluate.py",
    "pipelines/metrics/baselines.py",
    "pipelines/audit/audit.py",
    "pipelines/contracts/head.py",
    "pipelines/reports/runs.py",
    "pipelines/reports/table.py",
    "pipelines/datasets",
    "pipelines/encoders",
    "pipelines/methods",
    "cache",
    "cache/layout.py",
    "cache/fingerprints.py",
    "cache/feature_store.py",
    "cache/format/shards.py",
    "cache/writing/writer.py",
    "cache/format/reader.py",
    "cache/maintenance/verify.py",
    "cache/runs.py",
)


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[str]:
    """Every mmfuse command of the README's shell blocks and of its first lines."""
    shell = "\n".join(blocks("sh")) + README.read_text(encoding="utf-8").split("## Start")[0]
    return re.findall(r"(?:^ *\$? ?|&& (?:\.venv/bin/)?)(mmfuse .*)$", shell, re.MULTILINE)


def built(group=None, prefix="mmfuse") -> dict[str, object]:
    """Every command by its full name."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= built(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def first_line(path: Path) -> str:
    """First line of a file's docstring, or of a package's."""
    file = path / "__init__.py" if path.is_dir() else path
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]


def expected(section: str) -> str:
    """What a generated section of the README has to say."""
    if section == "map":
        width = max(map(len, MAP)) + 2
        lines = [f"    {name.ljust(width)}{first_line(ROOT / name)}" for name in MAP]
        return "\n".join(lines)
    rows = [f"| `{n}` | {e.summary} |" for n, e in sorted(catalog.entries(section).items())]
    return "\n".join([f"| {section.removesuffix('s')} | what it is |", "|---|---|", *rows])


@pytest.mark.parametrize("section", ["datasets", "encoders", "methods", "map"])
def test_a_table_of_the_readme_is_what_there_is(section, request):
    """Tables of plug-ins and the map of rooms are their files' own first lines."""
    text = README.read_text(encoding="utf-8")
    start, end = f"<!-- {section} -->\n", f"\n<!-- /{section} -->"
    before, rest = text.split(start)
    said, after = rest.split(end)
    if request.config.getoption("--rewrite-walks"):
        README.write_text(f"{before}{start}{expected(section)}{end}{after}", encoding="utf-8")
    else:
        assert said == expected(section)


def test_the_table_of_commands_is_the_help():
    """The README names exactly the commands that `--help` knows."""
    said = re.findall(
        r"^\| `(mmfuse [a-z ]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(said) == sorted(built())


def test_the_readme_has_commands():
    """The search for commands finds the ones that matter."""
    found = " ".join(commands())
    assert all(f"mmfuse {name}" in found for name in ("demo", "extract", "train", "eval", "check"))


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_parses(command):
    """Its words, options and values are ones that the command line takes."""
    words = shlex.split(command, comments=True)[1:]
    known = built()
    length = 2 if f"mmfuse {' '.join(words[:2])}" in known else 1
    name = f"mmfuse {' '.join(words[:length])}"
    known[name].make_context(name, words[length:])


def test_the_readme_names_no_index_host_and_both_of_its_commands():
    """The two commands of a fresh machine are there word for word."""
    text = README.read_text(encoding="utf-8")
    install = 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]"'
    assert f"{install} && .venv/bin/mmfuse demo" in text
    assert f"{install} && .venv/bin/pytest" in text
    assert "index-url" not in text


def test_the_readmes_own_method_keeps_the_contract(tmp_path):
    """The newcomer's file of about 30 lines keeps every promise, those that need training too."""
    from pipelines.contracts import head

    (source,) = [block for block in blocks("python") if "def build" in block]
    assert len(source.splitlines()) <= 32
    (tmp_path / "my_head.py").write_text(source, encoding="utf-8")
    found = head.check(str(tmp_path / "my_head.py"))
    assert [promise.text for promise in found if not promise.passed] == []


def test_the_tutorial_on_own_data_runs(tmp_path):
    """Its commands, on a table of posters and plots made here, all end well."""
    tiny.movies(tmp_path)
    (block,) = [block for block in blocks("sh") if "movies.csv" in block]
    walk = Walk(tmp_path)
    for command in block.splitlines():
        quick = " --epochs 2 --seeds 2" if command.startswith("mmfuse train") else ""
        said = walk.run(f"{command}{quick}")
        assert said.endswith("[exit 0]\n"), said
