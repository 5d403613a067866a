"""Results of an evaluation: scores under each missing pattern, beside simple baselines."""

from dataclasses import dataclass

from cache.runs import RunRecord, Scores
from cache.shown import Shown
from pipelines.metrics.significance import Difference


@dataclass(frozen=True)
class PatternScores:
    """Scores of a run and of baselines under one missing pattern.

    Attributes:
        scores: of the run on test rows.
        differences: to complete data, by metric; empty for the complete pattern itself.
        single: the modality whose linear probe is best on validation rows with what is left, and
            the probe's scores on test rows under the same pattern. Best by what selected the run.
        majority: of predicting the train rows' most frequent class.
        linear: logistic or ridge regression on the concatenation, under the same pattern.
    """

    scores: Scores
    differences: dict[str, Difference]
    single: tuple[str, Scores]
    majority: Scores
    linear: Scores

    @property
    def difference(self) -> Difference | None:
        """Difference in the first metric that was asked for."""
        return next(iter(self.differences.values()), None)


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """Scores of a run under missing patterns, the complete one first.

    Attributes:
        run: its record.
        metrics: in which differences are given: those asked for, else the task's first.
        rows: one a pattern.
        notes: remarks to show under the table.
    """

    run: RunRecord
    metrics: tuple[str, ...]
    rows: tuple[PatternScores, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        values = self.rows[0].scores.metrics[self.metric]
        mean = sum(values) / len(values)
        patterns = ", ".join(row.scores.pattern for row in self.rows[:4])
        more = f" and {len(self.rows) - 4} more" if len(self.rows) > 4 else ""
        return f"<Evaluation of {self.run.id}: test {self.metric} {mean:.3f}; {patterns}{more}>"

    @property
    def metric(self) -> str:
        """The first of its metrics."""
        return self.metrics[0]
