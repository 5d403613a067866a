"""Why a stream has to be encoded: the fields that differ, named at once among many streams."""

import os
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from small_encoders import Echo, texts

from cache.layout import Home
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import plan
from pipelines.reports.extraction import explanation_table

STREAMS, READS = 100, 5


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
def test_the_fields_that_differ_from_the_nearest_are_named(home, asked, message, monkeypatch):
    """Exactly those fields, and at most five files of each of a hundred streams are read."""
    plans = {DATASET.name: plan(DATASET, [Echo(**asked)], home=home)}
    reads = Mock(wraps=Path.read_bytes)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: reads(path))
        table = explanation_table(plans, home)
    assert reads.call_count <= READS * STREAMS
    (reason,) = [row[2] for row in table.rows]
    assert re.search(message, reason)
    assert reason.count("→") == ("→" in message)
