"""`predict` reads each cell as training did: no other cell of the new table matters."""

import random

import polars as pl
import pytest

from cache.layout import Home
from pipelines.data.tables import TableOptions, load
from pipelines.encoding.encoder import build_encoder
from pipelines.evaluation.predict import predict
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.training.train import train

COLUMNS = {
    "weight": lambda row: f"{row % 17},{row % 10}5",
    "ward": lambda row: "123A"[row % 4],
    "since": lambda row: f"{row % 28 + 1:02}.03.20{row % 20:02}",
    "smokes": lambda row: ("true", "false")[row % 2],
}
ROWS = [
    {"weight": "3,5", "ward": "1", "since": "04.05.2011", "smokes": "true"},
    {"weight": "3.5", "ward": "1.0", "since": "2011-05-04", "smokes": "TRUE"},
    {"weight": "n/a", "ward": "A", "since": "never", "smokes": "false"},
    {"weight": "", "ward": "B", "since": "", "smokes": ""},
    {"weight": "1.234,5", "ward": "2", "since": "31.02.2011", "smokes": "unknown"},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a table of numbers, wards, dates and booleans as a German spreadsheet has them."""
    folder = tmp_path_factory.mktemp("cells")
    lines = [";".join(["id", *COLUMNS, "label"])]
    for row in range(120):
        label = "ab"[(row % 4 in (0, 3)) ^ (row % 2)]
        lines.append(";".join([f"s{row}", *(make(row) for make in COLUMNS.values()), label]))
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    home, options = Home(folder / "home"), TableOptions(name="t")
    dataset = load(folder / "t.csv", options)
    extract(dataset, [build_encoder("tabular")], home=home, options=ExtractOptions(workers=0))
    words = {"epochs": "3", "seeds": "0", "width": "8", "learning_rate": "1e-2"}
    return home, train("concat", "t", home=home, options=words)


def outputs(trained, rows):
    """Probabilities of new rows, as words of a CSV."""
    home, run = trained
    frame = pl.DataFrame({name: [row[name] for row in rows] for name in COLUMNS})
    frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
    return predict(home, run, frame)


@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_answered_the_same_in_any_table(trained, seed):
    """Alone, first, last, beside rows of nonsense: the same probabilities."""
    chance = random.Random(seed)
    alone = [outputs(trained, [row]).outputs[0] for row in ROWS if any(row.values())]
    order = chance.sample(range(len(ROWS)), len(ROWS))
    together = outputs(trained, [ROWS[place] for place in order]).outputs
    for place, row in enumerate(order):
        assert together[place] == pytest.approx(alone[row], abs=1e-6)


def test_what_does_not_fit_is_missing_and_reported(trained):
    """Cells of another format, words never seen: counted, with the first of them and its row."""
    notes = outputs(trained, ROWS).notes
    assert any(
        "column weight is read as numbers" in note and "2 of 5 cells" in note for note in notes
    )
    assert any("column since" in note and "row-2" in note for note in notes)  # ISO form is read
    assert any(
        "column ward: 2 of 5 cells hold a word" in note and "'1.0'" in note for note in notes
    )


def test_values_of_json_are_the_words_of_csv(trained):
    """A boolean is `true`, and a number is a number without any mark."""
    home, run = trained
    typed = pl.DataFrame({"weight": [3.5], "ward": [1], "smokes": [True]})
    words = pl.DataFrame({"weight": ["3,5"], "ward": ["1"], "smokes": ["true"]})
    found = [predict(home, run, each).outputs.tolist() for each in (typed, words)]
    assert found[0] == found[1]
