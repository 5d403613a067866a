"""Answers for new raw samples."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cache.errors import MmfuseError
from cache.exchange.pack import pack
from cache.exchange.unpack import unpack
from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.runs import RunRecord
from cache.samples import Modality, Task
from pipelines.data.columns import parse_modality
from pipelines.data.dataset import Dataset
from pipelines.data.sources import open_dataset
from pipelines.data.table_files import read_table
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import BuildCall, build_call, build_encoder
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.predict import predict
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.features.missing import MissingPattern
from pipelines.reports import predictions
from pipelines.training.record import identity_of
from pipelines.training.train import train

COUNT = 60
WORDS = {"epochs": "20", "seeds": "0,1", "width": "8", "drop_rate": "0.3", "learning_rate": "1e-2"}
INLINE = ExtractOptions(workers=0)
MINE = """
class Mine:
    name, kinds, storage, sequence, weights = "mine", {"text": 1}, "float32", False, "weight-free"
    def fields(self, kind): return {}
    def provenance(self): return {}
    def prepare(self, kind, payload): return payload, 1
    def encode(self, kind, batch): return [[0.0]] * len(batch)

PARTS = {name: part for name, part in vars(Mine).items() if not name.startswith("__")}
Slotted = type("Slotted", (), {"__slots__": (), **PARTS})

def build(*, steps=(), slots=False):
    return Slotted() if slots else Mine()
"""


def made_dataset() -> Dataset:
    """Fruit: a phrase and a record tell its kind; some cells are absent."""
    rng, rows = np.random.default_rng(0), []
    for number in range(COUNT):
        kind = number % 2
        phrase = f"{['a round red', 'a long yellow'][kind]} thing number {number}"
        record = {"weight": float(100 + 40 * kind + rng.normal() * 10), "shop": f"s{number % 3}"}
        rows.append(
            {
                "id": f"fruit{number}",
                "split": ("train", "train", "train", "val", "test")[number // 2 % 5],
                "target": kind,
                "words": None if number % 7 == 6 else phrase,
                "facts": None if number % 11 == 10 else record,
            }
        )
    modalities = (Modality("words", "text"), Modality("facts", "tabular"))
    task = Task("classes", ("apple", "banana"))
    return Dataset("fruit", pl.DataFrame(rows), modalities, task, source="synthetic")


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Home, RunRecord, Dataset]:
    """A run on hashed words and a fitted encoder's view of the records."""
    home, dataset = Home(tmp_path), made_dataset()
    encoders = [build_encoder("hashing"), build_encoder("tabular")]
    extract(dataset, encoders, home=home, options=INLINE)
    return home, train("concat", "fruit", home=home, options=WORDS), dataset


def test_new_samples_get_the_numbers_they_get_in_a_batch(trained) -> None:
    """Answers to raw test rows are the recorded test predictions, absent cells included."""
    home, run, dataset = trained
    test = dataset.table.filter(pl.col("split") == "test").select("id", "words", "facts")
    found = predict(home, run.id, test)
    recorded = run.predictions().filter(pl.col("split") == "test")
    for seed in (0, 1):
        assert recorded.filter(pl.col("seed") == seed)["id"].to_list() == list(found.ids)
    logits = np.array(recorded["outputs"].to_list()).reshape(2, len(test), 2)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.allclose(found.outputs, shares.mean(0), atol=1e-5)
    assert np.allclose(found.spread, shares.std(0, ddof=1), atol=1e-5)
    assert not found.failures
    assert found.present[:, 1].tolist() == test["facts"].is_not_null().to_list()


def test_any_modality_may_be_left_out(trained) -> None:
    """Without a column, with null cells, or one by one: a row's answer is the same."""
    home, run, dataset = trained
    rows = dataset.table.head(6)
    without = predict(home, run, rows.select("id", "words"))
    nulls = rows.select("id", "words", pl.lit(None, dtype=rows["facts"].dtype).alias("facts"))
    assert np.allclose(predict(home, run, nulls).outputs, without.outputs, atol=1e-6)
    for row in range(6):
        alone = predict(home, run, rows[row : row + 1].select("words"))
        assert np.allclose(alone.outputs[0], without.outputs[row], atol=1e-6)


