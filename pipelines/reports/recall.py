"""Recall of each class: a row a class, methods side by side."""

import math
from collections.abc import Mapping, Sequence

from cache.runs import RunRecord, Scores
from pipelines.evaluation.recorded import recorded_scores
from pipelines.evaluation.result import Evaluation
from pipelines.metrics.metrics import RECALL
from pipelines.reports.runs import LABEL, PLAIN, run_labels
from pipelines.reports.table import Cell, Column, Spread, Table

SHOWN = 20  # classes in the text of a table; records have all
Scored = tuple[str, str, RunRecord | None, Scores]  # label, method, run (None: a baseline), scores


def recall_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Recall on test rows as trained, one table a dataset, with the baselines beside.

    Args:
        records: runs of any tasks; those without classes, and of one fold, are left out.
    """
    groups: dict[tuple[object, ...], list[Scored]] = {}
    beside: dict[tuple[object, ...], list[Scored]] = {}
    for run, name in zip(records, run_labels(records), strict=True):
        for scores in _first_of_test(recorded_scores(run, [RECALL])):
            group = _group(run, scores)
            groups.setdefault(group, []).append((name, run.method, run, scores))
            beside[group] = [
                (plain, plain, None, simple)
                for plain in PLAIN
                for simple in _first_of_test(run.baselines.get(plain, []))
            ]
    return _tables({group: scored + beside[group] for group, scored in groups.items()})


def pattern_recall_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Recall on test rows under each missing pattern, one table a dataset and pattern."""
    groups: dict[tuple[object, ...], list[Scored]] = {}
    beside: dict[tuple[object, ...], list[Scored]] = {}
    labels = run_labels([evaluation.run for evaluation in evaluations])
    for evaluation, name in zip(evaluations, labels, strict=True):
        run = evaluation.run
        for row in evaluation.rows:
            group = _group(run, row.scores)
            groups.setdefault(group, []).append((name, run.method, run, row.scores))
            beside[group] = [
                ("logistic", "logistic", None, row.linear),
                ("majority", "majority", None, row.majority),
            ]
    return _tables({group: scored + beside[group] for group, scored in groups.items()})


def _group(run: RunRecord, scores: Scores) -> tuple[object, ...]:
    """What runs of one table have in common."""
    return run.dataset, tuple(stream.name for stream in run.streams), scores.pattern


def _tables(groups: Mapping[tuple[object, ...], Sequence[Scored]]) -> list[Table]:
    return [
        _table(run, scored)
        for scored in groups.values()
        if (run := scored[0][2]) and run.task.kind == "classes" and not run.plan.get("folds")
    ]


def _first_of_test(found: Sequence[Scores]) -> list[Scores]:
    return [scores for scores in found if scores.split == "test"][:1]


def _table(run: RunRecord, scored: Sequence[Scored]) -> Table:
    """Classes in the task's order; if they are many, those of the lowest recall first."""
    pattern = scored[0][-1].pattern
    classes = range(len(run.task.names))
    spreads = [_spreads(scores, len(classes)) for *_, scores in scored]
    order, notes = list(classes), ["-: the class has no test rows, or recall was not recorded"]
    if len(order) > SHOWN:
        order.sort(key=lambda c: (spreads[0][c] is None, (spreads[0][c] or Spread((0.0,))).mean))
        notes.insert(0, f"classes: those of the lowest recall of {scored[0][0]} first")
    if all(spread is not None for each in spreads for spread in each):
        notes.pop()
    counts = next((s.per_class["rows"][0] for *_, s in scored if s.per_class), None)
    rows: list[tuple[Cell, ...]] = [
        (run.task.names[c], None if counts is None else int(counts[c]), label, each[c],
         run.dataset, pattern, method, None if own is None else own.id)
        for c in order
        for (label, method, own, _), each in zip(scored, spreads, strict=True)
    ]  # fmt: skip
    columns = (
        "class", "rows", LABEL, Column.spread(RECALL), Column.hidden("dataset"),
        Column.hidden("missing"), Column.hidden("method"), Column.hidden("run"),
    )  # fmt: skip
    where = "" if pattern == "complete" else f", {pattern}"
    return Table(
        f"{run.dataset}: recall of test rows by class{where}",
        columns,
        tuple(rows),
        tuple(notes),
        RECALL,
        across=("method", RECALL),
        limit=SHOWN,
    )


def _spreads(scores: Scores, classes: int) -> list[Spread | None]:
    """Recall of each class over replicas; None where it is undefined or not recorded."""
    each = scores.per_class.get(RECALL)
    if each is None:
        return [None] * classes
    found = [Spread(tuple(replica[c] for replica in each)) for c in range(classes)]
    return [None if math.isnan(spread.mean) else spread for spread in found]
