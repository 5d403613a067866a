"""MuG's layout: tasks by name, columns by what is in them, images zipped or not."""

import io
import json
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cache.errors import MmfuseError
from cache.samples import Modality
from pipelines.data import sources
from pipelines.data.tables import TableOptions
from pipelines.datasets import mug
from pipelines.media import cells as reading

ROWS = [
    # name, generation, weight, colour, story, secondary
    ("bulb", 1, "6.9", "green", "a seed on its back grows", "Poison"),
    ("char", 1, "", "red", "its tail burns all day", "None"),
    ("squirt", 1, "9", "blue", "it hides in its shell", "None"),
    ("cater", 2, "2.9", "", "it eats leaves all night", "Poison"),
    ("weed", 2, "3.2", "brown", "", "Poison"),
    ("pidge", 2, "1.8", "brown", "it flies over the woods", "None"),
]


def png(number):
    """A small image that differs by number."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 10 * number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make(folder, *, zipped=True, info=None, rows=ROWS):
    """A task's folder: every row in all three files, numbered apart."""
    folder.mkdir(parents=True)
    (folder / "info.json").write_text(json.dumps({"label": "secondary"} | (info or {})))
    for part, word in enumerate(("train", "dev", "test")):
        lines, pictures = ["name,generation,weight,colour,story,Image Path,secondary"], {}
        for number, (name, *rest, label) in enumerate(rows):
            path = f"{word}_images/{name}.png"
            pictures[path] = png(number + part)
            lines.append(",".join(map(str, (f"{name}{part}", *rest, path, label))))
        (folder / f"{word}.csv").write_text("\n".join(lines) + "\n")
        if zipped:
            with zipfile.ZipFile(folder / f"{word}_images.zip", "w") as archive:
                for path, data in pictures.items():
                    archive.writestr(path, data)
        else:
            (folder / f"{word}_images").mkdir()
            for path, data in pictures.items():
                (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def root(tmp_path):
    """A data folder with one of MuG's own tasks and one of somebody else."""
    make(tmp_path / "mug" / "Pokemon-secondary_type")
    make(tmp_path / "mug" / "extra" / "My-task", zipped=False)
    return tmp_path


def test_the_group_holds_every_task_found_one_folder_deeper_too(root):
    """`mug` is all tasks, the paper's by their short names."""
    names = [dataset.name for dataset in sources.open_dataset("mug", roots=[root])]
    assert names == ["mug/pkm_t2", "mug/My-task"]


@pytest.mark.parametrize("word", ["pkm_t2", "Pokemon-secondary_type", "pokemon-SECONDARY_type"])
def test_a_task_is_found_by_either_name(root, word):
    """Folder's name and short name mean the same task and the same store."""
    (dataset,) = sources.open_dataset(f"mug/{word}", roots=[root])
    assert dataset.name == "mug/pkm_t2"


def test_the_eight_tasks_of_the_paper_have_short_names():
    """Eight folders, eight different short names."""
    assert len(set(mug.SHORT.values())) == len(mug.SHORT) == 8


def test_the_word_none_is_a_class_and_empty_cells_are_missing(root):
    """`None` is a label; nothing in a cell is null."""
    (dataset,) = sources.open_dataset("mug/pkm_t2", roots=[root])
    assert dataset.task.names == ("None", "Poison")
    assert dataset.table["target"].head(3).to_list() == [1, 0, 0]
    record = dataset.table["table"]
    assert record[1] == {"generation": 1.0, "weight": None, "colour": "red"}
    assert record[3] == {"generation": 2.0, "weight": 2.9, "colour": None}


def test_text_is_the_textual_and_categorical_cells_in_column_order(root):
    """Joined by spaces, missing ones skipped, numbers and the label left out."""
    (dataset,) = sources.open_dataset("mug/pkm_t2", roots=[root])
    assert dataset.table["text"].head(5).to_list() == [
        "bulb0 green a seed on its back grows", "char0 red its tail burns all day",
        "squirt0 blue it hides in its shell", "cater0 it eats leaves all night", "weed0 brown",
    ]  # fmt: skip


def test_dev_is_val_and_ids_are_numbered_where_no_column_serves(root):
    """Rows keep the files' order; their ids say the file and the place."""
    (dataset,) = sources.open_dataset("mug/pkm_t2", roots=[root])
    assert dataset.table["split"].to_list() == ["train"] * 6 + ["val"] * 6 + ["test"] * 6
    assert dataset.table["id"].gather([0, 6, 17]).to_list() == [
        "train-00000", "dev-00000", "test-00005",
    ]  # fmt: skip


def test_pictures_are_read_in_their_zip_and_beside_it(root):
    """The same cells, zipped or not, give the same images."""
    zipped, loose = sources.open_dataset("mug", roots=[root])
    for cell in zipped.table["image"]:
        one = reading.read("image", cell, zipped.root)
        assert np.array_equal(one, reading.read("image", cell, loose.root))


def test_named_columns_are_taken_as_named(tmp_path):
    """With lists in info.json nothing is guessed and what they leave out is left out."""
    info = {
        "text_cols": ["story"],
        "categorical_cols": ["generation"],
        "numerical_cols": ["weight"],
        "id_col": "name",
        "classes": ["Poison", "None", "Fire"],
    }
    dataset = mug.read(make(tmp_path / "t", info=info), "t")
    assert dataset.table["table"][0] == {"generation": "1", "weight": 6.9}
    assert dataset.table["text"][0] == "1 a seed on its back grows"
    assert dataset.table["id"][0] == "bulb0"
    assert dataset.task.names == ("Poison", "None", "Fire")


def test_words_in_a_column_called_numeric_are_an_error(tmp_path):
    """A number that is none is said, not silently missing."""
    folder = make(tmp_path / "t", info={"numerical_cols": ["colour"]})
    with pytest.raises(MmfuseError, match="'colour' is listed as numeric but holds 'green'"):
        mug.read(folder, "t")


def test_a_folder_in_this_layout_opens_by_its_path(root):
    """`--dataset FOLDER` recognises the layout and names the store after the path."""
    folder = root / "mug" / "extra" / "My-task"
    (dataset,) = sources.open_dataset(str(folder))
    assert dataset.name.startswith("My-task-")
    assert dataset.modalities[-1] == Modality("table", "tabular")


def test_splits_beside_the_task_bring_groups_and_other_splits(tmp_path):
    """splits.csv fills `group`, and `--split` chooses one of its columns."""
    folder = make(tmp_path / "mug" / "T", info={"id_col": "name"})
    ids = mug.read(folder, "t").table["id"]
    words = ["train", "train", "train", "dev", "test", "train"] * 3
    pl.DataFrame({"id": ids, "group": ids.str.head(4), "family": words}).write_csv(
        folder.parent / "splits.csv"
    )
    options = TableOptions(split="family")
    (dataset,) = sources.open_dataset("mug/T", roots=[tmp_path], table=options)
    assert (
        dataset.table["split"].to_list() == ["train", "train", "train", "val", "test", "train"] * 3
    )
    assert dataset.table["group"][0] == "bulb"
    with pytest.raises(MmfuseError, match="did you mean family"):
        sources.open_dataset("mug/T", roots=[tmp_path], table=TableOptions(split="famly"))


def test_faults_of_a_folder_are_named(tmp_path, root):
    """A missing file, a missing label, no JSON, an unknown task, a task still zipped."""
    folder = make(tmp_path / "a")
    (folder / "dev.csv").unlink()
    with pytest.raises(MmfuseError, match=r"lacks dev\.csv"):
        mug.read(folder, "a")
    with pytest.raises(MmfuseError, match="no column for the label 'type'"):
        mug.read(make(tmp_path / "b", info={"label": "type"}), "b")
    (folder / "info.json").write_text("{")
    with pytest.raises(MmfuseError, match="is not JSON"):
        mug.read(folder, "a")
    with pytest.raises(MmfuseError, match="did you mean pkm_t2"):
        sources.open_dataset("mug/pkm_t9", roots=[root])
    (root / "mug" / "CSGO-Skin-quality.zip").write_bytes(b"")
    with pytest.raises(MmfuseError, match=r"unzip CSGO-Skin-quality\.zip"):
        sources.open_dataset("mug/csgo_sq", roots=[root])


def test_monsters_are_read_as_their_pack_says(pack):
    """506/32/94 rows, six and three classes, image, text and table, families disjoint."""
    holiness, intelligence = mug.build(pack("monsters"))
    for dataset, classes in ((holiness, 6), (intelligence, 3)):
        assert dataset.task.outputs == classes
        counts = dict(dataset.table["split"].value_counts().iter_rows())
        assert counts == {"train": 506, "val": 32, "test": 94}
        assert [m.name for m in dataset.modalities] == ["image", "text", "table"]
    (family,) = mug.build(pack("monsters"), task="Monster-holiness", split="group_split")
    assert family.table.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1


def test_the_pack_reads_nearly_alike_without_its_lists_of_columns(pack, tmp_path):
    """Told nothing but the label, the rule finds the same numbers and the same long texts."""
    folder = pack("monsters") / "Monster-holiness"
    bare = tmp_path / "bare"
    bare.mkdir()
    info = json.loads((folder / "info.json").read_text())
    (bare / "info.json").write_text(json.dumps({"label": "holiness"}))
    for word in ("train", "dev", "test"):
        (bare / f"{word}.csv").write_bytes((folder / f"{word}.csv").read_bytes())
    named, guessed = mug.read(folder, "a"), mug.read(bare, "b")
    assert guessed.table["id"].equals(named.table["id"])
    fields = set(guessed.table["table"].struct.fields)
    constant = {"res_miasma", "res_steam"} - fields  # one value only, perhaps
    assert fields == {*info["numerical_cols"], *info["categorical_cols"]} - constant
    assert guessed.table["text"].equals(named.table["text"])


def test_new_rows_of_a_task_read_as_its_own_rows_do(root):
    """Rows in the columns of the task's files get the cells that its dataset has for them."""
    folder = mug.tasks(root / "mug")["pkm_t2"]
    cells = mug.read(folder, "mug/pkm_t2").table.filter(pl.col("split") == "test")
    rows = pl.read_csv(folder / "test.csv", infer_schema=False).with_columns(note=pl.lit("mine"))
    found = sources.new_rows(rows, "mug/pkm_t2", roots=[root])
    for modality in ("image", "text", "table"):
        assert found[modality].to_list() == cells[modality].to_list()
    assert set(found.columns) == {"image", "text", "table", "secondary", "note"}
    few = sources.new_rows(rows.select("story"), "mug/pkm_t2", roots=[root])
    assert few.columns == ["text"]
    assert few["text"][0] == "a seed on its back grows"


def test_rows_that_are_modalities_already_stay_as_they_are(root):
    """Columns named as the modalities are left alone, with the task's data there or not."""
    rows = pl.DataFrame({"text": ["a seed"], "image": ["a.png"]})
    for roots in ([root], []):
        assert sources.new_rows(rows, "mug/pkm_t2", roots=roots).equals(rows)


@pytest.mark.parametrize("word", ["emoji", "mine/emoji"])
def test_a_folder_below_a_data_root_is_named_by_its_path(tmp_path, word):
    """A word that is no dataset but a folder there is answered with the path to say."""
    folder = make(tmp_path / "data" / word)
    with pytest.raises(MmfuseError, match=f"say its path: --dataset {folder}$"):
        sources.open_dataset(word, roots=[tmp_path / "nowhere", tmp_path / "data"])
    (dataset,) = sources.open_dataset(str(folder), roots=[tmp_path / "data"])
    assert dataset.name.startswith("emoji-")
