"""Evaluation under missing patterns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import VALUE, fill_store, made_table

from cache.errors import MmfuseError
from cache.layout import Home
from cache.runs import RunRecord
from pipelines.evaluation.evaluate import evaluate
from pipelines.features.missing import MissingPattern
from pipelines.metrics.resampling import Resampler, of_terms
from pipelines.metrics.significance import bootstrap
from pipelines.reports.runs import metric_values, robustness_tables
from pipelines.training.train import train

WORDS = {"epochs": "12", "seeds": "0,1", "width": "16", "learning_rate": "1e-2"}


def trained(path: Path, absent: float = 0.0, **words: str) -> tuple[Home, RunRecord]:
    """A run on three streams of signal."""
    home = Home(path)
    fill_store(home, made_table(200, absent=absent))
    return home, train("concat", "made", home=home, options=WORDS | words)


def test_a_run_is_compared_with_itself_and_with_simpler_things(tmp_path: Path) -> None:
    """Complete scores are the recorded ones; hiding a modality that matters costs accuracy."""
    home, run = trained(tmp_path, drop_rate="0.3")
    found = evaluate(home, run.id, [MissingPattern.named("image")])
    complete, without = found.rows
    recorded = next(s for s in run.scores if s.split == "test")
    assert complete.scores == recorded
    assert complete.difference is None
    assert without.scores.pattern == "without image"
    assert without.scores.realised_rate == pytest.approx(1 / 3)
    wanted = np.mean(without.scores.metrics["accuracy"]) - np.mean(recorded.metrics["accuracy"])
    assert without.difference is not None
    assert without.difference.mean == pytest.approx(wanted)
    assert without.difference.low <= without.difference.mean <= without.difference.high
    assert without.difference.mean < 0
    assert without.single[0] in {"audio", "text"}
    assert complete.majority.metrics["accuracy"][0] < complete.linear.metrics["accuracy"][0]
    assert not found.notes


def test_scores_are_kept_beside_the_record(tmp_path: Path) -> None:
    """After evaluation the record has the pattern's scores, and those of the baselines."""
    home, run = trained(tmp_path)
    found = evaluate(home, run, MissingPattern.every(run.modalities))
    assert len(found.rows) == 7
    kept = {s.pattern: s for s in run.scores if s.split == "test"}
    for row in found.rows:
        assert kept[row.scores.pattern] == row.scores
    assert {"majority", "logistic"} < set(run.baselines)


def test_metrics_of_the_methods_own_stay_recorded(tmp_path: Path) -> None:
    """What a method measured in training is not lost when its test rows are scored again."""
    home, run = trained(tmp_path)
    recorded = next(s for s in run.scores if s.split == "test")
    run.add_scores([replace(recorded, metrics=recorded.metrics | {"match_r1": [0.5, 0.25]})])
    found = evaluate(home, run, [MissingPattern.named("image")])
    assert found.rows[0].scores.metrics["match_r1"] == [0.5, 0.25]
    assert "match_r1" not in found.rows[1].scores.metrics
    assert next(s for s in run.scores if s.split == "test") == found.rows[0].scores


def test_a_head_that_never_missed_anything_is_noted(tmp_path: Path) -> None:
    """Hiding modalities from a head trained on complete data is scored, and remarked on."""
    home, run = trained(tmp_path)
    notes = evaluate(home, run, [MissingPattern.named("audio")]).notes
    assert any("--drop-rate" in note for note in notes)
    assert not evaluate(home, run, []).notes


def test_unknown_modalities_and_runs_are_refused(tmp_path: Path) -> None:
    """The error lists what there is; nothing is scored."""
    home, run = trained(tmp_path)
    with pytest.raises(MmfuseError, match="there is: audio, text, image"):
        evaluate(home, run, [MissingPattern.named("smell")])
    with pytest.raises(MmfuseError, match="no run named"):
        evaluate(home, "no-such-run", [])


def test_a_run_on_samples_that_changed_is_refused(tmp_path: Path) -> None:
    """Features of other samples now are not what the head was trained on."""
    home, run = trained(tmp_path)
    table = made_table(200, absent=0.0)
    samples = replace(table.samples, ids=np.array([f"new{i}" for i in range(200)], object))
    fill_store(home, replace(table, samples=samples))
    with pytest.raises(MmfuseError, match="changed since"):
        evaluate(home, run, [])


def test_a_value_task_is_scored_in_units_of_its_target(tmp_path: Path) -> None:
    """Mean absolute error is below the median's, and ridge regression stands beside it."""
    home = Home(tmp_path)
    fill_store(home, made_table(200, VALUE, absent=0.0))
    run = train("concat", "made", home=home, options=WORDS)
    found = evaluate(home, run, [MissingPattern.rate(0.5)])
    complete = found.rows[0]
    assert found.metric == "mae"
    assert np.mean(complete.scores.metrics["mae"]) < complete.majority.metrics["mae"][0] * 0.8
    assert "ridge" in run.baselines


def of_replicas(values: np.ndarray) -> list[Resampler]:
    """Means of samples of rows, of each replica's values (R, N)."""
    return [of_terms((one, np.ones(len(one)))) for one in values]


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    """For one replica and many rows it is mean ± 1.96 standard errors of the paired change."""
    rng = np.random.default_rng(0)
    first = (rng.random((1, 400)) < 0.8).astype(float)
    second = np.where(rng.random((1, 400)) < 0.2, 0.0, first)
    change = second - first
    found = bootstrap(of_replicas(first), of_replicas(second), 400)
    error = 1.96 * change.std() / np.sqrt(400)
    assert found.mean == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - error, abs=0.006)
    assert found.high == pytest.approx(change.mean() + error, abs=0.006)


def test_the_bootstrap_draws_replicas_too() -> None:
    """Replicas that differ widen the interval; equal patterns have the difference 0, exactly."""
    rng = np.random.default_rng(1)
    one = (rng.random((1, 200)) < 0.8).astype(float).repeat(4, 0)
    worse = one * np.array([[1.0], [1.0], [0.5], [0.0]])
    spread = bootstrap(of_replicas(one), of_replicas(worse), 200)
    even = bootstrap(of_replicas(one), of_replicas(one * 0.625), 200)
    assert spread.mean == pytest.approx(even.mean)
    assert spread.high - spread.low > 2 * (even.high - even.low)
    same = bootstrap(of_replicas(one), of_replicas(one), 200)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_several_methods_are_put_side_by_side_and_one_is_not(tmp_path: Path) -> None:
    """Methods × what is missing, of runs on one dataset; the numbers are the evaluations' own."""
    home, run = trained(tmp_path)
    other = train("mean", "made", home=home, options=WORDS)
    patterns = [MissingPattern.named("image")]
    done = [evaluate(home, one, patterns) for one in (run, other)]
    (table,) = robustness_tables(done)
    assert table.headings == ["method", "complete", "without image", "data × weights"]
    assert [row[0] for row in table.texts()] == ["concat", "mean", "logistic", "majority"]
    for row, evaluation in zip(table.texts(), done, strict=False):
        assert row[1:3] == [str(metric_values(each.scores)) for each in evaluation.rows]
    first = table.records()[1]
    assert (first["label"], first["missing"], first["rows"]) == ("concat", "without image", 40)
    assert first["score_values"] == done[0].rows[1].scores.metrics["accuracy"]
    assert robustness_tables(done[:1]) == []
