"""Score a recorded run's heads with modalities or frames hidden."""

from collections.abc import Sequence
from dataclasses import replace

from cache.baselines import Baselines
from cache.layout import Home
from cache.runs import RunRecord, Scores
from pipelines.device import pick_device, threads_for
from pipelines.evaluation.known import KnownScores
from pipelines.evaluation.result import PatternScores
from pipelines.features.hiding import HiddenTable, hide
from pipelines.features.missing import MissingPattern
from pipelines.features.table import FeatureTable
from pipelines.metrics import baselines
from pipelines.metrics.metrics import is_better_by, replica_scores
from pipelines.metrics.resampling import Resampler, resampler
from pipelines.metrics.significance import bootstrap
from pipelines.progress import Track
from pipelines.training.loop import decoded
from pipelines.training.plan import selected_by
from pipelines.training.replicas import Replicas
from pipelines.training.restore import linear_name, plan_of, rebuild, run_table
from pipelines.training.run import missing_pattern


@threads_for(0)
def score(
    home: Home,
    record: RunRecord,
    patterns: Sequence[MissingPattern],
    device: str,
    *,
    metrics: tuple[str, ...],
    track: Track,
) -> dict[MissingPattern, KnownScores]:
    """Scores under each pattern; see `evaluation.evaluate`."""
    where = pick_device(device)
    table = run_table(home, record, where)
    replicas = rebuild(record, where)
    stored = Baselines(home, record.dataset, [stream.fingerprint for stream in record.streams])
    linear = baselines.fit_linear(_as_trained(table, record), stored=stored)
    probes = _probes(table, record, stored, track)
    found_by: dict[MissingPattern, KnownScores] = {}
    known = {scores.pattern: scores for scores in record.scores if scores.split == "test"}
    complete = MissingPattern()
    _, base = _score(replicas, hide(table, complete), complete.label, metrics)
    label = f"score {record.method} on {record.dataset}: patterns"
    for pattern in track(patterns, label, len(patterns)):
        hidden = hide(table, pattern)
        found, samplers = _score(replicas, hidden, pattern.label, metrics)
        found = _with_own_metrics(found, known.get(pattern.label))
        differences = {
            name: bootstrap(base[name], samplers[name], found.rows)
            for name in (() if pattern == complete else metrics)
        }
        single = _best_single(probes, hidden, pattern, selected_by([record]))
        line = baselines.linear_scores(
            linear, hidden.table, "test", pattern.label, hidden.realised("test")
        )
        common = baselines.majority(table, "test", pattern.label, hidden.realised("test"))
        row = PatternScores(found, differences, single, common, line)
        found_by[pattern] = KnownScores(row, tuple(hidden.remarks("test")))
        record.add_scores([found])
        record.add_scores([line], linear_name(record))
        record.add_scores([common], "majority")
        record.add_scores([single[1]], f"single {single[0]}")
    return found_by


def _as_trained(table: FeatureTable, record: RunRecord) -> FeatureTable:
    """The table under the run's own missing protocol, as in training."""
    return hide(table, missing_pattern(plan_of(record))).table


def _probes(
    table: FeatureTable, record: RunRecord, stored: Baselines, track: Track
) -> dict[str, baselines.Linear]:
    """A linear model of each modality, fitted on that modality alone."""
    trained = _as_trained(table, record)
    named = list(zip(table.features, table.modalities, strict=True))
    return {
        modality: baselines.fit_linear(trained, [n for n, m in named if m == modality], stored)
        for modality in track(table.distinct, "fit single modalities", len(table.distinct))
    }


def _best_single(
    probes: dict[str, baselines.Linear], hidden: HiddenTable, pattern: MissingPattern, metric: str
) -> tuple[str, Scores]:
    """Name and test scores of the probe that is best on validation rows under the pattern."""
    is_better = is_better_by(metric)
    left = [name for name in probes if name not in pattern.hidden]
    best, value = left[0], None
    for name in left:
        found = baselines.linear_scores(probes[name], hidden.table, "val").metrics[metric][0]
        if value is None or is_better(found, value):
            best, value = name, found
    model = probes[best]
    return best, baselines.linear_scores(
        model, hidden.table, "test", pattern.label, hidden.realised("test")
    )


def _score(
    replicas: Replicas, hidden: HiddenTable, label: str, names: Sequence[str]
) -> tuple[Scores, dict[str, list[Resampler]]]:
    """Scores on test rows, and some metrics of samples of these rows, of each replica."""
    part = hidden.table.take(hidden.table.split("test"))
    task = part.samples.task
    outputs, targets = decoded(part, replicas.logits(part))
    found = replica_scores(task, outputs, targets, pattern=label, realised=hidden.realised("test"))
    return found, {name: [resampler(task, name, one, targets) for one in outputs] for name in names}


def _with_own_metrics(found: Scores, recorded: Scores | None) -> Scores:
    """The scores with metrics of the method's own that training recorded under the pattern."""
    own = {} if recorded is None else recorded.metrics
    more = {name: values for name, values in own.items() if name not in found.metrics}
    return replace(found, metrics=found.metrics | more)
