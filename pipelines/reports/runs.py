"""Runs as tables: training scores, scores with modalities hidden, past runs, costs."""

import math
from collections.abc import Iterable, Sequence

from cache.runs import RunRecord, Scores
from pipelines.evaluation.recorded import recorded_scores
from pipelines.evaluation.result import Evaluation, PatternScores
from pipelines.metrics.metrics import LOWER_IS_BETTER, METRICS, PRIMARY, RECALL
from pipelines.reports.notes import merged_over
from pipelines.reports.table import Cell, Column, Spread, Table
from pipelines.training.plan import selected_by, selecting_metric

PLAIN = ("logistic", "ridge", "majority")  # baselines shown with every method
NOT_FUSION = ("unimodal",)  # methods for one stream
OFFICIAL = ("preset", "official")  # always part of a label
LABEL = Column("method", ("label",))  # the method with the settings that tell runs apart
EVIDENCE = Column.pair("data × weights", "data", "weights")
Row = tuple[Cell, ...]


def train_table(records: Sequence[RunRecord], metrics: Sequence[str] = ()) -> Table:
    """Table of validation and test scores by dataset, with baselines on the same streams below.

    The folds of a cross-validation are one row, over folds and seeds. Several metrics stand below
    each other, all methods of one together.

    Args:
        records: at least one.
        metrics: by name; default: the task's first, and the one that selected where it is another.
    """
    rows: list[Row] = []
    gaps: dict[str, list[str]] = {}
    for dataset in dict.fromkeys(record.dataset for record in records):
        runs = [record for record in records if record.dataset == dataset]
        every = [scores for run in runs for scores in run.scores]
        shown, named = shown_metrics(runs, metrics, every=every), _by_label(runs)
        found = {run.id: recorded_scores(run, shown) for run in runs}
        for metric in shown:
            methods = [
                _row(name, metric, folds, [found[run.id] for run in folds])
                for name, folds in named.items()
            ]
            for row, scored in (*methods, *_baseline_rows(named, metric)):
                if metric in METRICS[runs[0].task.kind]:
                    rows.append(row)
                    gaps.setdefault(metric, []).extend([] if scored else [row[1]])
                elif row[3] or row[4]:  # a method's own metric, which no other has
                    rows.append(row)
    columns = (
        "dataset", LABEL, "metric", Column.spread("val"), Column.spread("test"), "parameters",
        EVIDENCE, Column.hidden("method"), Column.hidden("runs"), Column.hidden("seeds"),
    )  # fmt: skip
    title = f"trained: mean ± standard deviation over {_replicas(records)}"
    notes = [
        *_notes(records),
        *selection_notes(records),
        *metric_notes([row[2] for row in rows], metrics),
    ]
    notes += _gap_notes(gaps)
    return Table(title, columns, tuple(rows), tuple(notes), "scores")


def shown_metrics(
    runs: Sequence[RunRecord], asked: Sequence[str], *, every: Sequence[Scores] = ()
) -> list[str]:
    """The metrics to show of runs of one task: those asked for that these have.

    Args:
        runs: at least one.
        asked: names; recall by class has tables of its own. Where these have none of them: the
            task's first, and the one that selected the runs where it is another.
        every: scores whose metrics may be shown beyond the task's.
    """
    kind = runs[0].task.kind
    known = {*METRICS[kind], *(name for scores in every for name in scores.metrics)}
    found = [name for name in dict.fromkeys(asked) if name in known and name != RECALL]
    return found or list(dict.fromkeys([PRIMARY[kind], selected_by(runs)]))


def known_metrics(records: Iterable[RunRecord]) -> list[str]:
    """Names of every metric of some runs: of their tasks, recall by class, of their methods."""
    found: dict[str, None] = {}
    for run in records:
        found |= dict.fromkeys(METRICS[run.task.kind])
        found |= dict.fromkeys(name for scores in run.scores for name in scores.metrics)
        found |= {RECALL: None} if run.task.kind == "classes" else {}
    return list(found)


