"""Folders of tables: shards of a hub, the files of a competition, metadata beside media."""

import datetime

import datasets
import polars as pl
import pytest
from PIL import Image

from cache.errors import MmfuseError
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.media import cells


def rows(count, start=0):
    """Texts of two classes."""
    numbers = range(start, start + count)
    return pl.DataFrame(
        {"text": [f"a text of {n} words" for n in numbers], "label": ["ab"[n % 2] for n in numbers]}
    )


def opened(folder, **options):
    """The dataset and what was told."""
    notes = []
    (found,) = open_dataset(str(folder), table=TableOptions(**options), note=notes.append)
    return found, notes


def sizes(dataset):
    """Rows by split."""
    return dict(dataset.table["split"].value_counts().iter_rows())


def test_shards_are_one_table_with_the_splits_of_their_names(tmp_path):
    """As `datasets` uploads them: numbered Parquet files in a folder `data`, beside a card."""
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("a card")
    for name, start, count in (
        ("train-00000-of-00002", 0, 20), ("train-00001-of-00002", 20, 20),
        ("validation-00000-of-00001", 40, 8), ("test-00000-of-00001", 48, 12),
    ):  # fmt: skip
        rows(count, start).write_parquet(tmp_path / "data" / f"{name}.parquet")
    found, notes = opened(tmp_path)
    assert sizes(found) == {"train": 40, "val": 8, "test": 12}
    assert any("read data/test-00000-of-00001.parquet" in note for note in notes)


@pytest.mark.parametrize("place", ["{split}.csv", "{split}/0000.csv", "default/{split}/0.csv"])
def test_a_split_is_named_by_the_file_or_its_folder(tmp_path, place):
    """`dev` is val; without any validation file its rows are taken from train."""
    for split, start, count in (("train", 0, 40), ("test", 40, 12)):
        path = tmp_path / place.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows(count, start).write_csv(path)
    assert sizes(opened(tmp_path)[0]) == {"train": 36, "val": 4, "test": 12}
    path = tmp_path / place.format(split="dev")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows(8, 60).write_csv(path)
    assert sizes(opened(tmp_path)[0]) == {"train": 40, "val": 8, "test": 12}


def test_a_test_file_without_targets_is_no_test_split(tmp_path):
    """A competition's: labelled rows are split anew, the others may still get features."""
    rows(50).write_csv(tmp_path / "train.csv")
    rows(10, 50).drop("label").write_csv(tmp_path / "test.csv")
    rows(10, 50).write_csv(tmp_path / "sample_submission.csv")
    found, notes = opened(tmp_path)
    assert sizes(found) == {"train": 40, "val": 5, "test": 5}
    assert any("no test rows with a target" in note for note in notes)
    assert any("10 of 60 rows have no 'label'" in note for note in notes)
    assert any("left out sample_submission.csv" in note for note in notes)
    kept, _ = opened(tmp_path, keep_unlabelled=True)
    assert sizes(kept) == {"train": 40, "val": 5, "test": 5, "": 10}


def test_hidden_test_labels_of_a_hub_are_no_labels(tmp_path):
    """Class -1 in the test shard stands for a label that is kept back."""
    names = datasets.ClassLabel(names=["neg", "pos"])
    for split, labels in (("train", [0, 1] * 20), ("validation", [0, 1] * 4), ("test", [-1] * 9)):
        made = datasets.Dataset.from_dict(
            {"text": [f"{split} text {n}" for n in range(len(labels))], "label": labels}
        )
        made.cast_column("label", names).to_parquet(tmp_path / f"{split}-0.parquet")
    found, _ = opened(tmp_path)
    assert found.task.names == ("neg", "pos")
    assert sizes(found) == {"train": 38, "val": 5, "test": 5}


