"""Own data: tables and folders in one line, what is guessed, and what is wrong before any work."""

import json
import os
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cache.errors import MmfuseError
from cache.samples import Modality
from pipelines.data import guesses, sources, tables
from pipelines.data.columns import parse_modality
from pipelines.data.tables import TableOptions
from pipelines.media import cells as reading

COUNT = 60


def films(count=COUNT):
    """A small table of movies with every kind of cell that a CSV can hold."""
    return pl.DataFrame(
        {
            "id": [f"f{row}" for row in range(count)],
            "poster": [f"posters/{row % 5}.png" for row in range(count)],
            "plot": [f"somebody does thing number {row} to someone" for row in range(count)],
            "year": [1950 + row for row in range(count)],
            "country": [("no", "it", "jp")[row % 3] for row in range(count)],
            "released": [f"19{50 + row % 50}-02-01" for row in range(count)],
            "genre": [("drama", "noir")[row % 2] for row in range(count)],
        }
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with films.csv and its posters."""
    (tmp_path / "posters").mkdir()
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"posters/{number}.png")
    films().write_csv(tmp_path / "films.csv")
    return tmp_path


GENRE = TableOptions(target="genre")


def open_one(path, options=GENRE, note=None):
    """The one dataset a path means."""
    (dataset,) = sources.open_dataset(str(path), table=options, note=note)
    return dataset


def changed(folder, **cells):
    """films.csv with other columns in it."""
    path = folder / "changed.csv"
    films().with_columns(**cells).write_csv(path)
    return path


def refused(path, options=GENRE):
    """The message a table is refused with."""
    with pytest.raises(MmfuseError) as caught:
        open_one(path, options)
    return str(caught.value)


def test_a_table_opens_by_what_is_said(folder):
    """Named modalities, target and id give exactly those; nothing else comes along."""
    options = TableOptions(
        modalities=(
            parse_modality("poster=image"),
            parse_modality("plot=text"),
            parse_modality("facts=tabular:year,country"),
        ),
        target="genre",
        id="id",
    )
    dataset = open_one(folder / "films.csv", options)
    assert dataset.modalities == (
        Modality("poster", "image"), Modality("plot", "text"), Modality("facts", "tabular"),
    )  # fmt: skip
    assert dataset.task.names == ("drama", "noir")
    assert dataset.table["facts"][1] == {"year": 1951.0, "country": "it"}
    for modality in dataset.modalities:
        cell = dataset.table[modality.name][0]
        assert reading.read(modality.kind, cell, dataset.root) is not None


def test_guesses_are_reported(folder):
    """Without --modality every column is judged by its cells, and each judgement is a line."""
    told = []
    dataset = open_one(folder / "films.csv", note=told.append)
    assert [(m.name, m.kind) for m in dataset.modalities] == [
        ("poster", "image"), ("plot", "text"), ("table", "tabular"),
    ]  # fmt: skip
    assert dataset.table["table"].struct.fields == ["year", "country", "released"]
    text = "\n".join(told)
    for line in ("target genre: 2 classes", "rows split 0.8/0.1/0.1", "guessed poster: image",
                 "guessed plot: text", "guessed country: tabular"):  # fmt: skip
        assert line in text


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_the_same_table_in_any_format_is_the_same_dataset(folder, suffix):
    """CSV, TSV, Parquet and JSON lines give equal rows."""
    path = folder / f"other.{suffix}"
    match suffix:
        case "csv" | "tsv":
            films().write_csv(path, separator="," if suffix == "csv" else "\t")
        case "parquet":
            films().write_parquet(path)
        case "jsonl":
            films().write_ndjson(path)
    assert open_one(path).table.equals(open_one(folder / "films.csv").table)


def test_a_store_is_named_after_the_file_and_its_place(folder):
    """Two files of one name have two stores; --name overrides."""
    name = open_one(folder / "films.csv").name
    assert name.startswith("films-")
    assert len(name) == len("films-") + 6
    (folder / "again").mkdir()
    films().drop("poster").write_csv(folder / "again" / "films.csv")
    assert open_one(folder / "again" / "films.csv").name != name
    assert open_one(folder / "films.csv", TableOptions(target="genre", name="mine")).name == "mine"


def test_empty_cells_are_absent_and_none_is_a_word(folder):
    """Blank cells become null; the word None stays, as a text and as a class."""
    plot = pl.when(pl.col("plot").str.ends_with("someone")).then(pl.lit(" ")).alias("plot")
    path = changed(folder, plot=plot, genre=pl.col("genre").replace({"noir": "None"}))
    options = TableOptions(
        modalities=(parse_modality("plot=text"), parse_modality("poster=image")), target="genre"
    )
    dataset = open_one(path, options)
    assert dataset.table["plot"].null_count() == COUNT
    assert dataset.task.names == ("None", "drama")


def test_a_record_without_values_is_absent(folder):
    """A row whose fields are all empty is null, not a record of nulls."""
    path = changed(folder, year=pl.lit(None), country=pl.lit(""))
    options = TableOptions(
        modalities=(parse_modality("facts=tabular:year,country"),), target="genre"
    )
    assert open_one(path, options).table["facts"].null_count() == COUNT


def test_files_are_found_in_a_sibling_zip(folder):
    """`posters/0.png` is read in posters.zip where there is no such folder."""
    with zipfile.ZipFile(folder / "posters.zip", "w") as archive:
        for path in sorted((folder / "posters").iterdir()):
            archive.write(path, f"posters/{path.name}")
            path.unlink()
    (folder / "posters").rmdir()
    dataset = open_one(folder / "films.csv")
    assert reading.read("image", dataset.table["poster"][3], dataset.root).size == (4, 4)


# ---- splits


def test_shares_are_dealt_within_each_class_by_a_seed(folder):
    """0.6/0.2/0.2 holds in each class; the same seed deals alike, another does not."""
    options = TableOptions(target="genre", split="0.6/0.2/0.2")
    table = open_one(folder / "films.csv", options).table
    for _, rows in table.group_by("target"):
        sizes = dict(rows["split"].value_counts().iter_rows())
        assert sizes == pytest.approx({"train": 18, "val": 6, "test": 6}, abs=1)
    again = open_one(folder / "films.csv", options).table["split"]
    other = TableOptions(target="genre", split="0.6/0.2/0.2", seed=1)
    assert again.equals(table["split"])
    assert not open_one(folder / "films.csv", other).table["split"].equals(again)


def test_a_column_of_splits_is_used_and_dev_is_val(folder):
    """Split words in any case; a column named split needs no naming."""
    words = pl.Series(["Train", "dev", "TEST"] * (COUNT // 3))
    expected = ["train", "val", "test"] * (COUNT // 3)
    assert open_one(changed(folder, split=words)).table["split"].to_list() == expected
    options = TableOptions(target="genre", split="fold")
    assert open_one(changed(folder, fold=words), options).table["split"].to_list() == expected


def test_groups_stay_on_one_side(folder):
    """With --group no value of that column is in two splits, and the shares nearly hold."""
    makers = pl.Series([f"maker {row // 3}" for row in range(COUNT)])
    options = TableOptions(target="genre", group="maker", split="0.6/0.2/0.2")
    table = open_one(changed(folder, maker=makers), options).table
    assert table.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    sizes = dict(table["split"].value_counts().iter_rows())
    assert sizes == pytest.approx({"train": 36, "val": 12, "test": 12}, abs=3)


# ---- targets


@pytest.mark.parametrize("joint", ["|", "; ", "list"])
def test_labels_may_be_a_list_or_joined_words(folder, joint):
    """Several labels a row are a multi-label task, none is legal."""
    rows = [["a", "b"], ["b"], [], ["c", "a", "a"]] * (COUNT // 4)
    path = folder / "labels.parquet"
    genre = rows if joint == "list" else [joint.join(row) or "|" for row in rows]
    films().with_columns(genre=pl.Series(genre)).write_parquet(path)
    dataset = open_one(path)
    assert (dataset.task.kind, dataset.task.names) == ("labels", ("a", "b", "c"))
    assert dataset.samples().targets[:4].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_fractions_are_a_value_and_few_whole_numbers_are_classes(folder):
    """Floats are regressed; a few whole numbers are classes in their numeric order."""
    value = open_one(changed(folder, genre=pl.col("year") / 7))
    assert (value.task.kind, value.task.names) == ("value", ("genre",))
    assert value.samples().targets[0] == pytest.approx(1950 / 7)
    classes = open_one(changed(folder, genre=pl.col("year") % 12))
    assert classes.task.names == tuple(map(str, range(12)))
    forced = open_one(
        changed(folder, genre=pl.col("year") % 12), TableOptions(target="genre", task="value")
    )
    assert forced.task.kind == "value"
    with pytest.raises(MmfuseError, match="did you mean classes"):
        open_one(folder / "films.csv", TableOptions(target="genre", task="clases"))
    assert (
        "cannot be a number to predict: 60 of 60 cells are no number, such as 'drama'"
        in refused(folder / "films.csv", TableOptions(target="genre", task="value"))
    )


# ---- other kinds


def test_series_come_from_lists_from_words_and_from_columns(tmp_path):
    """One list a cell, numbers in a row, or a column a moment: the same series."""
    rows = np.arange(COUNT * 10, dtype=np.float32).reshape(COUNT, 10)
    frame = pl.DataFrame(
        {"label": ["a", "b"] * (COUNT // 2), "lists": rows.tolist(),
         "words": [" ".join(map(str, row)) for row in rows],
         **{f"t{step}": rows[:, step] for step in range(10)}}
    )  # fmt: skip
    frame.write_parquet(tmp_path / "s.parquet")
    asked = ("lists=series", "words=series", "steps=series:" + ",".join(f"t{s}" for s in range(10)))
    options = TableOptions(modalities=tuple(map(parse_modality, asked)))
    dataset = open_one(tmp_path / "s.parquet", options)
    for modality in dataset.modalities:
        values = reading.read("series", dataset.table[modality.name][3], None)
        assert np.array_equal(values[:, 0], rows[3])
    kinds = {m.name: m.kind for m in open_one(tmp_path / "s.parquet", TableOptions()).modalities}
    assert (kinds["lists"], kinds["words"]) == ("series", "series")


def test_pictures_may_lie_in_the_table_itself(tmp_path, folder):
    """A column of encoded bytes is recognised and read without any file."""
    data = (folder / "posters/3.png").read_bytes()
    frame = pl.DataFrame({"label": ["a", "b"] * 30, "picture": [data] * 60})
    frame.write_parquet(tmp_path / "b.parquet")
    dataset = open_one(tmp_path / "b.parquet", TableOptions())
    assert dataset.modalities == (Modality("picture", "image"),)
    assert reading.read("image", dataset.table["picture"][0], None).getpixel((0, 0)) == (3, 0, 0)


# ---- what is wrong


def test_a_missing_column_is_named_with_the_nearest(folder):
    """Target, id, group, split and modality columns alike."""
    path = folder / "films.csv"
    assert "no column in" in refused(path, TableOptions(target="gendre"))
    assert "did you mean genre" in refused(path, TableOptions(target="gendre"))
    assert "did you mean poster" in refused(
        path, TableOptions((parse_modality("postr=image"),), "genre")
    )
    assert "'maker'" in refused(path, TableOptions(target="genre", group="maker"))
    assert "'ids'" in refused(path, TableOptions(target="genre", id="ids"))
    assert "neither a column" in refused(path, TableOptions(target="genre", split="fold"))
    assert "which column is to be predicted" in refused(path, TableOptions())


def test_duplicate_ids_are_named(folder):
    """The first repeated ids are in the message, with what to do."""
    message = refused(changed(folder, id=pl.col("id").replace({"f7": "f3"})))
    assert "not unique: f3" in message
    assert "--id" in message


def test_one_class_only_is_an_error(folder):
    """There is nothing to predict."""
    assert "every row has the same 'genre' (x)" in refused(changed(folder, genre=pl.lit("x")))


def test_rows_without_a_target_are_left_out_and_reported(folder):
    """A blank target is no class: its row cannot be trained on or scored."""
    rows = pl.int_range(pl.len()) % 10
    genre = pl.when(rows == 3).then(pl.lit(" ")).otherwise(pl.col("genre"))
    notes = []
    films = open_one(changed(folder, genre=genre), note=notes.append)
    assert len(films.table) == 54
    assert films.task.names == ("drama", "noir")
    assert any("6 of 60 rows have no 'genre' and are left out" in note for note in notes)


def test_an_empty_split_and_an_unknown_split_word_are_errors(folder):
    """Both name the column and what would be right."""
    words = pl.Series(["train", "val"] * (COUNT // 2))
    assert "the test split is empty in column 'split'" in refused(changed(folder, split=words))
    words = pl.Series(["train", "hold"] * (COUNT // 2))
    assert "unknown split ['hold'] in column 'split'" in refused(changed(folder, split=words))
    assert "sum to 1" in refused(folder / "films.csv", TableOptions(target="genre", split="8/1/1"))


def test_a_path_outside_the_root_is_an_error(folder):
    """Paths that leave the table's folder are refused before anything is read."""
    poster = pl.col("poster").replace({"posters/3.png": "../3.png"})
    message = refused(changed(folder, poster=poster))
    assert "12 paths in 'poster' lead out of" in message
    poster = pl.col("poster").replace({"posters/3.png": "/etc/hosts"})
    options = TableOptions((parse_modality("poster=image"),), "genre")
    assert "'/etc/hosts'" in refused(changed(folder, poster=poster), options)


def test_files_that_are_all_missing_are_an_error_at_once(folder):
    """A wrong folder is said before an hour is spent recording failures."""
    poster = "x" + pl.col("poster")
    assert "none of the first 60 files in 'poster' exists" in refused(
        changed(folder, poster=poster)
    )


def test_some_missing_files_are_not(folder):
    """A few absent files cost their cells at extraction, not the dataset."""
    (folder / "posters/3.png").unlink()
    assert open_one(folder / "films.csv").table["poster"].null_count() == 0


def test_modalities_cannot_be_the_target_or_take_its_place(folder):
    """The target as a modality, and names that are taken, are refused."""
    path = folder / "films.csv"
    assert "is the target" in refused(path, TableOptions((parse_modality("genre=text"),), "genre"))
    assert "cannot be called 'id'" in refused(
        path, TableOptions((parse_modality("id=text"),), "genre")
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "lists.parquet"])
@pytest.mark.parametrize("task", [None, "labels"])
def test_a_row_without_labels_has_none_of_them(tmp_path, suffix, task):
    """An empty cell, a null and an empty list mean the same; their number is reported."""
    cells = ["a;b", None, "b", None] * 15
    table = films().select("id", "plot").with_columns(tags=pl.Series("tags", cells, pl.String))
    if suffix.startswith("lists"):
        lists = [
            cell.split(";") if cell else (None, [])[row % 4 == 1] for row, cell in enumerate(cells)
        ]
        table = table.with_columns(tags=pl.Series("tags", lists, pl.List(pl.String)))
    path = tmp_path / f"labels.{suffix}"
    (table.write_csv if suffix == "csv" else table.write_parquet)(path)
    told = []
    dataset = open_one(path, TableOptions(target="tags", task=task), note=told.append)
    assert dataset.task.names == ("a", "b")
    assert dataset.table["target"].to_list()[:4] == [[0, 1], [], [1], []]
    assert "target tags: 30 rows have no label at all" in told


