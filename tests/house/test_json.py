"""--json: every command's tables and fields are those of docs/json.md, and nothing is formatted."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
import tiny
from project import ROOT
from typer.testing import CliRunner

import mmfuse
from mmfuse_cli import arguments
from mmfuse_cli.main import app

PAGE = ROOT / "docs" / "json.md"
DATA = "movies.csv --target genre --name films --encoder pixels,hashing"
WALK = (  # typed in this order in one folder; one poster cannot be read
    (f"extract {DATA} --plan", 0), (f"extract {DATA} --explain", 0),
    (f"extract {DATA} --workers 0", 1),
    ("train films --method concat,late --epochs 2 --seeds 2 --metric accuracy,ece,recall", 0),
    ("eval --metric accuracy,recall", 0), ("compare", 0), ("report --metric recall", 0),
    ("runs --costs", 0), ("predict --input movies.csv --output answers.parquet", 1),
    ("predict --sample plot=storm --sample poster=posters/2.png", 0),
    ("sweep films --method concat --epochs 1,2 --seeds 1", 0), ("runs", 0), ("list", 0),
    ("doctor", 0), ("check mean --quick", 0), ("data audit films", 0),
    ("cache verify --recompute 2 --encoder pixels,hashing", 0), ("cache pack films.pack", 0),
    ("cache gc", 0),
)  # fmt: skip
TYPES = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "whole number": lambda value: type(value) is int,
    "yes or no": lambda value: type(value) is bool,
    "list": lambda value: isinstance(value, list),
}
SPREAD = {"mean": "number", "std": "number", "values": "list"}


def typed(words: str, code: int = 0) -> list[dict]:
    """Tables that a command prints as JSON, alone on stdout."""
    done = CliRunner().invoke(app, arguments.to_the_front([*words.split(), "--json"]))
    assert done.exit_code == code, done.output
    document = json.loads(done.stdout)
    assert document.keys() == {"tables", "notes"}
    assert all(table.keys() == {"name", "title", "rows", "notes"} for table in document["tables"])
    return document["tables"]


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> list[tuple[str, dict]]:
    """Command and table, of every command in one folder."""
    folder = tmp_path_factory.mktemp("json")
    tiny.movies(folder)
    (folder / "posters" / "1.png").write_text("not a picture\n")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("MMFUSE_HOME", "MMFUSE_DATA"):
            patch.delenv(variable, raising=False)
        patch.chdir(folder)
        for words, code in WALK:
            found += [(words.split()[0], table) for table in typed(words, code)]
        mmfuse.delete_run(mmfuse.Home(), mmfuse.list_runs()[0])
        shard = next(Path("artifacts/features/films.zarr").rglob("values/c/*/0"))
        shard.write_bytes(shard.read_bytes()[:-9] + b"not right")
        for words, code in (("cache gc", 0), ("cache verify", 1)):
            found += [("cache", table) for table in typed(words, code)]
        answers = pl.read_parquet("answers.parquet")
    assert answers.columns[:5] == documented()["predictions"][1]
    (shown,) = [table["rows"] for _, table in found if table["name"] == "predictions"]
    assert answers.select(documented()["predictions"][1]).to_dicts() == shown
    return found


def cells(heading: str) -> list[list[str]]:
    """Cells of the table of the page that begins with this heading."""
    lines = PAGE.read_text(encoding="utf-8").split(f"| {heading} |")[1].split("\n\n")[0]
    return [row.strip("|").split("|") for row in lines.splitlines()[2:]]


def documented() -> dict[str, tuple[set[str], list[str]]]:
    """By table: the commands that print it, and its fields, each once."""
    found = {}
    for name, commands, fields in cells("table"):
        words = re.findall(r"`([^`]+)`", fields)
        expanded = [f"{w[:-1]}{end}" for w in words if w.endswith("_*") for end in SPREAD]
        plain = [word for word in words if not word.endswith("_*")]
        assert len({*plain, *expanded}) == len(plain) + len(expanded)
        found[name.strip(" `")] = (set(commands.strip().split(", ")), plain + expanded)
    return found


def types() -> dict[str, set[str]]:
    """By field: the types that its values may have, null aside."""
    found = {}
    for names, kinds, _ in cells("field"):
        fields = re.findall(r"`([^`]+)`", names)
        each = [set(re.split(", | or (?!no)", kind.strip())) for kind in kinds.split(";")]
        for place, field in enumerate(fields):
            found[field] = each[place if len(each) == len(fields) else 0]
    return found


def test_every_table_has_the_fields_that_the_page_says(walked) -> None:
    """No field and no table is left out or made up; commands print those that are theirs."""
    said = documented()
    seen: dict[str, set[str]] = {}
    for command, table in walked:
        seen.setdefault(table["name"], set()).add(command)
        for row in table["rows"]:
            assert sorted(row) == sorted(said[table["name"]][1]), table["name"]
    assert seen == {name: commands - {"demo"} for name, (commands, _) in said.items()}
    empty = {name for name in seen if not any(t["rows"] for _, t in walked if t["name"] == name)}
    assert empty == set()


def test_every_field_has_the_type_that_the_page_says(walked) -> None:
    """Numbers are numbers; no text holds a number with its deviation, interval or unit."""
    said = types()
    bare = {field for _, fields in documented().values() for field in fields}
    bare -= {field for field in bare if field.rpartition("_")[2] in SPREAD}
    assert bare <= said.keys()
    for _, table in walked:
        for row in table["rows"]:
            for field, value in row.items():
                head, _, end = field.rpartition("_")
                known = SPREAD.get(end) if head else None
                allowed = {known} if known else said[field] - {""} or {"text"}
                assert value is None or any(TYPES[kind](value) for kind in allowed), (field, value)
                for word in [value] if isinstance(value, str) else ():
                    formatted = re.search(r"±|\d … |^[\d.,]+ ?(kB|MB|GB|ms|s|%)?$", word)
                    assert not formatted or field in ("id", "prediction", "class", "version"), word


def test_the_page_names_no_field_that_is_not_there() -> None:
    """Every field of the glossary is one of some table."""
    fields = {field for _, known in documented().values() for field in known}
    heads = {field.rpartition("_")[0] for field in fields if field.rpartition("_")[2] in SPREAD}
    named = {field for field in types() if "…" not in field}
    assert named <= fields | heads
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 120


def test_errors_leave_stdout_empty(tmp_path, monkeypatch) -> None:
    """A program reads the exit status; the sentence is on stderr."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["--json", "eval", "--metric", "none"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