def sweep_table(trials: Sequence[Sequence[RunRecord]], metric: str | None = None) -> Table:
    """Table of a sweep's settings by validation score alone.

    Args:
        trials: the runs of each setting, one or one a fold; the best first.
        metric: that ranks them; default: what their plans select by.
    """
    runs = [folds[0] for folds in trials]
    metric = metric or selected_by(runs)
    rows = tuple(
        (
            name,
            metric,
            _joined(metric_spread(run.scores, "val", metric) for run in folds),
            folds[0].parameters,
            folds[0].id,
            folds[0].dataset,
            folds[0].method,
            [run.id for run in folds],
        )
        for name, folds in zip(run_labels(runs), trials, strict=True)
    )
    title = f"settings, best first: validation mean ± standard deviation over {_replicas(runs)}"
    columns = (
        Column("setting", ("label",)), "metric", Column.spread("val"), "parameters", "run",
        Column.hidden("dataset"), Column.hidden("method"), Column.hidden("runs"),
    )  # fmt: skip
    return Table(title, columns, rows, tuple(selection_notes(runs)), "settings")


def evaluation_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = ()) -> Table:
    """Table of scores under missing patterns, change from complete, and baselines.

    Args:
        evaluations: at least one.
        metrics: by name; default: those that each evaluation was made for.
    """
    runs = [evaluation.run for evaluation in evaluations]
    rows: list[Row] = []
    said: list[tuple[str, str]] = []
    for evaluation, name in zip(evaluations, run_labels(runs), strict=True):
        every = [*evaluation.run.scores, *(row.scores for row in evaluation.rows)]
        asked = shown_metrics([evaluation.run], metrics or evaluation.metrics, every=every)
        rows += [
            _pattern_row(evaluation.run, name, row, metric)
            for metric in asked
            for row in evaluation.rows
        ]
        said += [(evaluation.run.dataset, note) for note in evaluation.notes]
    notes = [*merged_over(said), *_alone(runs)]
    legend = (
        "hidden: share of present cells; change: from complete, paired bootstrap of rows and seeds",
        "linear, best single, majority: under the same pattern; single chosen on validation rows",
    )
    single = Column(
        "best single",
        ("single", "single_mean", "single_std", "single_values"),
        lambda cell: f"{cell[0]} {cell[1]}",
        lambda cell: (cell[0], *Column.spread("single").split(cell[1])),
    )
    columns = (
        "dataset", LABEL, "missing", "metric", Column.spread("score"), "hidden",
        Column.change("change"), Column.interval("95 % interval"), Column.spread("linear"), single,
        Column.spread("majority"), EVIDENCE, Column.hidden("method"), Column.hidden("run"),
        Column.hidden("rows"),
    )  # fmt: skip
    every_note = (*legend, *metric_notes([row[3] for row in rows], metrics), *dict.fromkeys(notes))
    return Table("test scores", columns, tuple(rows), every_note, "evaluation")


def _pattern_row(run: RunRecord, name: str, row: PatternScores, metric: str) -> Row:
    change = row.differences.get(metric)
    kind, single = row.single[0], metric_values(row.single[1], metric)
    return (
        run.dataset, name, row.scores.pattern, metric, metric_values(row.scores, metric),
        row.scores.realised_rate,
        None if change is None else change.mean,
        None if change is None else (change.low, change.high),
        metric_values(row.linear, metric), single and (kind, single),
        metric_values(row.majority, metric), evidence(run), run.method, run.id, row.scores.rows,
    )  # fmt: skip


