"""Score a recorded run's heads with modalities or frames hidden."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.layout import Home
from cache.runs import RunRecord, Scores
from pipelines.device import pick_device
from pipelines.evaluation.result import Evaluation, PatternScores
from pipelines.features.hiding import HiddenTable, hide
from pipelines.features.missing import MissingPattern
from pipelines.features.table import FeatureTable
from pipelines.metrics import baselines
from pipelines.metrics.metrics import PRIMARY, is_better_by, metric_terms, scores
from pipelines.metrics.significance import bootstrap
from pipelines.progress import Track
from pipelines.training.loop import decoded
from pipelines.training.replicas import Replicas
from pipelines.training.restore import linear_name, plan_of, rebuild, run_table
from pipelines.training.run import missing_pattern


def score(
    home: Home,
    record: RunRecord,
    patterns: Sequence[MissingPattern],
    device: str,
    track: Track,
) -> Evaluation:
    """See `evaluation.evaluate`; the complete pattern comes first."""
    where = pick_device(device)
    table = run_table(home, record, where)
    replicas = rebuild(record, where)
    probes = _probes(table, record, track)
    linear = baselines.fit_linear(_as_trained(table, record))
    base, rows = None, []
    notes = list(record.notes)
    label = f"score {record.method} on {record.dataset}: patterns"
    for pattern in track(patterns, label, len(patterns)):
        hidden = hide(table, pattern)
        notes += hidden.remarks("test")
        found, parts = _score(replicas, hidden, pattern.label)
        base = base or parts
        difference = None if pattern == MissingPattern() else bootstrap(base, parts)
        single = _best_single(probes, hidden, pattern)
        line = baselines.linear_scores(
            linear, hidden.table, "test", pattern.label, hidden.realised("test")
        )
        common = baselines.majority(table, "test", pattern.label, hidden.realised("test"))
        rows.append(PatternScores(found, difference, single, common, line))
        record.add_scores([found])
        record.add_scores([line], linear_name(record))
        record.add_scores([common], "majority")
        record.add_scores([single[1]], f"single {single[0]}")
    if _never_absent(record) and len(patterns) > 1:
        notes.append(
            "no modality was ever absent in training, so this head never learned to do without "
            "one; train with --drop-rate 0.3"
        )
    unused = [m.name for m in table.samples.modalities if m.name not in record.modalities]
    if unused:
        notes.append(
            f"complete: all that the run has ({', '.join(record.modalities)}); not in this run: "
            f"{', '.join(unused)} of {record.dataset}"
        )
    metric = PRIMARY[record.task.kind]
    return Evaluation(record, metric, tuple(rows), tuple(dict.fromkeys(notes)))


def _as_trained(table: FeatureTable, record: RunRecord) -> FeatureTable:
    """The table under the run's own missing protocol, as in training."""
    return hide(table, missing_pattern(plan_of(record))).table


def _probes(table: FeatureTable, record: RunRecord, track: Track) -> dict[str, baselines.Linear]:
    """A linear model of each modality, fitted on that modality alone."""
    trained = _as_trained(table, record)
    named = list(zip(table.features, table.modalities, strict=True))
    return {
        modality: baselines.fit_linear(trained, [n for n, m in named if m == modality])
        for modality in track(table.distinct, "fit single modalities", len(table.distinct))
    }


def _best_single(
    probes: dict[str, baselines.Linear], hidden: HiddenTable, pattern: MissingPattern
) -> tuple[str, Scores]:
    """Name and test scores of the probe that is best on validation rows under the pattern."""
    metric = PRIMARY[hidden.table.samples.task.kind]
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
    replicas: Replicas, hidden: HiddenTable, label: str
) -> tuple[Scores, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Metrics on test rows, and each row's terms of the first one for bootstrapping: 2 × (R, N)."""
    part = hidden.table.take(hidden.table.split("test"))
    task = part.samples.task
    outputs, targets = decoded(part, replicas.predict(part).logits)
    each = [scores(task, one, targets) for one in outputs]
    metrics: dict[str, Any] = {name: [found[name] for found in each] for name in each[0]}
    both = [metric_terms(task, one, targets) for one in outputs]
    stacked = np.stack([above for above, _ in both]), np.stack([below for _, below in both])
    return Scores(label, "test", len(part), hidden.realised("test"), metrics), stacked


def _never_absent(record: RunRecord) -> bool:
    return record.absent["train"] == 0 and not record.plan["drop_rate"]