def test_how_rows_are_dealt_is_said_of_each_task(folder):
    """Classes evenly, values by tenths, labels by the rarest of a row."""
    for options, said in (
        (GENRE, "each class evenly"),
        (TableOptions(target="year", task="value"), "each tenth of the values evenly"),
        (TableOptions(target="genre", task="labels"), "the rarest label of a row evenly"),
    ):
        told = []
        open_one(folder / "films.csv", options, note=told.append)
        assert any(said in line for line in told if line.startswith("rows split")), told


def test_words_for_modalities_are_checked():
    """NAME=KIND and NAME=KIND:COLUMNS, nothing else; unknown kinds get the nearest."""
    assert parse_modality("a=image").columns == ("a",)
    assert parse_modality("a=tabular:b,c").columns == ("b", "c")
    for words in ("a", "=image", "a=", "a=text:"):
        with pytest.raises(MmfuseError, match="must be NAME=KIND"):
            parse_modality(words)
    with pytest.raises(MmfuseError, match="did you mean image"):
        parse_modality("a=imag")
    assert parse_modality("größe (cm)=tabular").columns == ("größe (cm)",)
    with pytest.raises(MmfuseError, match="--modality 'my_text=text:my/text'"):
        parse_modality("my/text=text")


def test_files_that_are_no_tables_are_errors(folder):
    """Absent, of another kind, broken, empty, and a folder without samples."""
    assert "no such file" in refused(folder / "absent.csv")
    (folder / "a.ods").write_bytes(b"x")
    assert "a table ends in .csv" in refused(folder / "a.ods")
    (folder / "a.parquet").write_bytes(b"no parquet")
    assert "cannot be read as a table" in refused(folder / "a.parquet")
    (folder / "b.jsonl").write_text("{no json")
    assert "cannot be read as a table" in refused(folder / "b.jsonl")
    (folder / "c.csv").write_text("id,genre\n")
    assert "has no rows" in refused(folder / "c.csv")
    (folder / "empty").mkdir()
    assert "no class folders" in refused(folder / "empty", TableOptions())


