"""Messy tables of one's own: what their columns are taken as, and what is said about it."""

import polars as pl
import pytest

from cache.errors import MmfuseError
from pipelines.data.columns import ModalitySpec, cells
from pipelines.data.guesses import guess_modalities
from pipelines.data.tables import TableOptions, load
from pipelines.data.values.column_types import infer, read_column
from pipelines.data.values.mixed_cells import column_of

LABELS = ["a", "b"] * 30
SPLIT = ("train", "train", "train", "val", "test", "train")


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
        ("//cdn.example.org/{}", None),
        ("www.example.org/{}", None),
        ("data:image/png;base64,{}", None),
        ("tree/{}.heic ", "image"),
        ("tree/{}.jpg?w=200", "image"),
        ("tree/{}", None),
        ("tree\\IM{}", None),
        ("tree/{}.parquet", None),
        ("tree_{}.svs", None),
        ("tree_{}.weird", None),
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
        web = cell.startswith(("https:", "s3:", "//", "www", "data:"))
        assert ("download" if web else "--modality NAME=KIND") in found.notes[0]


def test_words_with_a_slash_or_a_point_are_words():
    """Few different ones are categories, and what ends in many ways is no name of a file."""
    frame = pl.DataFrame(
        {
            "sex": [("m/f", "m/m", "f/f")[row % 3] for row in range(60)],
            "user": [f"john.name{chr(97 + row % 26) * (1 + row // 26)}" for row in range(60)],
            "ratio": [f"{row}/{row + 1}" for row in range(60)],
        }
    )
    found = guess_modalities(frame, [])
    kinds = {part.name: part.kind for part in found.parts}
    assert kinds == {"table": "tabular", "user": "text", "ratio": "text"}


def test_words_that_say_no_value_in_a_column_of_files_are_absent(tmp_path):
    """Neither text nor files that are not there; their number is told."""
    for row in range(60):
        (tmp_path / f"{row}.png").write_bytes(b"x")
    dataset, notes = table(tmp_path, photo=lambda row: "NA" if row % 7 == 0 else f"{row}.png")
    assert [m.kind for m in dataset.modalities] == ["image"]
    assert dataset.table["photo"].null_count() == 9
    assert any("9 of 60 cells are words such as NA" in note for note in notes)


@pytest.mark.parametrize(
    ("income", "note", "written"),
    [
        (lambda row: f"{(row + 1) * 1234:,}", lambda row: "1,5", "thousands ','"),
        (lambda row: "12,34" if row == 7 else f"{(row + 1) * 1234:,}", lambda row: "x",
         "thousands ','"),
        (lambda row: f"{row / 8:.3f}".replace(".", ","), lambda row: "1.5", "decimal ','"),
        (lambda row: f"USD{(row + 1) * 1000:,}.50", lambda row: "x", "thousands ',', in USD"),
        (lambda row: f"R$ {row},50", lambda row: "x", "decimal ',', in R$"),
        (lambda row: f"{row} zł", lambda row: "x", "in zł"),
    ],
)  # fmt: skip
def test_a_column_is_written_as_most_of_its_own_cells_are(tmp_path, income, note, written):
    """Odd cells here, and cells of columns of words, do not change how numbers are read."""
    odd = lambda row: note(row) if row == 5 else "abc"[row % 3]  # noqa: E731
    _, notes = table(tmp_path, income=income, note=odd)
    assert any(f"guessed income: tabular (numbers ({written}))" in each for each in notes)


def test_columns_of_numbers_vote_on_what_a_thousand_looks_like(tmp_path):
    """`9.286` is nine thousand where other columns show commas, also beside one with points."""
    columns = {
        "people": lambda row: f"{row}.286" if row else "987",
        "share": lambda row: f"{row},50",
        "place": lambda row: f"52.{1234 + row}",
    }
    dataset, _ = table(tmp_path, ";", **columns)
    assert values(dataset, "people")[:2].to_list() == [987, 1286]
    assert values(dataset, "share")[3] == 3.5
    assert values(dataset, "place")[0] == 52.1234


def test_negative_numbers_of_bookkeepers_and_infinite_ones(tmp_path):
    """Brackets are a minus; what no float holds is missing, and does not cost the row."""
    cells_ = {3: "(1.5)", 4: "inf", 5: "1e400"}
    dataset, notes = table(tmp_path, gain=lambda row: cells_.get(row, f"{row}.5"))
    assert values(dataset, "gain")[2:6].to_list() == [2.5, -1.5, None, None]
    assert any(
        "2 of 60 cells are no number" in note and "'inf' in row s4" in note for note in notes
    )


def test_series_with_decimal_commas_are_read_as_the_file_writes_numbers(tmp_path):
    """Also in new tables: what the file writes is learnt with the features."""
    signal = lambda row: " ".join(f"{row},{n}5" for n in range(9))  # noqa: E731
    dataset, notes = table(tmp_path, ";", signal=signal)
    assert dataset.table["signal"][3].to_list()[:2] == pytest.approx([3.05, 3.15])
    assert any("signal: series (numbers in a row (decimal ','))" in note for note in notes)
    kinds = dataset.column_types["signal"]
    new = pl.DataFrame({"signal": ["1,5 2,5"]})
    found = cells(new, ModalitySpec("signal", "series", ("signal",)), types=kinds)
    assert found.cells.to_list() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("name", "cell", "left_out"),
    [
        ("bid", lambda row: str(1000 + 37 * row), False),
        ("user_id", lambda row: str(1000 + 37 * row), True),
        ("userId", lambda row: str(1000 + 37 * row), True),
        ("passengerid", lambda row: str(row + 1), True),
    ],
)
def test_numbers_of_the_rows_are_left_out_by_name(tmp_path, name, cell, left_out):
    """A name that means an id, or one that may and numbers that follow one another."""
    _, notes = table(tmp_path, **{name: cell, "n": lambda row: str(row % 5)})
    assert any(f"{name}: left out (it numbers" in note for note in notes) is left_out


