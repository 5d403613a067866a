"""Folders of files as people have them: what is used, what is left out, and what is said."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from cache.errors import MmfuseError
from cache.samples import Modality, Samples, Task
from pipelines.audit.label_checks import label_in_files, label_in_ids
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.media import cells


def photo(path, colour):
    """A small JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "JPEG")
    path.write_bytes(data.getvalue())


@pytest.fixture
def tree(tmp_path):
    """`train/` and `test/` with two classes of photos, and files that are none of them."""
    for split, count in (("train", 30), ("test", 10)):
        for number in range(count):
            for label, colour in (("cat", (200, 0, number)), ("dog", (0, 200, number))):
                photo(tmp_path / "tree" / split / label / f"{number}.jpg", colour)
    top = tmp_path / "tree"
    (top / "train" / "notes.txt").write_text("x")
    (top / "train" / "cat" / "raw.cr2").write_bytes(b"x")
    (top / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    photo(top / "train" / "loose.jpg", (1, 2, 3))
    return top


def opened(path):
    """The dataset of a path, and what was said about it."""
    notes = []
    (dataset,) = open_dataset(str(path), table=TableOptions(name="tree"), note=notes.append)
    return dataset, notes


def test_without_a_val_folder_val_is_taken_from_train_and_never_from_test(tree):
    """Ten in a hundred of each class of the train rows; the test rows are those of `test/`."""
    dataset, notes = opened(tree)
    table = dataset.table
    val, test = (table.filter(pl.col("split") == split) for split in ("val", "test"))
    assert (len(val), len(test)) == (6, 20)
    assert val["target"].value_counts()["count"].to_list() == [3, 3]
    assert val["id"].str.starts_with("train/").all()
    assert test["id"].str.starts_with("test/").all()
    assert any(
        note.startswith("no val rows: 6 of 60 train rows are taken as val") for note in notes
    )
    assert opened(tree)[0].table.equals(table)


def test_a_table_without_val_rows_takes_them_from_train(tmp_path):
    """A split column of train and test words, with groups kept whole."""
    rows = [
        f"s{n},word {n} here,{'ab'[n % 2]},{'train' if n < 48 else 'test'},g{n // 4}"
        for n in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id,words,label,split,family", *rows]) + "\n")
    options = TableOptions(name="t", group="family")
    (dataset,) = open_dataset(str(tmp_path / "t.csv"), table=options)
    splits = {g: set(part["split"]) for (g,), part in dataset.table.group_by("group")}
    assert all(len(found) == 1 for found in splits.values())
    assert (dataset.table["split"] == "test").sum() == 12
    assert 4 <= (dataset.table["split"] == "val").sum() <= 8


def test_without_test_rows_the_split_is_refused(tmp_path):
    """Which rows are to be scored is not for us to choose."""
    rows = [f"s{n},word {n} here,{'ab'[n % 2]},{'train' if n < 48 else 'val'}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["id,words,label,split", *rows]) + "\n")
    with pytest.raises(MmfuseError, match="the test split is empty"):
        opened(tmp_path / "t.csv")


def test_files_that_are_left_out_are_counted_by_ending(tree):
    """Unknown endings, files outside class folders and hidden ones: each with its number."""
    _, notes = opened(tree)
    (note,) = [note for note in notes if note.startswith("left out")]
    assert note.startswith("left out 4 files: ")
    for part in (
        "1 .txt (no known kind)",
        "1 .cr2 (no known kind)",
        "1 hidden",
        "outside any class",
    ):
        assert part in note


def test_classes_named_in_ids_are_suspect():
    """File names that hold their class are no features; the audit says so for any size of data."""
    ids = np.array([f"{'cat' if n % 2 else 'dog'}/{n}" for n in range(12)], object)
    splits = np.array((["train"] * 6 + ["val"] * 3 + ["test"] * 3), object)
    task = Task("classes", ("cat", "dog"))
    targets = np.array([1 - n % 2 for n in range(12)])
    samples = Samples(ids, splits, targets, None, task, (Modality("image", "image"),), "real")
    found = label_in_ids(samples)
    assert (found.check, found.verdict) == ("label-in-ids", "suspect")
    assert "never use ids or paths as features" in found.sentence
    numbered = replace(samples, ids=np.array([f"row{n}" for n in range(12)], object))
    assert label_in_ids(numbered).verdict == "clear"


@pytest.mark.parametrize("by_split", [False, True])
def test_a_folder_a_class_is_a_dataset(tmp_path, by_split):
    """Classes are the folders' names; an image and an audio clip of one stem are one sample."""
    for split in ("train", "val", "test") if by_split else ("",):
        for name in ("cat", "dog"):
            place = tmp_path / "pets" / split / name
            place.mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (3, 3)).save(place / f"{number}.png")
                if number:
                    soundfile.write(place / f"{number}.wav", np.ones(50) / 2, 8000)
            (place / "notes.txt").write_text("not a sample")
    dataset = opened(tmp_path / "pets")[0]
    assert dataset.task.names == ("cat", "dog")
    assert dataset.modalities == (Modality("image", "image"), Modality("audio", "audio"))
    assert len(dataset.table) == 20 * (3 if by_split else 1)
    assert dataset.table["audio"].null_count() == len(dataset.table) // 10
    first = dataset.table["id"][0]
    assert first == ("test/cat/0" if by_split else "cat/0")
    if by_split:
        assert dataset.table["split"][0] == "test"
    for modality in dataset.modalities:
        cell = dataset.table[modality.name].drop_nulls()[0]
        assert cells.read(modality.kind, cell, dataset.root) is not None


def test_a_class_named_train_beside_others_is_a_class(tmp_path):
    """Only folders that are all split words are splits: vehicles may be trains."""
    for name in ("train", "car"):
        (tmp_path / "v" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (3, 3)).save(tmp_path / "v" / name / f"{number}.png")
    assert opened(tmp_path / "v")[0].task.names == ("car", "train")


@pytest.mark.parametrize("by_split", [False, True])
def test_a_class_folder_without_files_is_reported(tmp_path, by_split):
    """It is no class that can be learned; that it was left out is said by name."""
    for number in range(30):
        place = ("train", "val", "test")[number % 3] if by_split else ""
        target = tmp_path / "pets" / place / ("cats", "dogs")[number // 3 % 2] / f"{number}.jpg"
        photo(target, (number, 0, 0))
    (tmp_path / "pets" / ("train" if by_split else "") / "birds").mkdir()
    (tmp_path / "pets" / ("test" if by_split else "") / ".hidden").mkdir()
    dataset, told = opened(tmp_path / "pets")
    assert dataset.task.names == ("cats", "dogs")
    assert "left out 1 folders without a file that can be read, such as: birds" in told


def pets(folder, *places):
    """Thirty photos in each of the folders."""
    for place in places:
        for number in range(30):
            photo(folder / place / f"{number}.jpg", (number, 0, len(place)))
    return folder


@pytest.mark.parametrize(
    "beside",
    ["empty", "unlabeled", "__MACOSX/train/cat", ".ipynb_checkpoints", "@eaDir", "lost+found"],
)
@pytest.mark.parametrize("names", [("train", "test"), ("seg_train", "seg_test")])
def test_folders_beside_the_splits_are_no_classes(tmp_path, beside, names):
    """What a system or a hub adds, unlabelled photos, and splits with a longer name."""
    top = pets(tmp_path / "p", *(f"{split}/{label}" for split in names for label in ("cat", "dog")))
    if beside == "empty":
        (top / beside).mkdir()
    else:
        photo(top / beside / "1.jpg", (1, 2, 3))
    dataset, notes = opened(top)
    assert dataset.task.names == ("cat", "dog")
    assert len(dataset.table) == 120
    assert (dataset.table["split"] == "test").sum() == 60
    if beside == "unlabeled":
        assert any("in unlabeled, beside the splits" in note for note in notes)
    if names[0] != "train":
        assert "folders by split: seg_test is test, seg_train is train" in notes


def test_hidden_folders_hold_no_samples_and_inner_folders_are_told(tmp_path):
    """A preview is no photo; that the first folder is the label is said with an example."""
    top = pets(tmp_path / "p", "2023/cats", "2024/dogs", "2024/.thumbs")
    dataset, notes = opened(top)
    assert dataset.task.names == ("2023", "2024")
    assert len(dataset.table) == 60
    assert any("30 hidden" in note for note in notes)
    assert any(
        "60 of 60 samples lie in folders below that of their class, such as 2023/cats/0; "
        "the first folder is the label" in note
        for note in notes
    )


def test_links_to_folders_are_followed_and_broken_ones_are_told(tmp_path):
    """A class may lie elsewhere; a link to a folder above does not go round for ever."""
    top = pets(tmp_path / "p", "cats", "dogs")
    pets(tmp_path / "elsewhere", "birds")
    (top / "birds").symlink_to(tmp_path / "elsewhere" / "birds")
    (top / "dogs" / "up").symlink_to(top)
    (top / "dogs" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    dataset, notes = opened(top)
    assert dataset.task.names == ("birds", "cats", "dogs")
    assert len(dataset.table) == 90
    assert "left out 1 files: 1 broken link" in notes
    assert cells.raw("image", dataset.table["image"][0], dataset.root)


@pytest.mark.parametrize("names", ["tree/{}.png", "flat/tree_{}.png", "flat/tree{}.png"])
def test_files_named_as_their_class_are_suspect(names):
    """Their names are no features; folders of numbers count where they are the class."""
    paths = [names.format(n).replace("tree", ("tree", "rock")[n % 2]) for n in range(12)]
    splits = np.array((["train"] * 6 + ["val"] * 3 + ["test"] * 3), object)
    targets = np.array([n % 2 for n in range(12)])
    ids = np.array([f"row{n}" for n in range(12)], object)
    task = Task("classes", ("tree", "rock"))
    samples = Samples(ids, splits, targets, None, task, (Modality("photo", "image"),), "real")
    found = label_in_files("photo", paths, samples)
    assert (found.check, found.about, found.verdict) == ("label-in-files", "photo", "suspect")
    assert label_in_files("photo", [f"img/{n}.png" for n in range(12)], samples).verdict == "clear"
    digits = replace(samples, task=Task("classes", ("0", "1")))
    assert (
        label_in_files("photo", [f"{n % 2}/{n}.png" for n in range(12)], digits).verdict
        == "suspect"
    )


def test_two_pictures_of_one_stem_are_two_samples(tmp_path):
    """Converted copies, or numbers that two cameras gave: neither refuses the folder."""
    for number in range(12):
        for label in ("cat", "dog"):
            photo(tmp_path / label / f"{number}.jpg", (number, 0, 0))
    photo(tmp_path / "cat" / "3.png", (0, 9, 0))
    (dataset,) = open_dataset(str(tmp_path))
    assert len(dataset.table) == 25
    rows = dict(dataset.table.select("id", "image").iter_rows())
    assert rows["cat/3"] == "cat/3.jpg"
    assert rows["cat/3.png"] == "cat/3.png"