def test_metadata_names_the_media_beside_it(tmp_path):
    """`train/metadata.csv` with a column file_name, as the hub's image folders have it."""
    for split, count in (("train", 20), ("test", 6)):
        folder = tmp_path / split
        folder.mkdir()
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 9 * (split == "test"))).save(
                folder / f"{number}.png"
            )
        names = [f"{number}.png" for number in range(count)]
        labels = ["ab"[number % 2] for number in range(count)]
        pl.DataFrame({"file_name": names, "label": labels}).write_csv(folder / "metadata.csv")
    found, _ = opened(tmp_path)
    assert sizes(found) == {"train": 18, "val": 2, "test": 6}
    test = found.table.filter(pl.col("split") == "test")["file_name"]
    seen = [cells.read("image", cell, found.root).getpixel((0, 0)) for cell in test]
    assert seen == [(number, 0, 9) for number in range(6)]


def test_tables_of_two_datasets_are_refused(tmp_path):
    """Two configurations of a hub's dataset are two datasets."""
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()
        rows(40).write_csv(tmp_path / name / "train.csv")
    with pytest.raises(MmfuseError, match="several datasets, in other, plain"):
        opened(tmp_path)


def test_a_table_in_a_folder_that_is_no_dataset_is_named(tmp_path):
    """A folder of posters beside a table is no class."""
    (tmp_path / "posters").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "posters" / "0.png")
    rows(40).write_csv(tmp_path / "films.csv")
    with pytest.raises(MmfuseError, match=r"one class folder only, posters; .*films\.csv"):
        opened(tmp_path)


def test_numbered_parts_are_one_table(tmp_path):
    """As Spark and exports of databases write them; files of other names are not joined."""
    for number in range(3):
        rows(20, 20 * number).write_csv(tmp_path / f"export_{number:03}.csv")
    dataset, _ = opened(tmp_path, target="label")
    assert len(dataset.table) == 60
    spark = tmp_path / "spark"
    spark.mkdir()
    for number in range(2):
        name = f"part-0000{number}-0b4c9f2e-91f1-4f0a-8d6e-1d2f3a4b5c6d-c000.snappy.parquet"
        rows(30, 30 * number).write_parquet(spark / name)
    assert len(opened(spark, target="label")[0].table) == 60


def test_a_column_that_a_file_spells_otherwise_or_lacks_is_told(tmp_path):
    """The train file's spelling goes; rows of a file without the column lack its cells."""
    rows(40).with_columns(Age=pl.int_range(40)).write_csv(tmp_path / "train.csv")
    rows(10, 40).with_columns(AGE=pl.int_range(10)).write_csv(tmp_path / "val.csv")
    rows(10, 50).write_csv(tmp_path / "test.csv")
    dataset, notes = opened(tmp_path, target="label")
    assert dataset.columns["table"] == ("Age",)
    assert dataset.table["table"].struct.field("Age").null_count() == 10
    assert "column 'AGE' of another file is 'Age'" in notes
    assert "column 'Age' is not in every file: missing in 10 of 60 rows" in notes


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_cells_keep_their_type_where_files_differ(tmp_path, suffix):
    """Booleans in one file and numbers in another are words, as beside each other in one file."""
    kept = rows(40).with_columns(paid=pl.Series([n % 2 == 0 for n in range(40)]))
    other = rows(20, 40).with_columns(paid=pl.Series([n % 3 for n in range(20)]))
    for name, frame in (("train", kept), ("test", other)):
        path = tmp_path / f"{name}.{suffix}"
        frame.write_parquet(path) if suffix == "parquet" else frame.write_ndjson(path)
    dataset, _ = opened(tmp_path, target="label")
    cells_ = dataset.table["table"].struct.field("paid")
    assert set(cells_.unique()) == {"true", "false", "0", "1", "2"}


def test_dates_in_one_file_and_durations_in_another_are_read(tmp_path):
    """As columns of cells of several types, not as an error of the library that joins them."""
    day, span = datetime.date(2024, 3, 1), datetime.timedelta(seconds=5)
    rows(40).with_columns(when=pl.lit(day)).write_parquet(tmp_path / "train.parquet")
    rows(20, 40).with_columns(when=pl.lit(span)).write_parquet(tmp_path / "test.parquet")
    dataset, _ = opened(tmp_path, target="label")
    assert len(dataset.table) == 60