def test_own_data_may_not_take_the_name_of_a_known_dataset(folder):
    """Features of movies under the name of the digits would be trained on as digits."""
    assert "a built-in dataset" in refused(folder / "films.csv", TableOptions(name="digits"))
    assert "a built-in dataset" in refused(folder / "films.csv", TableOptions(name="mug/mine"))


def test_names_of_columns_become_names_of_modalities(tmp_path):
    """In any script; those that differ only by a sign of the command line get a number."""
    rows = [f"the {row}th of many words" for row in range(40)]
    columns = {"图片": rows, "A note": rows[::-1], "a/b": rows[7:] + rows[:7], "a:b": rows}
    pl.DataFrame({**columns, "label": [0, 1] * 20}).write_csv(tmp_path / "a.csv")
    dataset = open_one(tmp_path / "a.csv", TableOptions())
    assert [modality.name for modality in dataset.modalities] == ["图片", "A note", "a_b", "a_b_2"]


def test_a_class_that_train_lacks_is_reported(folder):
    """Rows of a class first met in the test split are all lost; the user hears of it."""
    words = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    genre = ["drama", "noir"] * 25 + ["western"] * 10
    path = changed(folder, split=pl.Series(words), genre=pl.Series(genre))
    told = []
    open_one(path, note=told.append)
    assert "no train row has 1 of the classes of val or test, such as: western" in told


