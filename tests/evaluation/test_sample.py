"""One sample by its cells: the answer of the same row in a table, and without each modality."""

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tiny
from typer.testing import CliRunner

import mmfuse
from cache.errors import MmfuseError
from cache.layout import Home
from mmfuse_cli.main import app
from pipelines.data.columns import parse_modality
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import build_encoder
from pipelines.evaluation.predict import predict
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.reports.predictions import sample_tables
from pipelines.training.train import train

ROWS = 40
PARTS = ("photo=image", "words=text:Its words", "table=tabular:height,colour", "pulse=series")
TASKS = {"kind": "classes", "tags": "labels", "price": "value"}  # column of the target → task
NAMES = ("photo", "Its words", "height", "colour", "pulse")


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> tuple[Path, Home, dict[str, mmfuse.RunRecord]]:
    """Things with a photo, a phrase, a table with decimal commas and a pulse; a run a task."""
    folder, chance = tmp_path_factory.mktemp("shop"), random.Random(0)
    (folder / "photos").mkdir()
    rows = []
    for row in range(ROWS):
        kind = row % 2
        (folder / "photos" / f"{row}.png").write_bytes(tiny.picture(kind, chance))
        rows.append({
            "id": f"s{row}", "photo": f"photos/{row}.png",
            "Its words": None if row % 9 == 8 else f"a {('red', 'long yellow')[kind]} one {row}",
            "height": f"{row % 7 + kind},{row % 10}5", "colour": ("red", "yellow", "blue")[row % 3],
            "pulse": ", ".join(str(chance.random() + kind) for _ in range(9)),
            "kind": "ab"[kind], "tags": ("hot|new", "old", "hot|old", "new")[row % 4],
            "price": f"{row * 1.5:.1f}",
        })  # fmt: skip
    pl.DataFrame(rows).write_csv(folder / "shop.csv", separator=";")
    home, runs = Home(folder / "home"), {}
    for target, task in TASKS.items():
        options = TableOptions(
            modalities=tuple(parse_modality(part) for part in PARTS), target=target, name=target
        )
        (dataset,) = open_dataset(str(folder / "shop.csv"), table=options)
        encoders = [build_encoder(word) for word in ("pixels", "hashing", "tabular", "series")]
        extract(dataset, encoders, home=home, options=ExtractOptions(workers=0))
        words = {"epochs": "2", "seeds": "0,1", "width": "4", "learning_rate": "1e-2"}
        runs[task] = train("concat", target, home=home, options=words)
    return folder, home, runs


def cells_of(folder: Path, row: int) -> dict[str, str]:
    """The cells of a row as they are typed, absent ones left out."""
    table = pl.read_csv(folder / "shop.csv", separator=";", infer_schema=False)
    return {name: cell for name in NAMES if (cell := table[name][row]) is not None}


@pytest.mark.parametrize("task", TASKS.values())
def test_a_sample_is_answered_as_the_same_row_of_a_table(shop, task, monkeypatch) -> None:
    """Files, words, numbers with a decimal comma, categories, series; absent cells left out."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    table = predict(home, runs[task], "shop.csv")
    for row in (3, 8):
        found = predict(home, runs[task], cells_of(folder, row))
        assert found.outputs[0] == pytest.approx(table.outputs[row], abs=1e-6)
        assert found.spread[0] == pytest.approx(table.spread[row], abs=1e-6)
        assert found.present[0].tolist() == table.present[row].tolist()
        assert found.answers()[0] == table.answers()[row] or task == "value"
        assert (found.failures, found.unused) == ((), ())
        assert found.lacking == (("words",) if row == 8 else ())


def test_without_a_modality_is_the_row_without_its_columns(shop, monkeypatch) -> None:
    """Each modality that is given is hidden in turn; the columns of a table are one modality."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    cells = cells_of(folder, 3)
    found = predict(home, runs["classes"], cells)
    assert list(found.without) == ["words", "photo", "pulse", "table"]  # as the run's streams
    own = {"words": ["Its words"], "table": ["height", "colour"]}
    for name, outputs in found.without.items():
        left = {k: v for k, v in cells.items() if k not in own.get(name, [name])}
        assert outputs == pytest.approx(predict(home, runs["classes"], left).outputs[0], abs=1e-6)
    alone = predict(home, runs["classes"], {"Its words": "a long yellow one"})
    assert alone.without == {}
    assert "without words nothing would be left" in " ".join(sample_tables(alone, 5)[0].notes)


