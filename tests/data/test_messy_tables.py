"""Messy tables of one's own: what their columns are taken as, and what is said about it."""

import polars as pl
import pytest

from cache.errors import MmfuseError
from pipelines.data.columns import ModalitySpec, cells, guess_modalities
from pipelines.data.tables import TableOptions, load

LABELS = ["a", "b"] * 30


def table(folder, separator=",", **columns):
    """A CSV of 60 rows with these columns beside `id` and `label`, and the notes on it."""
    names = [*columns, "label"]
    lines = [separator.join(["id", *names])]
    for row in range(60):
        cells = [columns[name](row) if name in columns else LABELS[row] for name in names]
        quoted = [f'"{cell}"' if separator in cell else cell for cell in cells]
        lines.append(separator.join([f"s{row}", *quoted]))
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    notes = []
    return load(path, TableOptions(name="t"), notes.append), notes


def values(dataset, column):
    """The cells of a column of the only tabular modality."""
    return dataset.table["table"].struct.field(column)


def test_an_odd_word_costs_its_cell_and_is_named_with_its_row(tmp_path):
    """Sixty prices of which two are words: numbers with two gaps, and one sentence."""
    dataset, notes = table(tmp_path, price=lambda row: "sold" if row in (7, 9) else f"{row}.50")
    found = values(dataset, "price")
    assert found.dtype == pl.Float64
    assert found.null_count() == 2
    assert found[10] == 10.5
    (note,) = [note for note in notes if "price" in note and "missing" in note]
    assert note == (
        "column price is read as numbers: 2 of 60 cells are no number and count as missing, "
        "such as 'sold' in row s7"
    )


def test_a_german_export_is_read_as_germans_write(tmp_path):
    """Semicolons, decimal commas, points between thousands, dotted dates, euros."""
    dataset, notes = table(
        tmp_path,
        ";",
        weight=lambda row: f"{row},{row % 10}5",
        rent=lambda row: f"{1000 + row:,}".replace(",", ".") + " €",
        since=lambda row: f"{row % 28 + 1:02}.03.20{row % 30:02}",
    )
    assert values(dataset, "weight")[3] == 3.35
    assert values(dataset, "rent")[3] == 1003
    assert str(values(dataset, "since")[3]) == "2003-03-04"
    said = [note for note in notes if note.startswith("guessed")]
    assert "guessed weight: tabular (numbers (decimal ','))" in said
    assert "guessed since: tabular (dates (dd.mm.yyyy))" in said


def test_the_decimal_mark_can_be_given(tmp_path):
    """`1,234` in every cell may be either; the option settles it."""
    lines = ["id\tx\tlabel", *(f"s{n}\t{n + 1},{n + 100}\t{LABELS[n]}" for n in range(60))]
    path = tmp_path / "t.tsv"
    path.write_text("\n".join(lines) + "\n")
    as_thousands = load(path, TableOptions(name="t"))
    as_decimals = load(path, TableOptions(name="t", decimal=","))
    assert values(as_thousands, "x")[0] == 1100
    assert values(as_decimals, "x")[0] == 1.1


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("tree/cat/{}.heic", "image"),
        ("clips\\{}.m4a", "audio"),
        ("{}.MOV", "video"),
        ("docs/{}.xyz", None),
        ("{}.pdf", None),
        ("https://example.org/{}.jpg", None),
        ("s3://bucket/{}", None),
        ("site{}.com", "text"),
        ("a note about number {}", "text"),
    ],
)
def test_names_of_files_and_urls_are_never_text(cell, kind):
    """An ending makes a column of files; what cannot be used is left out, and why is said."""
    column = pl.Series("c", [cell.format(f"n{row}") for row in range(60)])
    found = guess_modalities(pl.DataFrame([column]), [])
    assert [part.kind for part in found.parts] == ([kind] if kind else [])
    if kind is None:
        assert "left out" in found.notes[0]
        assert ("download" if "://" in cell else "--modality NAME=KIND") in found.notes[0]


@pytest.mark.parametrize(
    ("words", "kind", "names"),
    [
        (["drama|war", "war", "drama", "war|comedy", "comedy"], "labels", 3),
        (["Mac; iOS", "Linux", "Windows"], "classes", 3),
        (["a|b", "a|b", "c"], "classes", 2),
        (["7", "07", "007"], "classes", 3),
        (["1", "1.0", "2"], "classes", 2),
        (["3", "NA", "4"], "classes", 3),
        (["cat", "cat ", "dog"], "classes", 2),
        (["1", "9" * 5000], "classes", 2),
    ],
)
def test_a_target_is_what_most_of_its_cells_say(tmp_path, words, kind, names):
    """Joined words are labels where parts recombine; words are words, decimals are values."""
    lines = ["id,words,label"]
    lines += [f"s{n},word number {n},{words[n % len(words)]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    task = load(tmp_path / "t.csv", TableOptions(name="t")).task
    assert (task.kind, len(task.names)) == (kind, names)


def test_labels_that_look_alike_are_reported(tmp_path):
    """Yes and yes are two classes, and that is said."""
    lines = ["id,words,label", *(f"s{n},word {n} here,{('Yes', 'yes')[n % 2]}" for n in range(60))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    notes = []
    load(tmp_path / "t.csv", TableOptions(name="t"), notes.append)
    assert any("'Yes', 'yes' differ only by case" in note for note in notes)


def test_a_series_cell_that_does_not_parse_costs_its_cell(tmp_path):
    """One word among sixty signals: absent, and named; no signal at all: an error."""
    signal = lambda row: "n/a" if row == 17 else " ".join(str(row + n) for n in range(9))  # noqa: E731
    dataset, notes = table(tmp_path, signal=signal)
    assert dataset.table["signal"].dtype == pl.List(pl.Float32)
    assert dataset.table["signal"].null_count() == 1
    assert any("'n/a' in row s17" in note for note in notes)
    words = pl.DataFrame({"s": ["x", "y"]})
    with pytest.raises(MmfuseError, match="rows of numbers"):
        cells(words, ModalitySpec("s", "series", ("s",)))


@pytest.mark.parametrize("what", ["dataset", "modality"])
def test_a_name_that_no_file_system_takes_is_one_line(tmp_path, what):
    """Three hundred letters of a name are refused before anything is written."""
    lines = ["id,words,label", *(f"s{n},word {n} here,{LABELS[n]}" for n in range(60))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    long = "n" * 300
    modality = ModalitySpec(long if what == "modality" else "words", "text", ("words",))
    options = TableOptions((modality,), name=long if what == "dataset" else "t")
    with pytest.raises(MmfuseError, match=f"{what} 'nnn.*too long: at most 120"):
        load(tmp_path / "t.csv", options)
