"""Runs as tables: training scores, scores with modalities hidden, past runs, costs."""

import math
from collections.abc import Iterable, Sequence

from cache.runs import RunRecord, Scores
from pipelines.evaluation.result import Evaluation
from pipelines.metrics.metrics import LOWER_IS_BETTER
from pipelines.reports.notes import merged_over
from pipelines.reports.table import Cell, Spread, Table, decimal, interval

PLAIN = ("logistic", "ridge", "majority")  # baselines shown with every method
NOT_FUSION = ("unimodal",)  # methods for one stream
OFFICIAL = ("preset", "official")  # always part of a label


def train_table(records: Sequence[RunRecord]) -> Table:
    """Table of validation and test scores by dataset, with baselines on the same streams below.

    The folds of a cross-validation are one row, over folds and seeds.

    Args:
        records: at least one.
    """
    rows: list[tuple[Cell, ...]] = []
    for dataset in dict.fromkeys(record.dataset for record in records):
        runs = [record for record in records if record.dataset == dataset]
        named: dict[str, list[RunRecord]] = {}
        for run, name in zip(runs, run_labels(runs), strict=True):
            named.setdefault(name, []).append(run)
        for name, folds in named.items():
            rows.append(_row(name, folds, [run.scores for run in folds], folds[0].parameters))
        beside: dict[tuple[str, object], tuple[Cell, ...]] = {}
        for folds in named.values():
            for name in PLAIN:
                found = [run.baselines.get(name, []) for run in folds]
                if all(found):
                    streams = () if name == "majority" else folds[0].streams
                    beside.setdefault((name, streams), _row(name, folds, found, None))
        rows += [beside[key] for key in sorted(beside, key=lambda key: key[0])]
    columns = ("dataset", "method", "metric", "val", "test", "parameters", "data × weights")
    title = f"trained: mean ± standard deviation over {_replicas(records)}"
    return Table(title, columns, tuple(rows), _notes(records))


def sweep_table(trials: Sequence[Sequence[RunRecord]]) -> Table:
    """Table of a sweep's settings by validation score alone.

    Args:
        trials: the runs of each setting, one or one a fold; the best first.
    """
    runs = [folds[0] for folds in trials]
    rows = tuple(
        (
            name,
            first_metric(folds[0].scores),
            _joined(metric_spread(run.scores, "val") for run in folds),
            folds[0].parameters,
            folds[0].id,
        )
        for name, folds in zip(run_labels(runs), trials, strict=True)
    )
    title = f"settings, best first: validation mean ± standard deviation over {_replicas(runs)}"
    return Table(title, ("setting", "metric", "val", "parameters", "run"), rows)


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """Table of scores under missing patterns, change from complete, and baselines."""
    runs = [evaluation.run for evaluation in evaluations]
    rows: list[tuple[Cell, ...]] = []
    said: list[tuple[str, str]] = []
    for evaluation, name in zip(evaluations, run_labels(runs), strict=True):
        for row in evaluation.rows:
            change = row.difference
            kind, single = row.single
            rows.append((
                evaluation.run.dataset, name, row.scores.pattern, evaluation.metric,
                metric_values(row.scores), f"{row.scores.realised_rate:.3f}",
                None if change is None else decimal(change.mean, "+"),
                None if change is None else interval(change.low, change.high),
                metric_values(row.linear), f"{kind} {metric_values(single)}",
                metric_values(row.majority),
                evidence_tags(evaluation.run),
            ))  # fmt: skip
        said += [(evaluation.run.dataset, note) for note in evaluation.notes]
    notes = [*merged_over(said), *_alone(runs)]
    columns = (
        "dataset", "method", "missing", "metric", "score", "hidden", "change", "95 % interval",
        "linear", "best single", "majority", "data × weights",
    )  # fmt: skip
    legend = (
        "hidden: share of present cells; change: from complete, paired bootstrap of rows and seeds",
        "linear, best single, majority: under the same pattern; single chosen on validation rows",
    )
    return Table("test scores", columns, tuple(rows), (*legend, *dict.fromkeys(notes)))