def robustness_tables(
    evaluations: Sequence[Evaluation], metrics: Sequence[str] = ()
) -> list[Table]:
    """`robustness_table` of each dataset and metric where several runs on the same streams are.

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
    return [
        robustness_table(several, metric)
        for several in alike.values()
        if len(several) > 1
        for metric in shown_metrics([several[0].run], metrics or several[0].metrics)
    ]


def robustness_table(evaluations: Sequence[Evaluation], metric: str | None = None) -> Table:
    """Table of methods × missing patterns, on test rows, for runs on the same streams.

    Args:
        evaluations: under the same patterns, at least one.
        metric: default: the first that they were made for.
    """
    start = evaluations[0]
    metric = metric or start.metric
    labels = run_labels([evaluation.run for evaluation in evaluations])
    rows: list[Row] = [
        (name, scores.pattern, metric_values(scores, metric), evidence(run), run.dataset,
         run.method, metric, run.id, scores.rows)
        for evaluation, name in zip(evaluations, labels, strict=True)
        for run in [evaluation.run]
        for scores in [row.scores for row in evaluation.rows]
    ]  # fmt: skip
    plain = "ridge" if start.run.task.kind == "value" else "logistic"
    baselines = [(plain, row.linear) for row in start.rows]
    baselines += [("majority", row.majority) for row in start.rows]
    rows += [
        (name, scores.pattern, metric_values(scores, metric), evidence(start.run),
         start.run.dataset, name, metric, None, scores.rows)
        for name, scores in baselines
    ]  # fmt: skip
    title = f"{start.run.dataset}: test {metric}, mean ± standard deviation over "
    title += f"{_replicas([start.run])}, {start.rows[0].scores.rows} rows"
    columns = (
        LABEL, "missing", Column.spread("score"), EVIDENCE, Column.hidden("dataset"),
        Column.hidden("method"), Column.hidden("metric"), Column.hidden("run"),
        Column.hidden("rows"),
    )  # fmt: skip
    notes = ("lower is better",) if metric in LOWER_IS_BETTER else ()
    return Table(title, columns, tuple(rows), notes, "robustness", across=("missing", "score"))


def runs_table(records: Sequence[RunRecord]) -> Table:
    """Table of past runs, newest last: method, streams and test score as trained.

    Methods are shown with the settings in which these runs differ, tags and notes where there are
    some.
    """
    labels = [run.labels for run in records]
    written = any(one.tags or one.note for one in labels)
    rows = tuple(
        (run.id, run.created, run.dataset, name, [stream.name for stream in run.streams],
         first_metric(run.scores), metric_spread(run.scores, "test"), evidence(run),
         list(own.tags), own.note or None, run.method)
        for run, name, own in zip(
            records, run_labels(records, ("seeds", "features")), labels, strict=True
        )
    )  # fmt: skip
    columns = (
        "run", Column.time("when (UTC)", "created"), "dataset", LABEL,
        Column.words("streams", mark=" "), "metric", Column.spread("test"), EVIDENCE,
        Column.words("tags") if written else Column.hidden("tags"),
        Column("note") if written else Column.hidden("note"), Column.hidden("method"),
    )  # fmt: skip
    return Table("runs", columns, rows, name="runs")


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
        (record.dataset, name, record.parameters, round(record.costs["macs"]),
         *(record.costs.get(each) for each in names), record.device, evidence(record),
         record.method, record.id)
        for record, name in zip(records, run_labels(records), strict=True)
    )  # fmt: skip
    timed = Column.milliseconds
    columns = (
        "dataset", LABEL, "parameters", "MACs", timed("head p50", "head_p50_seconds"),
        timed("p95", "head_p95_seconds"),
        timed("with encoders p50", "with_encoders_p50_seconds"),
        timed("p95 at most", "with_encoders_p95_seconds"), "device", EVIDENCE,
        Column.hidden("method"), Column.hidden("run"),
    )  # fmt: skip
    note = "with encoders: read, prepare and encode, one stream after another; -: not timed"
    title = "cost of one sample in milliseconds, batch of one"
    return Table(title, columns, rows, (note,), "costs")


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


def evidence(run: RunRecord) -> tuple[str, str]:
    """Source of the data, and of the encoders' weights."""
    return run.tags["data"], run.tags["weights"]


def evidence_tags(run: RunRecord) -> str:
    """`real × pretrained`: `evidence` as text."""
    return " × ".join(evidence(run))


def first_metric(found: Sequence[Scores]) -> str:
    """Name of the task's first metric."""
    return next(iter(found[0].metrics)) if found else "-"


def metric_spread(found: Sequence[Scores], split: str, metric: str | None = None) -> Spread | None:
    """A metric on a split as trained; None where it was not scored or is not recorded.

    Args:
        found: of a run or a baseline.
        split: val or test.
        metric: by name; default: the task's first.
    """
    for scores in found:
        if scores.split == split:
            return metric_values(scores, metric)
    return None