def test_rows_of_one_group_are_together_however_its_name_is_written(tmp_path):
    """Blanks, and `1` beside `1.0`, do not make another group."""
    for names in (("g{}", "g{} "), ("{}", "{}.0")):
        lines = ["id,words,g,label"]
        lines += [
            f"s{n},word {n} here,{names[n % 2].format(n // 6)},{LABELS[n]}" for n in range(60)
        ]
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        found = load(tmp_path / "t.csv", TableOptions(name="t", group="g")).table
        splits = found.group_by("group").agg(pl.col("split").n_unique())
        assert len(splits) == 10
        assert splits["split"].max() == 1


def test_rows_without_a_split_are_told(tmp_path):
    """They get features and are in no split."""
    lines = ["id,words,split,label"]
    words = ("train", "train", "test", "val", "")
    lines += [f"s{n},word {n} here,{words[n % 5]},{LABELS[n]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    notes = []
    load(tmp_path / "t.csv", TableOptions(name="t"), notes.append)
    assert any("12 of 60 rows have no 'split'" in note for note in notes)


@pytest.mark.parametrize("odd", ["n/a", "(see note)", "1e400"])
@pytest.mark.parametrize("price", [lambda row: row * 7, lambda row: row / 8])
def test_a_word_among_numbers_to_predict_costs_its_row(tmp_path, odd, price):
    """Forty prices and two words are a value, and two rows are left out."""
    lines = ["id,size,price"]
    lines += [f"s{n},{n % 9},{odd if n in (9, 19) else price(n)}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    notes = []
    dataset = load(tmp_path / "t.csv", TableOptions(name="t", target="price"), notes.append)
    assert dataset.task.kind == "value"
    assert len(dataset.table) == 58
    assert any("2 of 60 rows have a 'price' that is no number" in note for note in notes)


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
        (["cat", "cat\u200b", "dog"], "classes", 3),
        (["a", "b", "c"] * 19 + ["d; c", "a", "b"], "classes", 4),
        (["a|b", "b|c", "c", "a|c"], "labels", 3),
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


def test_percentages_stored_as_fractions_are_the_same_as_words():
    """Excel stores 0.12 for a cell that shows 12 %: in a new table, and beside words."""
    words = pl.Series("rate", [f"{n} %" for n in range(60)])
    kind = infer(words)
    assert str(kind) == "numbers (in %)"
    assert read_column(pl.Series("rate", [0.12, 0.5, 62.5]), kind).values.to_list() == [
        12,
        50,
        62.5,
    ]
    both = column_of("rate", [*words[:50].to_list(), *(n / 100 for n in range(10))], print)
    reading = read_column(both, infer(both))
    assert reading.values.to_list() == [*range(50), *range(10)]
    assert reading.describe_unfit(both) == (
        "10 of 60 cells are stored numbers, such as '0' in row 50; up to 1 they are fractions, "
        "0.12 is 12 %"
    )


def test_addresses_are_no_numbers(tmp_path):
    """192.168.178.100 could be written with points between thousands, a column of them is not."""
    dataset, _ = table(
        tmp_path, host=lambda row: f"192.168.178.{100 + row}", size=lambda row: str(row)
    )
    assert "host" not in dataset.columns["table"]
    plain = pl.Series("n", [f"1.{row:03}.250.{row:03}" for row in range(300, 360)])
    assert str(infer(plain)) == "numbers (decimal ',', thousands '.')"


def test_how_a_number_to_predict_is_written_is_told(tmp_path):
    """Points between thousands, or fractions: both are read, and the first cell shows which."""
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["x;y", *(f"{n},5;{n / 8 + 1:.3f}" for n in range(60))]) + "\n")
    notes = []
    load(path, TableOptions(target="y"), notes.append)
    told = "read as numbers (decimal ',', thousands '.'): '1.000' is 1000; else --decimal ."
    assert any(told in note for note in notes)
    notes.clear()
    dataset = load(path, TableOptions(target="y", decimal="."), notes.append)
    assert dataset.table["target"][1] == 1.125
    assert not any("read as numbers" in note for note in notes if note.startswith("target"))


def test_groups_that_a_split_column_cuts_and_rows_of_no_group_are_told(tmp_path):
    """The column of splits is kept, since it may be the benchmark's own."""
    path = tmp_path / "t.csv"
    lines = [f"{n} words,{'ab'[n % 2]},{n // 6 if n % 4 else ''},{SPLIT[n % 6]}" for n in range(60)]
    path.write_text("\n".join(["text,label,patient,split", *lines]) + "\n")
    notes = []
    load(path, TableOptions(group="patient"), notes.append)
    assert "15 of 60 rows have no 'patient': each is a group of its own" in notes
    assert (
        "10 of 10 groups of 'patient' are in several splits of column 'split', which is kept; to "
        "keep groups whole: --split 0.8/0.1/0.1" in notes
    )
