"""What a word for data means: a built-in name, a file, a folder; and what is on offer."""

import pytest

from cache.errors import MmfuseError
from pipelines.data import sources
from pipelines.data.columns import parse_modality
from pipelines.data.tables import TableOptions
from pipelines.media import cells


def opened(path, options):
    """The one dataset a path means."""
    (dataset,) = sources.open_dataset(str(path), table=options)
    return dataset


def refused(word, options):
    """The message a word is refused with."""
    with pytest.raises(MmfuseError) as caught:
        sources.open_dataset(word, table=options)
    return str(caught.value)


def test_a_built_in_dataset_takes_no_columns():
    """Options for own data beside a built-in name are a mistake, said so."""
    assert "brings its own columns" in refused("digits", TableOptions(target="genre"))
    assert "has one split only" in refused("digits", TableOptions(split="other"))


def test_the_nearest_dataset_is_named():
    """Unknown words: the nearest name there is."""
    assert "did you mean digits" in refused("digts", TableOptions())
    assert "without parts such as 'nine'" in refused("digits/nine", TableOptions())


def test_offers_say_what_is_ready_and_how_to_get_the_rest(tmp_path):
    """Each dataset has a line; those without data say where to put it and where it is from."""
    offers = {offer.name: offer for offer in sources.list_datasets([tmp_path])}
    assert offers["digits"].ready
    assert not offers["mug"].ready
    assert "figshare" in offers["mug"].where
    (tmp_path / "avdigits").mkdir()
    (tmp_path / "avdigits" / "manifest.csv").write_text("id\n")
    offers = {offer.name: offer for offer in sources.list_datasets([tmp_path])}
    assert offers["avdigits"].where == str(tmp_path / "avdigits")


def test_the_packs_open_in_one_line(pack):
    """Algorithms by its Parquet file, emoji by its folder in MuG's layout, avdigits by manifest."""
    algorithms = opened(pack("algorithms") / "algos.parquet", TableOptions())
    kinds = {m.name: m.kind for m in algorithms.modalities}
    assert kinds == {"title": "text", "text": "text", "code": "code", "table": "tabular"}
    assert dict(algorithms.table["split"].value_counts().iter_rows()) == {
        "train": 502, "val": 73, "test": 142,
    }  # fmt: skip
    emoji = opened(pack("emoji"), TableOptions())
    assert [m.kind for m in emoji.modalities] == ["image", "text", "tabular"]
    options = TableOptions(
        (parse_modality("image=image"), parse_modality("audio=audio")), group="speaker"
    )
    digits = opened(pack("avdigits") / "manifest.csv", options)
    assert cells.read("audio", digits.table["audio"][0], digits.root).rate == 8000