def metric_values(scores: Scores, metric: str | None = None) -> Spread | None:
    """A metric, one value a replica; default: the task's first. None where it is not recorded."""
    values = scores.metrics.get(metric or next(iter(scores.metrics)))
    return None if values is None else Spread(tuple(values))


def selection_notes(records: Sequence[RunRecord]) -> list[str]:
    """A line on what selected, for runs where it is not the default."""
    found: dict[str, list[str]] = {}
    for run in records:
        if run.plan.get("monitor", "task") != "task":
            found.setdefault(selection(run), []).append(run.method)
    whole = len(records) == sum(map(len, found.values()))
    if len(found) == 1 and whole:
        return list(found)
    return [f"{', '.join(dict.fromkeys(names))}: {words}" for words, names in found.items()]


def selection(run: RunRecord) -> str:
    """What selected a run's epochs, and what selects among runs and settings, in words."""
    monitor = run.plan.get("monitor", "task")
    metric = selecting_metric(run.task.kind, monitor)
    if monitor in ("task", "loss"):
        loss = "task loss" if monitor == "task" else "the method's own loss"
        return f"selected on validation rows: epochs by {loss}, settings and runs by {metric}"
    return f"selected by {metric} on validation rows: epochs, settings and runs"


def _settings(run: RunRecord, ignored: Sequence[str]) -> dict[str, object]:
    streams = "+".join(stream.name for stream in run.streams)
    own = {**run.plan, **run.options, "features": streams}
    if own.get("fold") is None:
        own.pop("fold", None)  # all runs but those of a cross-validation
    return {name: value for name, value in own.items() if name not in ignored}


def _by_label(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by their label: the folds of a cross-validation together."""
    named: dict[str, list[RunRecord]] = {}
    for run, name in zip(runs, run_labels(runs), strict=True):
        named.setdefault(name, []).append(run)
    return named


def _baseline_rows(named: dict[str, list[RunRecord]], metric: str) -> list[tuple[Row, bool]]:
    """Rows of the baselines, once for runs on the same streams; whether each has the metric."""
    found: dict[tuple[str, object], tuple[Row, bool]] = {}
    for folds in named.values():
        for name in PLAIN:
            scores = [run.baselines.get(name, []) for run in folds]
            if all(scores):
                streams = () if name == "majority" else folds[0].streams
                found.setdefault((name, streams), _row(name, metric, folds, scores, own=False))
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _row(
    name: str,
    metric: str,
    runs: Sequence[RunRecord],
    found: Sequence[Sequence[Scores]],
    *,
    own: bool = True,
) -> tuple[Row, bool]:
    """A row of scores, and whether the metric is recorded wherever something was scored."""
    start = runs[0]
    val, test = (
        _joined(metric_spread(one, split, metric) for one in found) for split in ("val", "test")
    )
    row = (
        start.dataset, name, metric, val, test, start.parameters if own else None, evidence(start),
        start.method if own else name, [run.id for run in runs] if own else None,
        len(start.seeds) if own else None,
    )  # fmt: skip
    return row, all(metric in scores.metrics for one in found for scores in _as_trained(one))


def _as_trained(found: Sequence[Scores]) -> list[Scores]:
    """The first scores of each split."""
    return list({scores.split: scores for scores in reversed(found)}.values())


def _joined(parts: Iterable[Spread | None]) -> Spread | None:
    """One spread over all folds and seeds; None where there is none."""
    values = tuple(value for part in parts if part is not None for value in part.values)
    return Spread(values) if values else None


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


def metric_notes(shown: Iterable[str], asked: Sequence[str]) -> list[str]:
    """Which of the metrics shown are better when lower, where metrics were asked for."""
    lower = [name for name in dict.fromkeys(shown) if name in LOWER_IS_BETTER]
    return [f"lower is better: {', '.join(lower)}"] if asked and lower else []


def _gap_notes(gaps: dict[str, list[str]]) -> list[str]:
    """One line on scores that an older version did not record."""
    gaps = {metric: names for metric, names in gaps.items() if names}
    if not gaps:
        return []
    names = dict.fromkeys(name for each in gaps.values() for name in each)
    return [
        f"-: {', '.join(gaps)} of {', '.join(names)}: an older mmfuse did not record this, and no "
        "outputs are stored; mmfuse eval scores test rows anew"
    ]


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