def test_a_sample_without_anything_has_no_answer(trained) -> None:
    """The head's prior is in the outputs, and the answer says that there is none."""
    home, run, _ = trained
    found = predict(home, run, pl.DataFrame({"words": ["a round red thing number 4", None]}))
    assert found.answers() == ["apple", None]
    assert np.isfinite(found.outputs).all()
    table = found.to_polars()
    facts = ["id", "prediction", "probability", "std", "seen"]
    assert table.columns == [*facts, "p(apple)", "p(banana)"]
    assert table["id"].to_list() == ["row-0", "row-1"]
    assert table["seen"].to_list() == [["hashing/words"], []]
    assert table["probability"].to_list() == [table["p(apple)"][0], None]
    assert table["std"].to_list() == [found.spread[0, 0], None]


def test_a_records_columns_may_stand_by_themselves(trained) -> None:
    """A table of plain columns serves as the record of each row."""
    home, run, dataset = trained
    rows = dataset.table.filter(pl.col("facts").is_not_null()).head(5)
    nested = predict(home, run, rows.select("id", "facts"))
    flat = rows.select("id", pl.col("facts")).unnest("facts")
    assert np.allclose(predict(home, run, flat).outputs, nested.outputs, atol=1e-6)


def test_what_does_not_match_is_told_and_is_no_bad_sample(trained) -> None:
    """A table without any of its columns is absent; columns that nothing uses are named."""
    home, run, _ = trained
    rows = pl.DataFrame({"words": ["a round red thing", "a long one"], "smell": ["x", "y"]})
    found = predict(home, run, rows)
    assert found.failures == ()
    assert (found.lacking, found.unused) == (("facts",), ("smell",))
    assert found.present.tolist() == [[True, False]] * 2
    note = predictions.prediction_tables(found, 5)[0].notes[0]
    assert note == ("in the input, no column for facts, counted as absent; unused columns: smell")
    some = predict(home, run, rows.with_columns(weight=pl.lit(120.0)))
    assert some.lacking == ("shop of facts",)
    assert some.present.all()
    whole = predict(home, run, made_dataset().table.select("id", "words", "facts").head(3))
    assert (whole.lacking, whole.unused) == ((), ())
    assert predictions.prediction_tables(whole, 5)[0].notes == (
        "± seeds: standard deviation over replicas",
    )


def test_columns_that_a_modality_was_made_of_stand_for_it(tmp_path: Path) -> None:
    """A file with the columns of training is understood, whatever the modalities are called."""
    table = made_dataset().table.unnest("facts").rename({"words": "Its words", "target": "label"})
    path = tmp_path / "fruit.csv"
    table.with_columns(pl.col("label").cast(pl.String)).write_csv(path)
    home = Home(tmp_path / "home")
    for name, parts in (("guessed", ()), ("told", (parse_modality("plot=text:Its words"),))):
        options = TableOptions(name=name, modalities=parts)
        (dataset,) = open_dataset(str(path), table=options)
        extract(dataset, [build_encoder("hashing")], home=home, options=INLINE)
        run = train("concat", name, home=home, options=WORDS)
        found = predict(home, run, read_table(path))
        assert found.lacking == ()
        assert "Its words" not in found.unused
        assert found.present.any()


def test_an_encoder_that_made_no_stream_is_refused(trained) -> None:
    """The error names it and the run's streams."""
    home, run, dataset = trained
    rows = dataset.table.head(2).select("words")
    with pytest.raises(MmfuseError, match=r"pixels made none of the streams .*hashing/words"):
        predict(home, run, rows, encoders=[build_encoder("pixels")])


def test_samples_of_nothing_known_are_refused(trained) -> None:
    """The error names the run's modalities and the samples' columns."""
    home, run, _ = trained
    streams = tuple(s for s in run.streams if s.modality == "words")
    only = replace(run, streams=streams)
    with pytest.raises(MmfuseError, match=r"\(words\); their columns are smell"):
        predict(home, only, pl.DataFrame({"smell": ["sweet"]}))


