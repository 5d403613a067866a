"""A run predicts from the columns that it was trained on, whatever else has their names."""

import shutil

import polars as pl
import pytest

from cache.errors import MmfuseError
from cache.layout import Home
from pipelines.data.columns import parse_modality
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import build_encoder
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.predict import predict
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.training.train import train

ROWS = 90
OPTIONS = {"epochs": "30", "seeds": "0", "width": "16", "learning_rate": "1e-2"}


def words(row, turned):
    """A sentence that tells the class, or the other one."""
    return f"{('calm sea', 'loud street')[(row + turned) % 2]} number {row}"


def filled(folder, table, modalities=()):
    """A home with features of a table, and a run on them."""
    table.write_csv(folder / "t.csv")
    parts = tuple(map(parse_modality, modalities))
    (dataset,) = open_dataset(
        str(folder / "t.csv"), table=TableOptions(name="t", modalities=parts, target="mood")
    )
    home = Home(folder / "home")
    extract(dataset, [build_encoder("hashing")], home=home, options=ExtractOptions(workers=0))
    return home, train("concat", "t", home=home, options=OPTIONS)


def table_of(**columns):
    """Columns that tell the class or the other one, and the class."""
    made = {name: [words(row, turned) for row in range(ROWS)] for name, turned in columns.items()}
    return pl.DataFrame(made | {"mood": [("calm", "loud")[row % 2] for row in range(ROWS)]})


def answers(home, run, rows):
    """The most probable class of each row."""
    found = predict(home, run, rows)
    return [run.task.names[number] for number in found.outputs.argmax(1)], found


@pytest.mark.parametrize(
    ("columns", "modalities"),
    [
        ({"review": 0, "text": 1}, ["text=text:review"]),
        ({"a/b": 0, "a_b": 1}, ["a_b=text:a/b"]),
    ],
)
def test_the_column_of_training_goes_before_one_of_the_modality_s_name(
    tmp_path, columns, modalities
):
    """A column that only has the modality's name was there in training too, and was not it."""
    table = table_of(**columns)
    home, run = filled(tmp_path, table, modalities)
    given, found = answers(home, run, table.drop("mood").head(8))
    assert given == table["mood"].head(8).to_list()
    assert found.lacking == ()


def test_a_column_of_the_modality_s_name_is_taken_instead_and_told(tmp_path):
    """As rows of a data set have them; the reader is told, since it may be another thing."""
    table = table_of(review=0)
    home, run = filled(tmp_path, table, ["text=text:review"])
    rows = table.drop("mood").rename({"review": "text"}).head(8)
    given, found = answers(home, run, rows)
    assert given == table["mood"].head(8).to_list()
    assert "text is read from the column 'text'; in training it was review" in found.notes
    one = predict(home, run, {"text": rows["text"][1]})
    assert not any("is read from" in note for note in one.notes)


@pytest.mark.parametrize("names", [("group", "other"), ("x" * 90, "x" * 91), ("Vote!", "Vote?")])
def test_a_guessed_modality_that_had_to_be_renamed_is_found_again(tmp_path, names):
    """The columns that a guess was made of are recorded, as named ones are."""
    table = table_of(**dict.fromkeys(names, 0))
    home, run = filled(tmp_path, table)
    assert len(run.modalities) == 2
    given, found = answers(home, run, table.drop("mood").head(8))
    assert given == table["mood"].head(8).to_list()
    assert (found.lacking, found.unused) == ((), ())


def test_features_of_another_column_do_not_pass_for_those_of_an_older_run(tmp_path):
    """The rows are the same, what was encoded is not: eval refuses, predict goes by the run."""
    table = table_of(body=0, title=1)
    home, old = filled(tmp_path, table, ["words=text:body"])
    filled(tmp_path, table, ["words=text:title"])
    with pytest.raises(MmfuseError, match=r"hashing/words was made of changed since .*concat-t"):
        evaluate(home, old, [])
    given, _ = answers(home, old, table.drop("mood").head(8))
    assert given == table["mood"].head(8).to_list()
    home, again = filled(tmp_path, table, ["words=text:body"])
    assert (
        evaluate(home, old, []).rows[0].scores.metrics
        == evaluate(home, again, []).rows[0].scores.metrics
    )  # what it was made of is there again


def test_features_that_were_deleted_and_made_anew_are_those_of_the_new_run(tmp_path):
    """In one process, at one place, of the same rows: nothing is remembered of what was there."""
    table = table_of(body=0, title=1)
    home, old = filled(tmp_path, table, ["words=text:body"])
    shutil.rmtree(home.root / "features")
    home, new = filled(tmp_path, table, ["words=text:title"])
    assert evaluate(home, new, []).rows
    with pytest.raises(MmfuseError, match="was made of changed"):
        evaluate(home, old, [])
