"""What is drawn: plain lines off a terminal, nothing broken on a narrow one, JSON for machines."""

import json

from mmfuse_cli import console
from pipelines.reports.table import Spread, Table

TABLE = Table(
    "runs", ("method", "test"), (("concat", Spread((0.5, 0.7))), ("a longer name", None)), ("note",)
)


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
    assert document["tables"][0]["rows"][0]["test"]["values"] == [0.5, 0.7]
    assert document["notes"] == ["next: mmfuse eval"]
    assert said.err == ""


def test_tracking_passes_every_item_on_and_is_silent_off_a_terminal(capsys):
    """Short work leaves no trace in a log."""
    assert list(console.track(range(5), "rows", 5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")