def test_a_run_records_the_word_that_built_each_encoder(trained, tmp_path: Path) -> None:
    """Word and options are in run.json, not in the fingerprint, and predict builds by them."""
    _, run, dataset = trained
    assert [(s.word, s.options) for s in run.streams] == [("hashing", {}), ("tabular", {})]
    other = Home(tmp_path / "other")
    extract(dataset, [build_encoder("hashing", width=64)], home=other, options=INLINE)
    named = train("concat", "fruit", home=other, options=WORDS)
    written = json.loads((named.path / "run.json").read_text())["streams"][0]
    assert (written["word"], written["options"]) == ("hashing", {"width": 64})
    found = predict(other, named.id, dataset.table.head(4).select("words"))
    assert found.outputs.shape == (4, 2)
    assert found.notes == ()


def test_how_an_encoder_was_named_changes_no_identity(tmp_path: Path) -> None:
    """An encoder without its word makes the same stream, and a run on it is the same training."""
    dataset, runs = made_dataset(), []
    for number, encoder in enumerate((build_encoder("hashing"), replace(build_encoder("hashing")))):
        home = Home(tmp_path / str(number))
        extract(dataset, [encoder], home=home, options=INLINE)
        runs.append(train("concat", "fruit", home=home, options=WORDS))
    assert [run.streams[0].word for run in runs] == ["hashing", ""]
    assert runs[0].streams[0].fingerprint == runs[1].streams[0].fingerprint
    assert identity_of(runs[0]) == identity_of(runs[1])


def test_without_a_recorded_word_the_encoder_is_guessed_and_a_note_says_so(
    trained, tmp_path: Path
) -> None:
    """A run and streams as they were before words were recorded answer the same."""
    home, run, dataset = trained
    rows = dataset.table.head(4).select("words", "facts")
    expected = predict(home, run, rows)
    unnamed = tuple(replace(stream, word="", options={}) for stream in run.streams)
    assert predict(home, replace(run, streams=unnamed), rows).notes == ()  # the streams have them
    old = Home(tmp_path / "old")
    copies = [replace(build_encoder(word)) for word in ("hashing", "tabular")]
    extract(dataset, copies, home=old, options=INLINE)
    found = predict(old, train("concat", "fruit", home=old, options=WORDS), rows)
    assert np.allclose(found.outputs, expected.outputs, atol=1e-6)
    assert found.notes == (
        "no recorded encoder word; found by fingerprint: "
        "hashing/words by hashing, tabular/facts by tabular",
    )
    assert found.notes[0] in predictions.prediction_tables(found, 5)[0].notes


def test_an_encoder_with_other_options_is_found_or_asked_for(tmp_path: Path) -> None:
    """Where no word is recorded, options need a given encoder, and the error says so."""
    home, dataset = Home(tmp_path), made_dataset()
    other = replace(build_encoder("hashing", width=64))  # a copy does not know its word
    extract(dataset, [other], home=home, options=INLINE)
    run = train("concat", "fruit", home=home, options=WORDS)
    rows = dataset.table.head(4).select("words")
    with pytest.raises(MmfuseError, match=r"hashing/words was made by hashing with .*64"):
        predict(home, run, rows)
    found = predict(home, run, rows, encoders=[build_encoder("hashing", width=64)])
    assert found.outputs.shape == (4, 2)
    assert found.notes == ()


def test_weights_go_to_the_encoders_that_take_some(trained) -> None:
    """`--weights` beside weight-free encoders is no error of theirs."""
    home, run, dataset = trained
    rows = dataset.table.head(4).select("words", "facts")
    given = predict(home, run, rows, weights="somewhere/model.safetensors")
    assert np.allclose(given.outputs, predict(home, run, rows).outputs)


def test_a_pack_brings_encoder_names_and_no_paths_of_files(trained, tmp_path: Path) -> None:
    """`predict` imports recorded encoder files, so a stranger's pack must not name any."""
    home, _, dataset = trained
    module = tmp_path / "mine.py"
    module.write_text(MINE)
    extract(dataset, [build_encoder(str(module))], home=home, options=INLINE)
    pack(home, tmp_path / "fruit.pack", ["fruit"])
    other = Home(tmp_path / "other")
    unpack(other, tmp_path / "fruit.pack")
    calls = {
        info.key.encoder: BuildCall.of_stream(info.provenance)
        for info in FeatureStore(other, "fruit").streams()
    }
    assert calls["mine"] is None
    assert calls["hashing"] == BuildCall("hashing", {})


