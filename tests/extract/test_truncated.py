"""Inputs that are cut to an encoder's length: known by row, kept, counted, and warned of."""

from dataclasses import dataclass

import numpy as np
import pytest
from small_encoders import Echo, texts

from cache.feature_store import FeatureStore
from cache.format import grid
from cache.layout import Home
from pipelines.extract.engine import batches
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.reports import extraction

LONG = 12  # characters


@dataclass
class Cutting(Echo):
    """Sees the first twelve characters of a text."""

    name: str = "cutting"

    def prepare(self, kind, payload):
        """The text, or its beginning with a mark."""
        return (payload if len(payload) <= LONG else f"{payload[:LONG]}…"), min(len(payload), LONG)

    def truncated(self, item):
        """Whether the mark is there."""
        return item.endswith("…")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of 128 rows, windows of 50."""
    monkeypatch.setattr(grid, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(grid, "CHUNKS_PER_SHARD", 4)
    monkeypatch.setitem(batches.WINDOWS, "text", 50)


def cells(count=400, seed=0):
    """Texts of which some are long, some repeat in the same or another shard, some are absent."""
    chance = np.random.default_rng(seed)
    words = [f"{n}:{'x' * int(chance.integers(0, 20))}" for n in chance.integers(0, 200, count)]
    return [None if row % 50 == 7 else word for row, word in enumerate(words)]


def check(home, dataset, encoder=None, **options):
    """Extract until nothing is left; every row's flag says whether its own text was too long."""
    settings = ExtractOptions(workers=0, batch_rows=8, **options)
    (report,) = extract(dataset, [encoder or Cutting()], home=home, options=settings)
    if not report.complete:
        return check(home, dataset)
    expected = [cell is not None and len(cell) > LONG for cell in dataset.table["m"]]
    found = FeatureStore(home, dataset.name).reader(report.key).truncated
    assert found.tolist() == expected
    assert report.truncated == sum(expected)
    return report


@pytest.mark.parametrize("sequence", [False, True])
def test_every_row_says_whether_its_input_was_cut(tmp_path, sequence):
    """Over shards, repeats and absent rows, pooled or not, and unchanged by a second run."""
    home, dataset = Home(tmp_path), texts({"m": cells()})
    first = check(home, dataset, Cutting(sequence=sequence))
    assert first.truncated > 0
    again = check(home, dataset, Cutting(sequence=sequence))
    assert (again.new, again.truncated) == (0, first.truncated)


def test_flags_survive_an_interruption(tmp_path):
    """What the journal holds of a interrupted shard has its flags too."""
    check(Home(tmp_path), texts({"m": cells()}), Cutting(interrupt_at=5))


def test_rows_that_need_no_encoding_keep_their_flags(tmp_path):
    """Reordered, appended, and in another dataset: the flag follows the input."""
    home, words = Home(tmp_path), cells()
    check(home, texts({"m": words}))
    assert check(home, texts({"m": words[::-1]})).new == 0
    more = [*words, "short", "this one is long"]
    assert check(home, texts({"m": more})).new == 2
    assert check(home, texts({"m": more[::2]}, name="other")).new == 0


def test_a_share_that_matters_is_a_warning(tmp_path):
    """Up to five in a hundred are a remark; above that the summary warns."""
    words = [f"{row}" for row in range(100)]
    for count, begins in ((5, "5 of 100 inputs (5.0%) were truncated"), (6, "warning: 6 of 100")):
        words[:count] = [f"{row} is a long text" for row in range(count)]
        dataset = texts({"m": words}, name=f"cut{count}")
        report = check(Home(tmp_path), dataset)
        (note,) = [
            n for n in extraction.report_table({dataset.name: [report]}).notes if "truncated" in n
        ]
        assert begins in note


def test_an_encoder_that_cuts_nothing_stores_nothing_of_it(tmp_path):
    """Without the method there are no flags, and no commit grows by them."""
    dataset = texts({"m": cells()})
    (report,) = extract(dataset, [Echo()], home=Home(tmp_path))
    reader = FeatureStore(Home(tmp_path), dataset.name).reader(report.key)
    assert (report.truncated, int(reader.truncated.sum())) == (0, 0)
    assert {commit.truncated for commit in reader.generation.commits().values()} == {""}
