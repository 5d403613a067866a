"""Rows encoded once more against what is kept of them."""

import numpy as np
import pytest

from cache.errors import MmfuseError
from cache.layout import Home
from pipelines.data.sources import open_dataset
from pipelines.encoding.encoder import build_encoder
from pipelines.extract.extract import extract
from pipelines.extract.recompute import complete_plans, recompute


@pytest.fixture(scope="module")
def digits():
    """The built-in dataset."""
    return open_dataset("digits")[0]


def test_rows_of_a_sound_stream_are_what_they_were(digits, tmp_path):
    """Every drawn row has the vector it had; the draw is as large as asked, without repeats."""
    home, encoders = Home(tmp_path), [build_encoder("pixels"), build_encoder("hashing")]
    extract(digits, encoders, home=home)
    found = recompute("digits", complete_plans(digits, encoders, home=home), home=home, count=20)
    assert [len(set(each.rows.tolist())) for each in found] == [20, 20]
    assert all(each.worst == 1.0 and not each.differing for each in found)


def test_a_stream_kept_in_another_dtype_is_compared_as_it_is_kept(digits, tmp_path):
    """The words need not repeat in which dtype a stream was stored."""
    home = Home(tmp_path)
    extract(digits, [build_encoder("pixels", storage="float16")], home=home)
    (source,) = complete_plans(digits, [build_encoder("pixels")], home=home)
    (found,) = recompute("digits", [source], home=home, count=5)
    assert source.encoder.storage == "float16"
    assert found.worst > 0.999
    assert not found.differing


def test_a_vector_that_is_not_of_its_row_is_named(digits, tmp_path):
    """An encoder that gives other vectors under the same fingerprint is found out, by id."""
    home = Home(tmp_path)
    encoders = [build_encoder("pixels")]
    extract(digits, encoders, home=home)
    plans = complete_plans(digits, encoders, home=home)

    class Turned:
        """The same words, another vector."""

        def __init__(self, encoder):
            self.__dict__.update(vars(encoder))
            self.prepare, self._encode = encoder.prepare, encoder.encode

        def encode(self, kind, batch):
            """What it gives is turned by one place."""
            return [np.roll(vector, 1) for vector in self._encode(kind, batch)]

    object.__setattr__(plans[0], "encoder", Turned(plans[0].encoder))
    (found,) = recompute("digits", plans, home=home, count=5)
    assert found.worst < 0.999
    assert set(found.differing) <= set(digits.table["id"])
    assert len(found.differing) == 5


def test_a_stream_that_is_not_there_is_an_error(digits, tmp_path):
    """Nothing is encoded for a stream that these words did not make."""
    with pytest.raises(MmfuseError, match="mmfuse extract --dataset digits --encoder pixels"):
        complete_plans(digits, [build_encoder("pixels")], home=Home(tmp_path))
