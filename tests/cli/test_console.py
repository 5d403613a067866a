"""What is drawn: plain lines off a terminal, nothing broken on a narrow one, JSON for machines."""

import json
import re

import pytest
from typer.testing import CliRunner

from mmfuse_cli import console
from mmfuse_cli.main import app
from pipelines.reports.table import Column, Spread, Table

ROWS = (("concat", Spread((0.5, 0.7))), ("a longer name", None))
TABLE = Table("runs", ("method", Column.spread("test")), ROWS, ("note",), "runs")


def test_a_table_is_aligned_plain_lines(capsys, monkeypatch):
    """Words to the left, numbers to the right, no colours and no frames off a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)
    console.show([TABLE], as_json=False, ends=["next: mmfuse eval"])
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "runs",
        "method                  test",
        "concat         0.600 ± 0.141",
        "a longer name              -",
        "note",
    ]
    assert said.err == "next: mmfuse eval\n"


def test_a_table_too_wide_becomes_a_block_a_row(capsys, monkeypatch):
    """A narrow terminal gets whole lines in another shape, never wrapped ones."""
    monkeypatch.setenv("COLUMNS", "20")
    console.show([TABLE], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "runs",
        "concat",
        "  test  0.600 ± 0.141",
        "a longer name",
        "  test  -",
        "note",
    ]


def test_json_is_one_document_on_stdout(capsys):
    """Machines read one JSON document, with what to type next inside it."""
    console.show([TABLE], as_json=True, ends=["next: mmfuse eval"])
    said = capsys.readouterr()
    document = json.loads(said.out)
    (table,) = document["tables"]
    assert table["name"] == "runs"
    assert table["rows"][0]["test_values"] == [0.5, 0.7]
    assert table["rows"][1] == {
        "method": "a longer name", "test_mean": None, "test_std": None, "test_values": None,
    }  # fmt: skip
    assert document["notes"] == ["next: mmfuse eval"]
    assert said.err == ""


def test_tracking_passes_every_item_on_and_is_silent_off_a_terminal(capsys):
    """Short work leaves no trace in a log."""
    assert list(console.track(range(5), "rows", 5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


HOSTILE = ["\x1b]52;c;AAAA\x07", "\x9b31m", "a\rb", "up\u202edown", "half\ud83d", "\u2028", "\x7f"]


def test_columns_stay_aligned_beside_letters_of_two_columns(capsys, monkeypatch):
    """A terminal draws 描述 four columns wide, and an accent of its own in none."""
    monkeypatch.setenv("COLUMNS", "200")
    rows = (("描述", "x", 1), ("e\u0301t\u00e9", "y", 22), ("plain", "z", 333))
    console.show([Table("", ("name", "kind", "rows"), rows)], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "name   kind  rows",
        "描述   x        1",
        "e\u0301t\u00e9    y       22",
        "plain  z      333",
    ]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("word", HOSTILE)
def test_no_word_of_the_data_reaches_a_terminal_as_a_command(capsys, word, as_json):
    """Cells, columns, titles, notes and closing lines show control characters written out."""
    console.show([Table(word, (word,), ((word,),), (word,))], as_json=as_json, ends=[word])
    console.note(word)
    console.error(f"first\nsecond {word}")
    said = capsys.readouterr()
    assert {c for c in said.out + said.err if not c.isprintable()} <= {"\n"}
    assert said.err.splitlines()[-2] == "first"
    if as_json:
        (table,) = json.loads(said.out)["tables"]
        (row,) = table["rows"]
        assert list(row.values()) == [table["title"]] == table["notes"] == [word]
        assert all(re.fullmatch("[a-z0-9_]+", field) for field in row)


def test_columns_stay_aligned_beside_a_cell_with_a_line_end(capsys, monkeypatch):
    """A label of two lines is one line of the table, and the next column starts where it should."""
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = (("one\ntwo", "x"), ("three", "👩\u200d🔬"))
    console.show([Table("", ("label", "kind"), rows)], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "label     kind",
        "one\\ntwo  x",
        "three     👩\u200d🔬",
    ]


@pytest.mark.parametrize(
    "typed",
    [
        ["\x1b[2Jnone"], ["train", "--\x1b[2J"], ["list", "\x1b[2J"],
        ["extract", "--dataset", "\x1b[2J.csv", "--encoder", "pixels"],
    ],
)  # fmt: skip
def test_errors_in_words_typed_show_no_control_characters(typed):
    """Names that the shell or a script hands on are shown written out, with exit code 2."""
    done = CliRunner().invoke(app, typed)
    assert done.exit_code == 2
    assert "\x1b" not in done.output
    assert "\\x1b[2J" in done.output
