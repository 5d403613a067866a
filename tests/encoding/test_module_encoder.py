"""An encoder of a few lines: `KINDS`, `VERSION` and `encode`."""

import pickle

import numpy as np
import polars as pl
import pytest

import mmfuse
from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from cache.samples import Modality, Task
from pipelines.data.dataset import Dataset
from pipelines.encoding.encoder import build_encoder

TEN_LINES = '''"""Length and vowels of a text."""

import numpy as np

KINDS = {"text": 2}
VERSION = 1


def encode(batch):
    return np.array([[len(text), sum(text.count(v) for v in "aeiou")] for text in batch])
'''


@pytest.fixture
def mine(tmp_path):
    """The file of a user."""
    path = tmp_path / "mine.py"
    path.write_text(TEN_LINES)
    return path


def test_three_names_are_an_encoder(mine, tmp_path):
    """Extracted, also by worker processes, every row is what `encode` makes of its text."""
    texts = ["an apple", "two", None, "three pears"] * 10
    table = pl.DataFrame(
        {
            "id": [str(n) for n in range(40)],
            "split": ["train", "train", "val", "test"] * 10,
            "target": [n // 4 % 2 for n in range(40)],
            "text": texts,
        }
    )
    dataset = Dataset("d", table, (Modality("text", "text"),), Task("classes", ("a", "b")))
    options = mmfuse.ExtractOptions(workers=1)
    (report,) = mmfuse.extract(dataset, [build_encoder(str(mine))], home=tmp_path, options=options)
    assert (report.ok, report.absent, report.failures) == (30, 10, 0)
    store = mmfuse.FeatureStore(tmp_path, "d")
    found = store.whole(report.key)
    expected = [[len(text), sum(text.count(v) for v in "aeiou")] for text in texts if text]
    assert np.array_equal(found.values[found.present.astype(bool)], np.float32(expected))
    assert report.key.name == "mine/text"


def test_it_passes_every_check_of_an_encoder(mine):
    """`mmfuse check` tries it like any other."""
    assert [one.detail for one in mmfuse.check_encoder(str(mine)) if not one.passed] == []


def test_a_new_version_is_another_stream(mine):
    """VERSION and the name identify the vectors."""
    first = build_encoder(str(mine))
    assert pickle.loads(pickle.dumps(first)) == first
    mine.write_text(TEN_LINES.replace("VERSION = 1", "VERSION = 2"))
    second = build_encoder(str(mine))
    assert fingerprint(first.fields("text")) != fingerprint(second.fields("text"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("KINDS = ", "OTHER = "), "needs KINDS"),
        (("VERSION = 1", ""), "and VERSION"),
        (("def encode", "def decode"), "a function `build` or `encode`"),
    ],
)
def test_what_is_lacking_is_named(mine, change, message):
    """One line that says what the module needs."""
    mine.write_text(TEN_LINES.replace(*change))
    with pytest.raises(MmfuseError, match=message):
        build_encoder(str(mine))


def test_a_wrong_shape_is_one_line(mine):
    """`encode` must give one row of numbers for each input."""
    mine.write_text(TEN_LINES.replace("for text in batch])", "for text in batch])[:1]"))
    encoder = build_encoder(str(mine))
    with pytest.raises(MmfuseError, match=r"shape \(1, 2\) for 2 inputs"):
        encoder.encode("text", ["a", "b"])