def test_classes_may_be_categorical(tmp_path):
    """Dictionary-encoded classes of Parquet are words like any other."""
    genre = films()["genre"].cast(pl.Categorical)
    films().select("id", "plot", genre).write_parquet(tmp_path / "a.parquet")
    assert open_one(tmp_path / "a.parquet").task.names == ("drama", "noir")


def test_shares_that_are_no_numbers_and_too_many_classes_are_errors(folder):
    """NaN is no share; a target with a class a row is named as the reason."""
    assert "three shares" in refused(
        folder / "films.csv", TableOptions(target="genre", split="nan/nan/nan")
    )
    lonely = TableOptions(target="plot")
    assert "each of the 60 classes goes to train" in refused(folder / "films.csv", lonely)


def test_a_file_whose_name_is_no_utf8_is_an_error(tmp_path):
    """Such a name fits in no table; the message shows it."""
    (tmp_path / "cats").mkdir()
    with open(os.fsencode(tmp_path / "cats") + b"/\xff.png", "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"x")
    assert "a name not in UTF-8" in refused(tmp_path, TableOptions())


def test_what_looks_like_another_target_or_split_is_left_out(folder):
    """A second label column would give the answer away, so it is never guessed a modality."""
    path = changed(folder, label=pl.col("genre"), split_old=pl.lit("train"))
    told = []
    dataset = open_one(path, note=told.append)
    assert not {"label", "split_old"} & set(dataset.table["table"].struct.fields)
    assert "guessed label: left out (it is named like a target)" in told


def test_notes_and_options_are_plain_data():
    """Options compare by value, so that a run can be recorded and repeated."""
    assert TableOptions((parse_modality("a=text"),)) == TableOptions((parse_modality("a=text"),))
    assert json.dumps(guesses.guess_modalities(films(), ["genre", "id"]).notes)
    assert tables.SHARES == "0.8/0.1/0.1"
