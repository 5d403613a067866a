"""mmfuse.fit on data frames: what the three commands do, in one call."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image

import mmfuse
from pipelines.data.tables import TableOptions

COUNT = 60
QUICK = {"epochs": 3, "seeds": (0, 1)}


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """Columns of films, and the folder that their posters are in."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(0)
    for row in range(COUNT):
        level = 40 + 150 * (row % 2) + int(random.integers(20))
        Image.new("RGB", (8, 8), (level, 0, 0)).save(folder / f"{row}.png")
    found = {
        "id": list(range(COUNT)),
        "poster": [f"{row}.png" for row in range(COUNT)],
        "plot": [f"somebody {('weeps', 'laughs')[row % 2]} {row} times" for row in range(COUNT)],
        "year": [1950.5 + row for row in range(COUNT)],
        "seen": [datetime.date(2020, 1, 1 + row % 28) for row in range(COUNT)],
        "genre": [("drama", "comedy")[row % 2] for row in range(COUNT)],
    }
    found["plot"][7] = found["year"][9] = None
    return found, folder


@pytest.fixture(scope="module")
def model(columns, tmp_path_factory):
    """A model of all of them."""
    data, folder = columns
    home = tmp_path_factory.mktemp("home")
    return mmfuse.fit(pl.DataFrame(data), "genre", home=home, root=folder, options=QUICK)


def test_the_verbs_of_a_model_are_those_of_the_command_line(model, columns, tmp_path):
    """Predictions by id, scores with each modality hidden, and a page."""
    data, _ = columns
    assert set(model.run.modalities) == {"poster", "plot", "table"}
    found = model.predict(pl.DataFrame(data).drop("genre"))
    assert found.ids == tuple(map(str, range(COUNT)))
    right = np.mean([a == b for a, b in zip(found.answers(), data["genre"], strict=True)])
    assert right > 0.9
    each = [row.scores.pattern for row in model.evaluate().rows]
    assert each == ["complete", "without plot", "without poster", "without table"]
    assert [row.scores.pattern for row in model.evaluate("plot,poster").rows][1:] == [
        "without plot+poster"
    ]
    page = model.report(tmp_path / "page.html")
    assert model.run.id in page.read_text(encoding="utf-8")
    assert f"concat on {model.run.dataset}" in repr(model)
    assert model.table().to_polars()["label"].to_list() == ["concat", "logistic", "majority"]
    assert model._repr_html_().startswith("<")


def test_absent_modalities_may_be_left_out_or_empty(model):
    """One row alone, one column alone."""
    found = model.predict({"plot": ["somebody laughs 3 times"], "poster": [None]})
    (answer,) = found.answers()
    assert answer == "comedy"
    assert found.lacking == ("table",)


@pytest.mark.parametrize("kind", ["pandas", "dict", "file"])
def test_any_form_of_the_same_data_has_the_same_features(columns, model, tmp_path, kind):
    """Nothing is encoded again, and scores are the same: missing cells are missing in each."""
    data, folder = columns
    if kind == "file":
        given = tmp_path / "films.parquet"
        pl.DataFrame(data).write_parquet(given)
    else:
        given = pd.DataFrame(data) if kind == "pandas" else data
    again = mmfuse.fit(given, "genre", home=model.home, root=folder, options=QUICK)
    first, second = model.run.scores[0], again.run.scores[0]
    assert {k: tuple(v) for k, v in first.metrics.items()} == {
        k: tuple(v) for k, v in second.metrics.items()
    }
    store = mmfuse.FeatureStore(model.home, again.run.dataset)
    present = {info.key.modality: info.counts["ok"] for info in store.streams()}
    assert present == {"poster": COUNT, "plot": COUNT - 1, "table": COUNT}


def test_the_notes_say_what_was_guessed_and_what_failed(columns, tmp_path):
    """A poster that is no picture costs its cell, and is counted."""
    data, folder = columns
    posters = [str(folder / name) for name in data["poster"]]
    (tmp_path / "bad.png").write_text("no picture")
    posters[3] = str(tmp_path / "bad.png")
    found = mmfuse.fit({**data, "poster": posters}, "genre", home=tmp_path, root="/", options=QUICK)
    assert "guessed poster: image" in " ".join(found.notes)
    assert "pixels/poster: 1 of 60 rows failed: 1 wrong-type" in found.notes


def test_modalities_encoders_and_table_options_are_those_of_the_command_line(columns, tmp_path):
    """Two tables by the same encoder, a group, a name of its own."""
    data, _ = columns
    found = mmfuse.fit(
        {**data, "who": [row // 2 for row in range(COUNT)]},
        home=tmp_path,
        encoders=["tabular", mmfuse.build_encoder("hashing", width=64)],
        modalities=["a=tabular:year", "b=tabular:seen", "plot=text"],
        table=TableOptions(target="genre", group="who", name="mine"),
        method="late",
        options=QUICK,
    )
    assert (found.run.dataset, found.run.method) == ("mine", "late")
    assert [stream.name for stream in found.run.streams] == [
        "hashing/plot", "tabular/a", "tabular/b",
    ]  # fmt: skip
    assert found.predict({"year": [1999.0], "seen": [datetime.date(2020, 1, 3)]}).present.sum() == 2


def test_what_is_no_data_is_one_error(tmp_path):
    """A list, a frame without a target, a group of datasets."""
    with pytest.raises(mmfuse.MmfuseError, match="expected a data frame of polars or pandas"):
        mmfuse.fit([1, 2], "y", home=tmp_path)
    with pytest.raises(mmfuse.MmfuseError, match="which column is to be predicted"):
        mmfuse.fit({"text": ["a b c", "d e f"] * 20}, home=tmp_path)
    with pytest.raises(mmfuse.MmfuseError, match="the data frame"):
        mmfuse.fit({"text": ["a", "b"] * 20, "y": [1] * 40}, "y", home=tmp_path)