def test_an_encoder_of_a_users_own_class_records_its_word_where_it_can(tmp_path: Path) -> None:
    """A plain class has room for it; one with slots, or options that are not JSON, go without."""
    module = tmp_path / "mine.py"
    module.write_text(MINE)
    built = build_encoder(str(module), steps=[1, 2])
    assert build_call(built) == BuildCall(str(module), {"steps": [1, 2]})
    assert build_call(pickle.loads(pickle.dumps(built))) == build_call(built)
    assert build_call(build_encoder(str(module), steps={1, 2})) is None
    assert build_call(build_encoder(str(module), slots=True)) is None


@pytest.mark.parametrize("width", [None, 64])
def test_a_stream_kept_in_another_dtype_is_encoded_as_it_was_kept(tmp_path: Path, width) -> None:
    """Features stored in float16 by choice are found and rounded as the store rounded them."""
    home, dataset = Home(tmp_path), made_dataset()
    options = {"width": width} if width else {}
    half = build_encoder("hashing", storage="float16", **options)
    extract(dataset, [half], home=home, options=INLINE)
    run = train("concat", "fruit", home=home, options=WORDS)
    test = dataset.table.filter(pl.col("split") == "test").select("id", "words")
    given = [build_encoder("hashing", **options)] if width else []
    found = predict(home, run, test, encoders=given)
    recorded = run.predictions().filter(pl.col("split") == "test")
    logits = np.array(recorded["outputs"].to_list()).reshape(2, len(test), 2)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.allclose(found.outputs, shares.mean(0), atol=1e-5)


def test_features_that_are_gone_are_named(trained, tmp_path: Path) -> None:
    """The error says which stream and how to make it again."""
    _, run, dataset = trained
    with pytest.raises(MmfuseError, match="mmfuse extract --dataset fruit --encoder"):
        predict(Home(tmp_path / "empty"), run, dataset.table.head(1))


def test_two_encoders_of_one_name_are_two_streams_of_a_modality(trained) -> None:
    """Named by their fingerprints they train together; hiding the modality hides both of them."""
    home, _, dataset = trained
    extract(
        dataset, [build_encoder("hashing", width=256)], home=home, options=ExtractOptions(workers=0)
    )
    store = FeatureStore(home, "fruit")
    labels = [i.key.label for i in store.streams() if i.key.modality == "words"]
    with pytest.raises(MmfuseError, match="2 streams hashing/words"):
        train("concat", "fruit", home=home, options=WORDS)
    features = [*labels, "tabular"]
    run = train("concat", "fruit", home=home, features=features, options=WORDS)
    assert [stream.name for stream in run.streams] == [*sorted(labels), "tabular/facts"]
    hidden = evaluate(home, run, [MissingPattern.named("words")]).rows[1]
    test = dataset.table.filter(pl.col("split") == "test").select("id", "words", "facts")
    there = test.count()
    share = there["words"][0] / (there["words"][0] + there["facts"][0])
    assert hidden.scores.realised_rate == pytest.approx(share)  # of modalities, not of streams
    assert hidden.single[0] == "facts"
    encoders = [
        build_encoder("hashing"),
        build_encoder("hashing", width=256),
        build_encoder("tabular"),
    ]
    found = predict(home, run.id, test, encoders=encoders)
    recorded = run.predictions().filter((pl.col("split") == "test") & (pl.col("seed") == 0))
    assert list(found.ids) == recorded["id"].to_list()


def test_a_table_without_rows_is_refused(trained) -> None:
    """A header alone has nothing to predict."""
    home, run, _ = trained
    with pytest.raises(MmfuseError, match="the samples have no rows"):
        predict(home, run, pl.DataFrame({"words": []}, schema={"words": pl.String}))
