"""JSON in its forms, Parquet with class names, Arrow files and streams: one table each."""

import json

import datasets
import polars as pl
import pytest

from cache.errors import MmfuseError
from pipelines.data.formats.nested import flattened
from pipelines.data.table_files import read_table

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
COLUMNS = {"a": [1, 2], "b": ["x", None]}


@pytest.mark.parametrize(
    "document",
    [
        ROWS,
        {"data": ROWS},
        {"version": 2, "annotations": ROWS, "licences": ["a"]},
        COLUMNS,
        {"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": None}},
    ],
)
def test_a_json_file_is_the_same_table_in_every_form(tmp_path, document):
    """Records, records inside an object, lists by column, and pandas' default."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    notes = []
    assert read_table(path, note=notes.append).to_dict(as_series=False) == COLUMNS
    inside = isinstance(document, dict) and ROWS in document.values()
    assert len(notes) == inside


def test_json_lines_called_json_are_read(tmp_path):
    """As `datasets` writes them."""
    path = tmp_path / "a.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read_table(path).to_dict(as_series=False) == COLUMNS


def test_what_else_an_object_holds_is_told(tmp_path):
    """The rows are one list; the rest is named."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"info": {"x": 1}, "rows": ROWS}))
    notes = []
    read_table(path, note=notes.append)
    assert "rows are the list 'rows'; info beside it left out" in notes[0]


def test_class_numbers_of_hugging_face_are_their_names(tmp_path):
    """The names are in the file; -1, which stands for no label, is missing."""
    made = datasets.Dataset.from_dict({"label": [0, 1, -1], "text": ["a", "b", "c"]})
    made = made.cast_column("label", datasets.ClassLabel(names=["neg", "pos"]))
    made.to_parquet(tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert found.to_dict(as_series=False) == {
        "label": ["neg", "pos", None],
        "text": ["a", "b", "c"],
    }


def test_arrow_files_and_streams_are_read(tmp_path):
    """Feather files, and the streams that `datasets` saves."""
    frame = pl.DataFrame(COLUMNS)
    frame.write_ipc(tmp_path / "a.feather")
    frame.write_ipc_stream(tmp_path / "b.arrow")
    for name in ("a.feather", "b.arrow"):
        assert read_table(tmp_path / name).equals(frame)


def test_fields_of_nested_objects_are_columns(tmp_path):
    """At any depth, null where an object is; media stay whole."""
    media = {"bytes": b"x", "path": "a.png"}
    frame = pl.DataFrame(
        {"m": [{"i": {"path": "a"}, "n": 1}, None], "image": [media, media], "z": [1, 2]}
    )
    found = flattened(frame, "a.json")
    assert found.columns == ["m.i.path", "m.n", "image", "z"]
    assert found.drop("image").rows() == [("a", 1, 1), (None, None, 2)]
    assert flattened(frame, "a.json", keep=["m"]).columns == ["m", "image", "z"]


def test_a_field_named_like_another_column_is_refused():
    """`a.b` beside an object a with a field b: which one is meant would be a guess."""
    frame = pl.DataFrame({"a": [{"b": 1}], "a.b": [2]})
    with pytest.raises(MmfuseError, match=r"two columns are named 'a\.b'"):
        flattened(frame, "a.json")


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_columns_come_in_the_order_of_the_first_object(tmp_path, suffix):
    """Also of wide tables, whose columns polars shuffles; later ones follow by name."""
    names = [f"c{n * 37 % 211}" for n in range(211)]
    rows = [dict.fromkeys(names, "c5") | {"text": "x" * 100_000}, {"z": 1, "b": 2, **{names[0]: 3}}]
    path = tmp_path / f"t{suffix}"
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    assert read_table(path).columns == [*names, "text", "b", "z"]
