"""Own data by its name: features know the file and the words they were made with."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

import mmfuse
from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home
from cache.maintenance.verify import verify
from pipelines.data.columns import parse_modality
from pipelines.data.origins import save_origin, sources
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import build_encoder
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions


@pytest.fixture
def table(tmp_path):
    """Twenty sentences and two columns that either could be the target."""
    path = tmp_path / "there" / "movies.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["plot", "genre", "mood"])
        for row in range(40):
            writer.writerow([f"words {row} of a plot", f"g{row % 2}", f"m{row % 3}"])
    return path


OWN = TableOptions(modalities=(parse_modality("plot=text"),), target="genre", name="movies")


def extracted(table, home):
    """Features of the table, as one extract makes them."""
    (dataset,) = mmfuse.open_dataset(str(table), table=OWN, home=home)
    mmfuse.extract(dataset, [mmfuse.build_encoder("hashing")], home=home)
    return dataset


def test_a_name_opens_what_its_features_were_made_of(table, tmp_path, monkeypatch):
    """From another folder, without a word of the options: the same rows, splits and targets."""
    home = Home(tmp_path / "home")
    dataset = extracted(table, home)
    monkeypatch.chdir(tmp_path)
    (again,) = mmfuse.open_dataset("movies", home=home)
    assert again.table.equals(dataset.table)
    assert (again.name, again.modalities, again.task) == (
        "movies",
        dataset.modalities,
        dataset.task,
    )
    reports = mmfuse.extract(again, [mmfuse.build_encoder("hashing")], home=home)
    assert [report.new for report in reports] == [0]


def test_typed_options_take_precedence_over_stored_ones(table, tmp_path):
    """One option changed, the others as before."""
    home = Home(tmp_path / "home")
    extracted(table, home)
    (again,) = mmfuse.open_dataset("movies", table=TableOptions(target="mood"), home=home)
    assert again.task.outputs == 3
    assert [modality.name for modality in again.modalities] == ["plot"]


def test_a_file_that_is_gone_is_said_with_the_words_that_mend_it(table, tmp_path):
    """The old place is named."""
    home = Home(tmp_path / "home")
    extracted(table, home)
    table.rename(table.with_name("films.csv"))
    with pytest.raises(MmfuseError, match=r"movies\.csv"):
        mmfuse.open_dataset("movies", home=home)


def test_every_flipped_bit_of_an_origin_is_found_and_costs_no_features(table, tmp_path):
    """Verify names it; the features are still there, and the next extract of the file mends it."""
    home = Home(tmp_path / "home")
    extracted(table, home)
    path = DatasetPaths.of(home, "movies").origin
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        data = bytearray(sound)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        assert [damage.path for damage in verify(home).damages] == [path]
    with pytest.raises(MmfuseError, match="nothing says what data"):
        mmfuse.open_dataset("movies", home=home)
    assert mmfuse.FeatureStore(home, "movies").resolve(None)
    extracted(table, home)
    assert path.read_bytes() == sound
    assert verify(home).damages == ()


def test_modalities_named_one_after_the_other_are_joined(tmp_path):
    """Rows are the same rows: streams of a first and a second reading train together."""
    path, home = tmp_path / "two.csv", Home(tmp_path / "home")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "y"])
        for row in range(40):
            writer.writerow([f"left {row}", f"right {row % 7}", f"y{row % 2}"])
    for name in ("b", "a", "b"):
        own = TableOptions(modalities=(parse_modality(f"{name}=text"),), target="y", name="two")
        (dataset,) = mmfuse.open_dataset(str(path), table=own, home=home)
        mmfuse.extract(dataset, [mmfuse.build_encoder("hashing")], home=home)
        streams = mmfuse.FeatureStore(home, "two").resolve(None)
        assert len({info.snapshot for info in streams}) == 1
    assert [info.key.modality for info in streams] == ["a", "b"]
    store = mmfuse.FeatureStore(home, "two")
    assert {m.name for m in store.samples(streams[0]).modalities} == {"a", "b"}
    assert verify(home).damages == ()


def test_a_name_comes_before_a_folder_that_is_called_like_it(table, tmp_path, monkeypatch):
    """A path with a slash is the folder; the note says how to mean it."""
    home = Home(tmp_path / "home")
    (dataset,) = open_dataset(str(table), table=OWN)
    extract(dataset, [build_encoder("hashing")], home=home, options=ExtractOptions(workers=0))
    monkeypatch.chdir(tmp_path)
    for label in ("x", "y"):
        for number in range(20):
            path = tmp_path / "movies" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    notes = []
    (found,) = open_dataset("movies", home=home, note=notes.append)
    assert found.task == dataset.task
    assert "read as it was extracted before; ./movies for what lies here" in notes[0]
    (folder,) = open_dataset("./movies", home=home)
    assert folder.task.names == ("x", "y")


def test_how_columns_were_read_is_stored_for_encoders_that_learn_nothing(tmp_path):
    """A series with decimal commas keeps them in new tables."""
    rows = [f"s{n};{' '.join(f'{n},{k}5' for k in range(9))};{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["id;sig;label", *rows]) + "\n")
    (dataset,) = open_dataset(str(tmp_path / "t.csv"), table=TableOptions(name="t"))
    home = Home(tmp_path / "home")
    save_origin(home, dataset)
    stored = sources(home, "t", [SimpleNamespace(fields={}, key=SimpleNamespace(modality="sig"))])
    assert stored == {
        "sig": {"columns": ["sig"], "types": {"sig": dataset.column_types["sig"]["sig"].record()}}
    }
    assert stored["sig"]["types"]["sig"]["decimal"] == ","
