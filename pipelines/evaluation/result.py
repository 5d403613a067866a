"""Results of an evaluation: scores under each missing pattern, beside simple baselines."""

from dataclasses import dataclass

from cache.runs import RunRecord, Scores
from pipelines.metrics.significance import Difference


@dataclass(frozen=True)
class PatternScores:
    """Scores of a run and of baselines under one missing pattern.

    Attributes:
        scores: of the run on test rows.
        difference: to complete data; None for the complete pattern itself.
        single: the modality whose linear probe is best on validation rows with what is left, and
            the probe's scores on test rows under the same pattern.
        majority: of predicting the train rows' most frequent class.
        linear: logistic or ridge regression on the concatenation, under the same pattern.
    """

    scores: Scores
    difference: Difference | None
    single: tuple[str, Scores]
    majority: Scores
    linear: Scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run under missing patterns, the complete one first.

    Attributes:
        run: its record.
        metric: the task's first metric, in which differences are given.
        rows: one a pattern.
        notes: remarks to show under the table.
    """

    run: RunRecord
    metric: str
    rows: tuple[PatternScores, ...]
    notes: tuple[str, ...]
