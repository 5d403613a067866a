"""README and docs are true: commands parse and run, generated sections are what there is.

`pytest tests/house/test_docs.py --rewrite-walks` writes the generated sections anew, and the shown
output of commands where its words changed (those commands then run at full length: minutes).
"""

import ast
import functools
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import measured_page
import messy
import pages
import pytest
import tiny
import typer.main
from project import ROOT
from walking import loosened

from mmfuse_cli.main import app
from pipelines import catalog
from pipelines.metrics.metrics import METRICS

README, DOCS = ROOT / "README.md", ROOT / "docs"
RUN = (  # pages whose commands are run, in this order, in one folder
    "docs/own-data", "README", "docs/missing-modalities", "docs/tutorial", "docs/own-method",
    "docs/own-encoder",
)  # fmt: skip
QUICK = {"train": "--epochs 1 --seeds 2", "extract": "--workers 0"}  # appended, to save time
EXACT = ("check", "extract")  # commands whose output is the same when the walk is quick
LOOSE = (
    (r"over \d+ seeds?", "over # seeds"),
    (r"\b\d+(\.\d+)?e[-+]?\d+\b", "#e#"),
    (r"\b(disc|bar|gut|schlecht)\b", "CLASS"),  # what a head of one epoch predicts is chance
    (r"reference  -  -  -", "±#.###  ±#.### … ±#.###  #.###  #.###"),  # which run is the best
    (r"prediction of \w+: \w+", "prediction of METHOD: CLASS"),
    (r"(?m)^\w+  #\.###  #\.###$", "CLASS  #.###  #.###"),
)


def built(group=None, prefix="mmfuse") -> dict[str, object]:
    """Every command by its full name, in the order of `--help`."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= built(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def cell(text: str) -> str:
    """A text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def first_paragraph(command) -> str:
    """What a command's help says first."""
    return cell((command.help or "").split("\n\n")[0])