def test_values_have_several_forms(shop, monkeypatch) -> None:
    """Text from a file, a path below ~, bytes, a series from a list or a file, typed numbers."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    row = cells_of(folder, 5)
    numbers = np.array([float(word) for word in row["pulse"].split(",")], np.float32)
    np.save("pulse.npy", numbers)
    Path("pulse.csv").write_text("volts\n" + "\n".join(map(str, numbers.tolist())))
    Path("words.txt").write_text(row["Its words"], encoding="utf-8")
    expected = predict(home, runs["value"], row).outputs
    for forms in (
        {"photo": Path(row["photo"]), "words": row["Its words"], "pulse": f"[{row['pulse']}]"},
        {"photo": f"file://{folder}/{row['photo']}", "words": row["Its words"]},
        {"photo": f"~/{row['photo']}", "words": "@words.txt", "pulse": numbers},
        {"photo": Path(row["photo"]).read_bytes(), "words": "@~/words.txt", "pulse": "pulse.npy"},
        {"words": Path("words.txt"), "pulse": "pulse.csv", "colour": f"  {row['colour']} "},
        {"words": None, "Its words": row["Its words"], "pulse": numbers.tolist(),
         "height": float(row["height"].replace(",", "."))},
    ):  # fmt: skip
        cells = {**row, **forms}
        cells = {name: cell for name, cell in cells.items() if name != "Its words" or name in forms}
        found = predict(home, runs["value"], cells)
        assert found.outputs == pytest.approx(expected, abs=1e-5), forms
        assert found.lacking == ()
    nested = {name: row[name] for name in ("photo", "Its words", "pulse")}
    nested["table"] = {"height": row["height"], "colour": row["colour"]}
    assert predict(home, runs["value"], nested).outputs == pytest.approx(expected, abs=1e-6)
    twice = predict(home, runs["value"], {"words": "@@home"}).outputs
    table = pl.DataFrame({"words": ["@home"]})
    assert twice == pytest.approx(predict(home, runs["value"], table).outputs, abs=1e-6)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"phto": "photos/0.png"}, r"column of .* named 'phto'; did you mean photo\?"),
        ({"table": "tall"}, "table is made of columns; give them by their names: colour, height"),
        ({"photo": "none.png"}, r"photo=none.png: no such file \(looked for /"),
        ({"photo": "photos"}, "photo=photos: this is a folder"),
        ({"photo": "https://a.b/c.png"}, "nothing is fetched; download the file"),
        ({"photo": 3}, "photo is a file; give its path, not a int"),
        ({"words": "@none.txt"}, "no such file: none.txt .* written with @@"),
        ({"words": "a", "Its words": "b"}, "words and Its words are the same modality"),
        ({"pulse": "fast"}, "pulse=fast: a series is numbers joined by commas, or a .npy or .csv"),
        ({"pulse": "none.npy"}, "pulse=none.npy: no such file"),
        ({"pulse": "ragged.csv"}, "equally many in each; row 2 of .*ragged.csv: 3"),
        ({"pulse": "words.npy"}, "words.npy holds .*, not numbers"),
        ({"photo": None}, "a sample needs one of .*photo"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sample_is_said(shop, monkeypatch, cells, message) -> None:
    """Names that nothing has, files that are not there, series that are none."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    Path("ragged.csv").write_text("1,2\n3\n")
    np.save("words.npy", np.array(["a", "b"]))
    with pytest.raises(MmfuseError, match=message):
        predict(home, runs["classes"], cells)