def robustness_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """`robustness_table` of each dataset where several runs on the same streams were scored.

    Runs of one fold are left out: they have no test rows in common.
    """
    alike: dict[tuple[object, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        run = evaluation.run
        if run.plan.get("folds"):
            continue
        streams = tuple(stream.name for stream in run.streams)
        patterns = tuple(row.scores.pattern for row in evaluation.rows)
        alike.setdefault((run.dataset, streams, patterns), []).append(evaluation)
    return [robustness_table(several) for several in alike.values() if len(several) > 1]


def robustness_table(evaluations: Sequence[Evaluation]) -> Table:
    """Table of methods × missing patterns, on test rows, for runs on the same streams.

    Args:
        evaluations: under the same patterns, at least one.
    """
    start = evaluations[0]
    patterns = [row.scores.pattern for row in start.rows]
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            *(metric_values(row.scores) for row in evaluation.rows),
            evidence_tags(evaluation.run),
        )
        for evaluation, name in zip(
            evaluations, run_labels([e.run for e in evaluations]), strict=True
        )
    ]
    plain = "ridge" if start.run.task.kind == "value" else "logistic"
    rows.append(
        (plain, *(metric_values(row.linear) for row in start.rows), evidence_tags(start.run))
    )
    rows.append(
        ("majority", *(metric_values(row.majority) for row in start.rows), evidence_tags(start.run))
    )
    title = f"{start.run.dataset}: test {start.metric}, mean ± standard deviation over "
    title += f"{_replicas([start.run])}, {start.rows[0].scores.rows} rows"
    return Table(title, ("method", *patterns, "data × weights"), tuple(rows))


def runs_table(records: Sequence[RunRecord]) -> Table:
    """Table of past runs, newest last: method, streams and test score as trained.

    Methods are shown with the settings in which these runs differ, tags and notes where there are
    some.
    """
    labels = [run.labels for run in records]
    written = any(one.tags or one.note for one in labels)
    rows = tuple(
        (
            run.id,
            run.created[:16].replace("T", " "),
            run.dataset,
            name,
            " ".join(stream.name for stream in run.streams),
            f"{first_metric(run.scores)} {metric_spread(run.scores, 'test') or '-'}",
            evidence_tags(run),
            *((", ".join(own.tags) or None, own.note or None) if written else ()),
        )
        for run, name, own in zip(
            records, run_labels(records, ("seeds", "features")), labels, strict=True
        )
    )
    columns = ("run", "when (UTC)", "dataset", "method", "streams", "test", "data × weights")
    return Table("runs", (*columns, *(("tags", "note") if written else ())), rows)


def ordered(records: Sequence[RunRecord], split: str) -> list[RunRecord]:
    """Runs by their task's first metric on a split, the best last; those without it first.

    Args:
        records: of any tasks; runs of one metric stand together.
        split: val or test.
    """

    def place(run: RunRecord) -> tuple[str, bool, float]:
        metric, found = first_metric(run.scores), metric_spread(run.scores, split)
        value = math.nan if found is None else found.mean
        return metric, not math.isnan(value), -value if metric in LOWER_IS_BETTER else value

    return sorted(records, key=place)


def cost_table(records: Sequence[RunRecord]) -> Table:
    """Table of the cost of one sample: parameters, multiply-accumulates, milliseconds."""
    names = ("latency_p50", "latency_p95", "with_encoders_p50", "with_encoders_p95")
    rows = tuple(
        (
            record.dataset,
            name,
            record.parameters,
            round(record.costs["macs"]),
            *(_milliseconds(record.costs.get(each)) for each in names),
            record.device,
            evidence_tags(record),
        )
        for record, name in zip(records, run_labels(records), strict=True)
    )
    columns = (
        "dataset", "method", "parameters", "MACs", "head p50", "p95", "with encoders p50",
        "p95 at most", "device", "data × weights",
    )  # fmt: skip
    note = "with encoders: read, prepare and encode, one stream after another; -: not timed"
    return Table("cost of one sample in milliseconds, batch of one", columns, rows, (note,))


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1e3:.2f}"


