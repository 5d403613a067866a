"""Fields of objects and values of lists: what is media, what a series, and which cells are odd."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from cache.errors import MmfuseError
from pipelines.data.columns import parse_modality
from pipelines.data.table_files import read_table
from pipelines.data.tables import TableOptions, load
from pipelines.data.values.mixed_cells import words_of
from pipelines.media.cells import raw

ROWS = 30


def json_lines(path, column, name="x"):
    """A file with that column, texts and a target."""
    rows = [
        {name: cell, "text": f"some plain words {row}", "target": "ab"[row % 2]}
        for row, cell in enumerate(column)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def parquet(path, **columns):
    """A file with those columns, and a target."""
    pl.DataFrame({**columns, "target": ["a", "b"] * (ROWS // 2)}).write_parquet(path)
    return path


def test_fields_called_bytes_are_ordinary_where_they_are_no_bytes(tmp_path):
    """Counts of bytes beside a path, as logs have them."""
    cells = [{"bytes": 40 + row % 7, "path": f"some page {row % 3}"} for row in range(ROWS)]
    dataset = load(json_lines(tmp_path / "log.jsonl", cells), TableOptions())
    assert list(dataset.column_types["table"]) == ["x.bytes"]
    assert dataset.table["table"].struct.field("x.bytes")[8] == 41


def test_words_called_bytes_are_words(tmp_path):
    """Text of base64, which is not decoded."""
    cells = [{"bytes": f"aGVs{row:04}bG8="} for row in range(ROWS)]
    notes = []
    load(json_lines(tmp_path / "a.jsonl", cells), TableOptions(), notes.append)
    assert "guessed x.bytes: text (1 words a cell)" in notes


def test_media_are_bytes_with_or_without_a_path(tmp_path):
    """As Hugging Face stores them; also where every cell has a path alone."""
    heads = [b"\x89PNG\r\n\x1a\n" + bytes([row]) for row in range(ROWS)]
    for cells in (
        [{"bytes": head} for head in heads],
        [{"bytes": head, "path": None} for head in heads],
    ):
        dataset = load(parquet(tmp_path / "a.parquet", x=cells), TableOptions())
        assert [(each.name, each.kind) for each in dataset.modalities] == [("x", "image")]
        assert dataset.table["x"][3] == heads[3]
    for row in range(ROWS):
        (tmp_path / f"{row}.png").write_bytes(heads[row])
    cells = [{"bytes": None, "path": f"{row}.png"} for row in range(ROWS)]
    dataset = load(json_lines(tmp_path / "b.jsonl", cells), TableOptions())
    assert dataset.table["x"][3] == "3.png"


@pytest.mark.parametrize("zone", ["+05:30", "-03:30", "+01:00", "Europe/Berlin"])
def test_moments_at_a_fixed_offset_are_read(tmp_path, zone):
    """Of every kind of file, alone and in lists, as the moments in UTC that they are."""
    seconds = [1704067200 + row for row in range(3)]
    kind = pa.timestamp("s", zone)
    lists = pa.array([[each] for each in seconds], pa.list_(kind))
    table = pa.table({"when": pa.array(seconds, kind), "all": lists, "word": ["+05:30", "a", zone]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    pa.feather.write_feather(table, tmp_path / "a.feather", compression="zstd")
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    for ending in ("parquet", "feather", "arrow"):
        found = read_table(tmp_path / f"a.{ending}")
        assert found["word"].to_list() == ["+05:30", "a", zone]
        for moments in (found["when"], found["all"].explode()):
            assert moments.dt.epoch("s").to_list() == seconds
            first = moments.dt.convert_time_zone("UTC")[0]
            assert first.isoformat() == "2024-01-01T00:00:00+00:00"


def test_a_type_that_polars_does_not_know_is_one_error(tmp_path):
    """It panics, which is no error of its own."""
    table = pa.table({"when": pa.array([1, 2], pa.timestamp("s", "Moon/Tycho"))})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    pa.feather.write_feather(table, tmp_path / "a.feather")
    for ending in ("parquet", "feather"):
        with pytest.raises(MmfuseError, match="Moon/Tycho"):
            read_table(tmp_path / f"a.{ending}")


def test_lists_three_deep_are_left_out_and_refused_as_a_series(tmp_path):
    """A series has times and variables alone."""
    cells = [[[[float(row)], [2.0]]] for row in range(ROWS)]
    texts = [f"some plain words {row}" for row in range(ROWS)]
    for path in (
        parquet(tmp_path / "a.parquet", x=cells, text=texts),
        json_lines(tmp_path / "a.jsonl", cells),
    ):
        notes = []
        load(path, TableOptions(), notes.append)
        assert "guessed x: left out (lists of lists of lists)" in notes
        with pytest.raises(MmfuseError, match=r"column 'x' holds List.*not rows of numbers"):
            load(path, TableOptions(modalities=(parse_modality("x=series"),)))


WORDLESS = {
    "bytes": pl.Series([b"\xff" + bytes([row]) for row in range(ROWS)]),
    "media": pl.Series([{"bytes": b"\xff" + bytes([row])} for row in range(ROWS)]),
    "lists": pl.Series([[{"a": row}] for row in range(ROWS)]),
}
USES = [
    (what, use)
    for what in WORDLESS
    for use in ("target", "id", "group", "split")
    if (what, use) != ("lists", "target")  # lists are labels
]


@pytest.mark.parametrize(("what", "use"), USES)
def test_what_has_no_words_is_no_target_id_group_or_split(tmp_path, what, use):
    """One line that names the column."""
    cells = WORDLESS[what]
    path = parquet(tmp_path / "a.parquet", x=cells, text=[f"some words {r}" for r in range(ROWS)])
    options = TableOptions(**{"target": "target", use: "x"})
    with pytest.raises(MmfuseError, match="'x' holds"):
        load(path, options)


def test_bytes_that_are_text_are_words():
    """As files without types of text have them."""
    assert words_of(pl.Series([b"caf\xc3\xa9", None])).to_list() == ["café", None]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_list_with_a_word_is_missing_alone(tmp_path, depth):
    """The other cells stay a series; the first word is told with its row."""
    cells = [[row, 2.5, None] for row in range(ROWS)]
    cells[4], cells[6], cells[9] = [1, "broken", 2], ["NaN", 1, "n/a"], None
    cells[11] = [1, "worse", 2]
    nested = [cell if depth == 1 or cell is None else [cell, cell] for cell in cells]
    notes = []
    dataset = load(json_lines(tmp_path / "a.jsonl", nested), TableOptions(), notes.append)
    assert "guessed x: series (lists of numbers)" in notes
    (told,) = [note for note in notes if note.startswith("series x")]
    assert told == (
        f"series x: 2 of {ROWS} cells are no row of numbers and count as missing, "
        f"such as 'broken' in row row-04"
    )
    found = dataset.table["x"].to_list()
    assert [row for row, cell in enumerate(found) if cell is None] == [4, 9, 11]
    plain = [cell if depth == 1 or cell is None else cell[1] for cell in found]
    assert plain[6] == [None, 1, None]
    assert plain[7] == [7, 2.5, None]


def test_lists_of_labels_are_no_series(tmp_path):
    """Words among which few are numbers, in lists that are empty for the most part."""
    cells = [[] if row % 10 else ["5", "sea"] for row in range(ROWS)]
    notes = []
    load(json_lines(tmp_path / "a.jsonl", cells), TableOptions(), notes.append)
    assert "guessed x: left out (lists of words)" in notes
    options = TableOptions(modalities=(parse_modality("x=series"),))
    path = json_lines(tmp_path / "b.jsonl", [["a"]] * ROWS)
    with pytest.raises(MmfuseError, match="not rows of numbers"):
        load(path, options)


@pytest.mark.parametrize("form", ["lists", "rows", "arrays", "words"])
def test_nan_in_a_series_is_a_missing_value(tmp_path, form):
    """As it is in a column of numbers."""
    nan = float("nan")
    cells = [[nan, 1.0, float(row)] for row in range(ROWS)]
    if form == "rows":
        cells = [[cell, cell] for cell in cells]
    column = pl.Series(cells, dtype=pl.Array(pl.Float64, 3) if form == "arrays" else None)
    if form == "words":
        column = pl.Series([f"[nan, 1.0, {row}]" for row in range(ROWS)])
    path = parquet(tmp_path / "a.parquet", x=column)
    dataset = load(path, TableOptions(modalities=(parse_modality("x=series"),)))
    cell = dataset.table["x"][2].to_list()
    assert (cell[0] if form == "rows" else cell) == [None, 1.0, 2.0]
    assert len(raw("series", cell, None)) == 4 + 4 * (6 if form == "rows" else 3)
