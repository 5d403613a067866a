"""Features and runs of version 0.1 still open, and give what they gave.

`tests/fixtures/home-0.1.0.zip` was made by commit c43022d: raw data of 30 samples, their features
(one stream of them a sequence), a run of every method and one of a user's own file, and what
`evaluate` and `predict` of that commit answered.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from project import ROOT

import mmfuse

METHODS = (
    "clarga", "concat", "ef_cl", "film", "gated", "late", "mean", "mla", "old_head",
    "sum_features", "sum_logits", "trml", "unimodal",
)  # fmt: skip


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """The unpacked fixture: `artifacts`, `raw` and `expected.json`."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "home-0.1.0.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def runs(old) -> dict[str, mmfuse.RunRecord]:
    """Each recorded run by its method."""
    found = mmfuse.list_runs(mmfuse.Home(old / "artifacts"))
    return {Path(run.method).stem: run for run in found}


def test_every_byte_of_an_old_store_is_sound(old):
    """Four streams, one of them of sequences; nothing is damaged."""
    seen = mmfuse.verify(mmfuse.Home(old / "artifacts"))
    assert (seen.streams, seen.damages) == (4, ())


def test_nothing_of_an_old_store_is_encoded_again(old):
    """Fingerprints and digests of inputs are what they were, fitted encoders included."""
    home = mmfuse.Home(old / "artifacts")
    words = ("picture=image", "sound=audio", "facts=tabular:size,weight")
    table = mmfuse.TableOptions(
        modalities=tuple(map(mmfuse.parse_modality, words)), target="label", name="cards"
    )
    (cards,) = mmfuse.open_dataset(str(old / "raw" / "cards.csv"), table=table)
    encoders = [mmfuse.build_encoder(name) for name in ("pixels", "mfcc", "tabular")]
    encoders.append(mmfuse.build_encoder("mfcc", sequence=True))
    reports = mmfuse.extract(cards, encoders, home=home)
    assert [(one.new, one.complete) for one in reports] == [(0, True)] * 4
    assert sum(one.failures for one in reports) == 1  # as before: a picture that is none


def test_every_method_has_an_old_run(runs):
    """The fixture holds what the tests below ask it for."""
    assert sorted(runs) == sorted(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_an_old_run_scores_and_predicts_as_it_did(method, runs, old):
    """Heads are rebuilt from their files; a user's own file finds what it imports."""
    home, run = mmfuse.Home(old / "artifacts"), runs[method]
    expected = json.loads((old / "expected.json").read_text(encoding="utf-8"))[method]
    patterns = [mmfuse.MissingPattern.named("facts")] if method != "unimodal" else []
    found = {row.scores.pattern: row.scores for row in mmfuse.evaluate(home, run, patterns).rows}
    assert found.keys() == expected.keys() - {"probabilities"}
    for pattern, scores in found.items():
        assert scores.metrics.keys() > expected[pattern].keys()
        for name, values in expected[pattern].items():
            assert np.allclose(values, scores.metrics[name], atol=1e-6), (pattern, name)
    new = pl.read_csv(old / "raw" / "new.csv").drop("label", "split")
    answers = mmfuse.predict(home, run, new, root=old / "raw")
    assert np.allclose(answers.outputs, expected["probabilities"], atol=1e-6)