def test_the_command_prints_probabilities_and_what_is_absent(shop, monkeypatch) -> None:
    """Classes with the most probable first, what was given and absent, and each modality hidden."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    start = ["--home", str(home.root), "--json", "predict", "--run", runs["classes"].id]
    cells = ["--sample", "photo=photos/0.png", "--sample", "Its words=a long yellow one"]
    done = CliRunner().invoke(app, [*start, *cells])
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["tables"]
    found = predict(home, runs["classes"], {"photo": "photos/0.png", "words": "a long yellow one"})
    (answer,) = found.answers()
    assert first["title"] == f"prediction of concat: {answer}"
    assert first["rows"][0]["class"] == answer
    assert [row["probability"] for row in first["rows"]] == sorted(found.outputs[0])[::-1]
    assert "given: words, photo" in first["notes"]
    assert "absent: pulse, table" in first["notes"]
    assert [row["without"] for row in second["rows"]] == ["words", "photo"]
    place = "ab".index(answer)
    for row in second["rows"]:
        hidden = found.without[row["without"]]
        assert row["probability"] == pytest.approx(hidden[place])
        assert row["change"] == pytest.approx(hidden[place] - found.outputs[0][place])
        assert row["prediction"] == "ab"[int(hidden.argmax())]
    for wrong, message in (
        (["--sample", "words=a", "--sample", "words=b"], "--sample names words twice: a and b"),
        (["--sample", "words"], "--sample 'words' must be name=value"),
        ([], "say which: --input FILE with"),
        (["--input", "shop.csv", *cells], "say which: --input FILE with"),
    ):
        done = CliRunner().invoke(app, [*start, *wrong])
        assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_file_that_cannot_be_read_is_absent_and_named(shop, monkeypatch) -> None:
    """Exit code 1, the file in the table; the other modalities answer."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    Path("cut.png").write_bytes(Path("photos/0.png").read_bytes()[:60])
    start = ["--home", str(home.root), "--json", "predict", "--run", runs["classes"].id]
    done = CliRunner().invoke(app, [*start, "--sample", "photo=cut.png", "--sample", "words=red"])
    assert done.exit_code == 1
    first, failed = json.loads(done.stdout)["tables"]
    assert "could not be read, counted as absent: photo" in first["notes"]
    (row,) = failed["rows"]
    assert (row["modality"], row["file"]) == ("photo", str(folder / "cut.png"))
    assert row["reason"].startswith("truncated")


def test_tables_of_labels_and_values(shop, monkeypatch) -> None:
    """Labels with their probabilities and what is predicted; a value, and its changes."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    cells = cells_of(folder, 0)
    found = predict(home, runs["labels"], cells)
    first, second = sample_tables(found, None)
    assert {row[0]: row[1] for row in first.rows} == dict(
        zip(("hot", "new", "old"), found.outputs[0].tolist(), strict=True)
    )
    assert {row[0] for row in first.rows if row[3]} == set(found.answers()[0])
    assert [row[0] for row in second.rows] == list(found.without)
    found = predict(home, runs["value"], cells)
    first, second = sample_tables(found, None)
    assert first.rows == ((found.outputs[0][0], found.spread[0][0]),)
    for name, value, change in second.rows:
        assert value == found.without[name][0]
        assert change == pytest.approx(value - found.outputs[0][0])


def test_a_sample_from_python(shop, monkeypatch) -> None:
    """One call of the library does what the command does."""
    folder, home, runs = shop
    monkeypatch.chdir(folder)
    found = mmfuse.predict(str(home.root), runs["classes"].id, {"photo": "photos/0.png"})
    assert found.ids == ("row-0",)
    assert found.outputs.shape == (1, 2)