def run_labels(
    records: Sequence[RunRecord], ignored: Sequence[str] = ("seeds", "fold")
) -> list[str]:
    """Label of each run: its method, with the settings in which runs of that method differ.

    Folds of one cross-validation have the same label. `preset=official` (what the public code
    does, faults included) is always part of it.

    Args:
        records: the runs.
        ignored: settings that are never part of a label.
    """
    found = []
    for record in records:
        alike = [_settings(run, ignored) for run in records if run.method == record.method]
        differing = [
            f"{name}={value}"
            for name, value in _settings(record, ignored).items()
            if (name, value) == OFFICIAL or any(other.get(name, value) != value for other in alike)
        ]
        found.append(" ".join([record.method, *differing]))
    return found


def evidence_tags(run: RunRecord) -> str:
    """`real × pretrained`: source of the data, and of the encoders' weights."""
    return f"{run.tags['data']} × {run.tags['weights']}"


def first_metric(found: Sequence[Scores]) -> str:
    """Name of the task's first metric."""
    return next(iter(found[0].metrics)) if found else "-"


def metric_spread(found: Sequence[Scores], split: str, pattern: str | None = None) -> Spread | None:
    """The task's first metric on a split; None where it was not scored.

    Args:
        found: of a run or a baseline.
        split: val or test.
        pattern: its label; None: as in training.
    """
    for scores in found:
        if scores.split == split and pattern in (None, scores.pattern):
            return metric_values(scores)
    return None


def metric_values(scores: Scores) -> Spread:
    """The task's first metric, one value a replica."""
    return Spread(tuple(next(iter(scores.metrics.values()))))


def _settings(run: RunRecord, ignored: Sequence[str]) -> dict[str, object]:
    streams = "+".join(stream.name for stream in run.streams)
    own = {**run.plan, **run.options, "features": streams}
    if own.get("fold") is None:
        own.pop("fold", None)  # all runs but those of a cross-validation
    return {name: value for name, value in own.items() if name not in ignored}


def _row(
    name: str,
    runs: Sequence[RunRecord],
    found: Sequence[Sequence[Scores]],
    parameters: int | None,
) -> tuple[Cell, ...]:
    val, test = (_joined(metric_spread(one, split) for one in found) for split in ("val", "test"))
    return (
        runs[0].dataset,
        name,
        first_metric(found[0]),
        val,
        test,
        parameters,
        evidence_tags(runs[0]),
    )


def _joined(parts: Iterable[Spread | None]) -> Spread:
    """One spread over all folds and seeds."""
    return Spread(tuple(value for part in parts if part is not None for value in part.values))


def _replicas(records: Sequence[RunRecord]) -> str:
    counts = sorted({len(record.seeds) for record in records})
    seeds = f"{', '.join(map(str, counts))} seed{'' if counts == [1] else 's'}"
    folds = sorted({folds for run in records if isinstance(folds := run.plan.get("folds"), int)})
    several = [f"{count} folds × " for count in folds if count]
    return f"{several[0] if several else ''}{seeds}"


def _notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    streams = dict.fromkeys(tuple(stream.name for stream in run.streams) for run in records)
    notes = [f"streams: {', '.join(names)}" for names in streams]
    for run in records:
        asked = run.plan.get("missing_rate")
        if asked:
            notes.append(
                f"missing rate {asked} hid {run.missing_rate:.3f} of the present cells of all rows"
            )
        notes += run.notes
    notes += _alone(records)
    if any("random" in run.tags["weights"].split("+") for run in records):
        notes.append("random weights: fit for timing, not for accuracy")
    return tuple(dict.fromkeys(notes))


def _alone(records: Sequence[RunRecord]) -> list[str]:
    """A warning for each stream that fusion methods were trained on alone."""
    methods: dict[str, list[str]] = {}
    for run in records:
        if len(run.streams) == 1 and run.method not in NOT_FUSION:
            methods.setdefault(run.streams[0].name, []).append(run.method)
    return [
        f"warning: nothing was fused: {', '.join(dict.fromkeys(names))} on one stream, {stream}"
        for stream, names in methods.items()
    ]
