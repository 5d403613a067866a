"""Why a stream has to be encoded: the fields that differ, named at once among many streams."""

import os
import re
import time

import pytest
from small_encoders import Echo, texts

from cache.layout import Home
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import plan
from pipelines.reports.extraction import explanation_table

STREAMS = 100


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with a hundred streams of one encoder, one version each."""
    found = Home(tmp_path_factory.mktemp("many"))
    versions = [Echo(version=number) for number in range(STREAMS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # no power is cut here
        extract(DATASET, versions, home=found, options=ExtractOptions(workers=0))
    return found


DATASET = texts({"m": ["a", "b", "c", "d"]})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"version": STREAMS}, r"version: \d+ → 100"),
        ({"version": 7, "storage": "float16"}, r"storage: 'float32' → 'float16'"),
        ({"version": 7, "company": True}, "company: False → True"),
        ({"version": 7}, "up to date"),
    ],
)
def test_the_fields_that_differ_from_the_nearest_stream_are_named(home, asked, message):
    """Exactly those fields, within a second, though a hundred streams are there to compare with."""
    plans = {DATASET.name: plan(DATASET, [Echo(**asked)], home=home)}
    start = time.monotonic()
    table = explanation_table(plans, home)
    assert time.monotonic() - start < 1
    (reason,) = [row[2] for row in table.rows]
    assert re.search(message, reason)
    assert reason.count("→") == ("→" in message)