def commands_table() -> str:
    """One line a command, as its help has it."""
    rows = [f"| `{name}` | {first_paragraph(command)} |" for name, command in built().items()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def groups_table() -> str:
    """One line a command or group of commands, for the README."""
    rows = []
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", {})
        called = f"{name} {', '.join(inner)}" if inner else name
        rows.append(f"| `mmfuse {called}` | {first_paragraph(command)} |")
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def option_row(option) -> str:
    """An option or an argument, its help and its default."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.param_type_name == "argument":
        names = f"`{option.metavar or option.name.upper()}`"
    default = option.default
    shown = f"`{default}`" if isinstance(default, (str, int, float, Path)) and default else ""
    return f"| {names} | {cell(option.help or '')} | {shown} |"


def options_tables() -> str:
    """A heading and a table for the options of all commands, and for those of each."""
    parts = []
    for name, command in {"mmfuse": typer.main.get_command(app), **built()}.items():
        rows = [option_row(p) for p in command.params if "completion" not in p.name]
        intro = first_paragraph(command) if name != "mmfuse" else "Before or after any command:"
        parts += [f"### {name}", "", intro]
        if rows:
            parts += ["", "| option | what it does | default |", "|---|---|---|", *rows]
        parts += [""]
    return "\n".join(parts[:-1])


def plugins(folder: str) -> Callable[[], str]:
    """A function that makes the table of a kind of plug-ins."""

    def table() -> str:
        entries = sorted(catalog.entries(folder).items())
        rows = [f"| `{name}` | {cell(entry.summary)} |" for name, entry in entries]
        return "\n".join([f"| {folder.removesuffix('s')} | what it is |", "|---|---|", *rows])

    return table


def first_line(file: Path) -> str:
    """First line of a module's docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return cell((ast.get_docstring(tree) or "").split("\n")[0])


def house_map() -> str:
    """Every room with its files, each by the first line of its docstring."""
    parts = []
    for top in ("mmfuse_cli", "mmfuse", "pipelines", "cache"):
        for room in sorted((ROOT / top).rglob("__init__.py"), key=lambda file: file.parent.parts):
            name = room.parent.relative_to(ROOT).as_posix()
            files = [file for file in sorted(room.parent.glob("*.py")) if file != room]
            parts += [f"### {name}/", "", first_line(room), ""]
            if files:
                rows = [f"| `{file.name}` | {first_line(file)} |" for file in files]
                parts += ["| file | what it is |", "|---|---|", *rows, ""]
    return "\n".join(parts[:-1])


def walls() -> str:
    """The contracts that lint-imports checks."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = []
    for wall in settings["tool"]["importlinter"]["contracts"]:
        layers = " → ".join(layer.replace("|", "·") for layer in wall.get("layers", ()))
        where = ", ".join(wall.get("containers", wall.get("ancestors", wall.get("modules", ()))))
        banned = " may not import ".join(
            ", ".join(wall[key]) for key in ("source_modules", "forbidden_modules") if key in wall
        )
        rows.append(f"| {wall['name']} | {layers or banned or where} |")
    return "\n".join(["| wall | from the top down, or what is forbidden |", "|---|---|", *rows])


def metrics_table() -> str:
    """Metrics of each task, in the order of all tables."""
    more = {"classes": "; `recall` of each class"}
    rows = [
        f"| {kind} | {', '.join(f'`{name}`' for name in names)}{more.get(kind, '')} |"
        for kind, names in METRICS.items()
    ]
    return "\n".join(["| task | metrics, the first one is shown |", "|---|---|", *rows])


def source(name: str) -> Callable[[], str]:
    """A function that shows an example file as a block of code."""
    return lambda: f"```python\n{(DOCS / 'examples' / name).read_text(encoding='utf-8')}```"


GENERATED = {
    "commands": commands_table,
    "groups": groups_table,
    "options": options_tables,
    "datasets": plugins("datasets"),
    "metrics": metrics_table,
    "encoders": plugins("encoders"),
    "methods": plugins("methods"),
    "map": house_map,
    "walls": walls,
    "my_head": source("my_head.py"),
    "my_encoder": source("my_encoder.py"),
}
SECTIONS = [(page, name) for page in pages.PAGES for name in pages.sections(page)]
SHELL = [
    (page, command)
    for page in pages.PAGES
    for block in pages.shell(page)
    for command in block.commands
]


@pytest.mark.parametrize(
    ("page", "name"), SECTIONS, ids=[f"{pages.name_of(page)}:{name}" for page, name in SECTIONS]
)
def test_a_generated_section_is_what_there_is(page, name, request):
    """Tables of commands and plug-ins, the map and the examples come from the sources."""
    if request.config.getoption("--rewrite-walks"):
        pages.rewrite(page, name, GENERATED[name]())
    else:
        assert pages.section(page, name) == GENERATED[name]()


def test_every_generated_section_stands_somewhere():
    """No generator is left without a page."""
    assert {name for _, name in SECTIONS} == set(GENERATED)


@pytest.mark.parametrize(
    ("page", "command"), SHELL, ids=[f"{pages.name_of(page)}: {words}" for page, words in SHELL]
)
def test_every_command_parses(page, command):
    """Its words, options and values are ones that the command line takes."""
    words = shlex.split(command, comments=True)[1:]
    if words[0] == "--home":  # the app's own option
        del words[:2]
    length = 2 if f"mmfuse {' '.join(words[:2])}" in built() else 1
    name = f"mmfuse {' '.join(words[:length])}"
    built()[name].make_context(name, words[length:])


class Walked:
    """Output of the commands that pages run, in the order of RUN, in one folder, each once."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        self.output: dict[str, tuple[int, str]] = {}
        self.waiting = list(RUN)
        self.has_data = True
        tiny.movies(folder)
        messy.make(folder)
        (folder / "docs").symlink_to(DOCS)
        (folder / "data").mkdir()
        packs = Path(os.environ.get("MMFUSE_TEST_PACKS") or ROOT.parent / "shared" / "data")
        if (packs / "avdigits").is_dir():
            (folder / "data" / "avdigits").symlink_to(packs / "avdigits")

    def to(self, name: str) -> dict[str, tuple[int, str]]:
        """Exit codes and outputs by command, once this page and those before it have run."""
        with pytest.MonkeyPatch.context() as patch:
            for variable in ("MMFUSE_HOME", "MMFUSE_DATA", "COLUMNS"):
                patch.delenv(variable, raising=False)
            while name in self.waiting:
                for block in pages.shell(ROOT / f"{self.waiting.pop(0)}.md"):
                    for command in block.commands if block.run else ():
                        self.run(command)
        return self.output

    def run(self, command: str) -> None:
        """Run a command that did not run before, unless its data is not on this machine."""
        if "--dataset" in command:  # those that follow without it mean the same data
            self.has_data = "avdigits" not in command or (self.folder / "data/avdigits").exists()
        if command not in self.output and self.has_data:
            more = QUICK.get(command.split()[1], "") if self.quick else ""
            self.output[command] = pages.type_in(self.folder, f"{command} {more}")


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A function from "quick" or "full" to that walk through the pages, made when first needed."""
    return functools.cache(
        lambda length: Walked(tmp_path_factory.mktemp("pages"), quick=length == "quick")
    )


@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_run_and_print_what_it_shows(name, walked, request):
    """Every command ends well, and its output differs from the page's in figures alone."""
    page, ran = ROOT / f"{name}.md", walked("quick").to(name)
    lacking, stale = 0, False
    shown = {}  # number of a block → its commands, where the page shows what they print
    for number, block in enumerate(pages.shell(page)):
        commands = block.commands if block.run else ()
        if any(command not in ran for command in commands):
            lacking += 1
            continue
        assert [ran[command] for command in commands if ran[command][0]] == []
        if not commands or block.output is None:
            continue
        shown[number] = commands
        now = "".join(ran[command][1] for command in commands)
        stale = stale or loosened(now, LOOSE) != loosened(block.output, LOOSE)
        if not request.config.getoption("--rewrite-walks"):
            assert loosened(now, LOOSE) == loosened(block.output, LOOSE)
    if stale:  # the whole page anew, so that names of runs agree from block to block
        exact = all(one.split()[1] in EXACT for commands in shown.values() for one in commands)
        full = ran if exact else walked("full").to(name)
        for number, commands in shown.items():
            pages.show(page, number, "".join(full[command][1] for command in commands))
    if lacking:
        pytest.skip(f"{lacking} commands need data that is not here (set MMFUSE_TEST_PACKS)")


def test_the_pages_have_the_commands_that_matter():
    """The search for commands finds them, and pages that run show output."""
    found = {words.split()[1] for _, words in SHELL}
    assert {"demo", "extract", "train", "eval", "check", "compare", "report"} <= found
    assert all(
        any(block.output for block in pages.shell(ROOT / f"{name}.md") if block.run) for name in RUN
    )


def test_the_readme_is_one_page():
    """At most 150 lines; everything else is in docs/."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_has_both_commands_of_a_fresh_machine():
    """They are there word for word."""
    text = README.read_text(encoding="utf-8")
    install = 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]"'
    assert f"{install} && .venv/bin/mmfuse demo" in text
    assert f"{install} && .venv/bin/pytest" in text


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_links_and_paths_lead_somewhere(page):
    """Relative links and named files exist; no package index, no path of one machine."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    files = re.findall(r"\b(?:tests|docs|\.ci)/[\w/.-]*\w", text)
    wanted = [page.parent / link.split("#")[0] for link in links if not link.startswith("#")]
    wanted += [ROOT / file for file in files if "NAME" not in file]
    assert [str(path) for path in wanted if not path.exists()] == []
    assert re.findall(r"index-url|(?<![\w.$}])/(?:tmp|home|root|usr|mnt|opt)/", text) == []


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_links_to_headings_lead_somewhere(page):
    """What stands after # in a link is a heading of the page that it leads to."""
    for link in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, anchor = link.split("#")
        if "://" not in link:
            text = (page.parent / file if file else page).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            known = [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]
            assert anchor in known


def test_every_page_is_linked_from_the_readme():
    """A reader finds each page of docs/ from the first one."""
    links = re.findall(r"\]\((docs/[\w-]+\.md)\)", README.read_text(encoding="utf-8"))
    assert sorted(set(links)) == [pages.name_of(page) for page in pages.PAGES[1:]]


def test_measured_figures_name_scripts_and_methods_that_exist():
    """Every script of the tables is there, and the columns of the methods' table are methods."""
    figures = (DOCS / "figures.md").read_text(encoding="utf-8")
    scripts = re.findall(r"^\| `(\w+\.py)`", figures, re.MULTILINE)
    assert scripts
    assert all((ROOT / "tests" / "benchmarks" / script).exists() for script in scripts)
    table = (DOCS / "methods.md").read_text(encoding="utf-8")
    (head,) = re.findall(r"^\| data \| without \|(.+)\| best single", table, re.MULTILINE)
    assert {name.strip() for name in head.split("|")} <= set(catalog.entries("methods"))


def test_the_page_of_measured_figures_is_that_of_its_record():
    """docs/measured.md comes from docs/measured.json; figures that miss their goal have reasons."""
    record = json.loads(measured_page.RECORD.read_text(encoding="utf-8"))
    assert measured_page.PAGE.read_text(encoding="utf-8") == measured_page.page_of(record)
    missed = [n for n, part in record["parts"].items() if "figure" in part and not part["met"]]
    assert set(missed) <= set(measured_page.WHY)
