"""Kept scores: an evaluation says the same again without a model, as long as nothing changed."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made import fill_store, made_table
from safetensors.numpy import load_file, save_file

from cache.layout import Home
from pipelines.evaluation import score as scoring
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.known import Known, KnownScores
from pipelines.features.missing import MissingPattern
from pipelines.metrics.significance import Difference
from pipelines.training.train import train

PATTERNS = [*MissingPattern.every(("audio", "image", "text")), MissingPattern.rate(0.4, 3)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on three streams, some cells absent."""
    home = Home(tmp_path_factory.mktemp("known"))
    fill_store(home, made_table(160, absent=0.1))
    words = {"epochs": "3", "seeds": "0,1", "width": "8"}
    return home, train("concat", "made", home=home, options=words)


def without_models(monkeypatch):
    """From here on, scoring anything fails."""

    def fail(*_args, **_options):
        raise AssertionError("scored again")

    monkeypatch.setattr(scoring, "score", fail)


def test_what_is_known_is_not_scored_again(trained, monkeypatch):
    """All patterns, then some of them in another order: equal in every field, notes included."""
    home, run = trained
    first = evaluate(home, run, PATTERNS)
    without_models(monkeypatch)
    again = evaluate(home, run, PATTERNS)
    assert (again.rows, again.notes, again.metrics) == (first.rows, first.notes, first.metrics)
    few = evaluate(home, run, [PATTERNS[-1], PATTERNS[2]])
    by_name = {row.scores.pattern: row for row in first.rows}
    asked = [MissingPattern(), PATTERNS[-1], PATTERNS[2]]
    assert few.rows == tuple(by_name[pattern.label] for pattern in asked)
    assert any("hides" in note for note in few.notes)


@pytest.mark.parametrize("change", ["metric", "seed", "damage", "weights"])
def test_what_depends_on_anything_else_is_scored(trained, monkeypatch, change):
    """Another metric, another draw, a record that is not what was written, other weights."""
    home, run = trained
    metrics, pattern = (), MissingPattern.rate(0.4, 3)
    before = evaluate(home, run, [pattern])
    without_models(monkeypatch)
    weights = run.path / "head.safetensors"
    kept = weights.read_bytes()
    if change == "metric":
        metrics = ("macro_f1",)
    elif change == "seed":
        pattern = MissingPattern.rate(0.4, 4)
    elif change == "damage":
        for file in (run.path / "known").iterdir():
            file.write_bytes(file.read_bytes().replace(b"0.", b"1.", 1))
    else:
        save_file({n: -np.ascontiguousarray(x) for n, x in load_file(weights).items()}, weights)
    with pytest.raises(AssertionError, match="scored again"):
        evaluate(home, run, [pattern], metrics=metrics)
    monkeypatch.undo()
    weights.write_bytes(kept)
    assert evaluate(home, run, [MissingPattern.rate(0.4, 3)]).rows == before.rows


def test_undefined_numbers_are_kept_as_such(trained):
    """A class without rows has no recall, a metric that is undefined in a sample no interval."""
    home, run = trained
    row = evaluate(home, run, [MissingPattern.named("text")]).rows[1]
    scores = replace(row.scores, metrics=row.scores.metrics | {"auroc": [math.nan, 0.5]})
    odd = replace(row, scores=scores, differences={"auroc": Difference(0.1, math.nan, math.nan)})
    known = Known(run, {"a": "b"}, ("auroc",), "cpu")
    known.put(PATTERNS[0], KnownScores(odd, ("said",)))
    found = known.get(PATTERNS[0])
    assert str(found) == str(KnownScores(odd, ("said",)))
    assert known.get(PATTERNS[1]) is None
