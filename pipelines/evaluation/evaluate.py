"""Evaluate a run under missing patterns, beside complete data and simple baselines.

Imports no torch, so that a user error is reported at once; `pipelines.evaluation.score` does.
"""

from collections.abc import Sequence

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.runs import RunRecord, load_run
from cache.samples import Samples
from pipelines.evaluation.known import Known
from pipelines.evaluation.result import Evaluation
from pipelines.features.missing import MissingPattern
from pipelines.metrics.metrics import PRIMARY, check_metric
from pipelines.progress import Track, untracked


def evaluate(
    home: Home,
    run: str | RunRecord,
    patterns: str | Sequence[MissingPattern | str],
    *,
    device: str = "auto",
    metrics: Sequence[str] = (),
    track: Track = untracked,
) -> Evaluation:
    """Score a run on its test rows under missing patterns; scores are saved beside the record.

    What was scored before, of the same weights, inputs, pattern and metrics, is not scored again.

    Args:
        home: where features and runs are.
        run: a record, its id, or a prefix of the id.
        patterns: what to hide, or words as `--missing` takes them: `audio`, `audio,text` together,
            `all`; the complete pattern is always scored, first.
        device: auto, cpu, cuda.
        metrics: names of those to give differences and intervals for; default: the task's first.
            Every metric is scored and saved in any case.
        track: progress over the patterns.

    Raises:
        MmfuseError: for an unknown run, modality or metric (naming the known ones), or features
            that are gone or belong to other samples.
    """
    record = load_run(home, run) if isinstance(run, str) else run
    kind = record.task.kind
    shown = tuple(dict.fromkeys(check_metric(name, [kind]) for name in metrics)) or (PRIMARY[kind],)
    sequences = {stream.modality for stream in record.streams if stream.sequence}
    asked = [pattern for word in _several(patterns) for pattern in _patterns(word, record)]
    for pattern in asked:
        pattern.check(record.modalities, sequences)
    store = FeatureStore(home, record.dataset)
    known = Known(record, store.inputs_of(record), shown, device)
    distinct = list(dict.fromkeys([MissingPattern(), *asked]))
    found = {pattern: known.get(pattern) for pattern in distinct}
    if unknown := [pattern for pattern, scores in found.items() if scores is None]:
        from pipelines.evaluation.score import score  # torch: not needed for what is known

        fresh = score(home, record, unknown, device, metrics=shown, track=track)
        for pattern, scores in fresh.items():
            known.put(pattern, scores)
        found |= fresh
    rows = [scores for scores in found.values() if scores is not None]
    notes = [*record.notes, *(remark for each in rows for remark in each.remarks)]
    samples = store.samples(next(iter(store.streams_of(record).values())))
    notes += _general_notes(record, samples, len(rows))
    return Evaluation(record, shown, tuple(each.row for each in rows), tuple(dict.fromkeys(notes)))


def _several(patterns: str | Sequence[MissingPattern | str]) -> Sequence[MissingPattern | str]:
    return [patterns] if isinstance(patterns, str) else patterns


def _patterns(word: MissingPattern | str, record: RunRecord) -> list[MissingPattern]:
    if isinstance(word, MissingPattern):
        return [word]
    return MissingPattern.parse(word, record.modalities)


def _general_notes(record: RunRecord, samples: Samples, patterns: int) -> list[str]:
    """What the table cannot say: heads that never saw an absence, modalities outside of the run."""
    notes = []
    if record.absent["train"] == 0 and not record.plan["drop_rate"] and patterns > 1:
        notes.append(
            "no modality was ever absent in training, so this head never learned to do without "
            "one; train with --drop-rate 0.3"
        )
    unused = [m.name for m in samples.modalities if m.name not in record.modalities]
    if unused:
        notes.append(
            f"complete: all that the run has ({', '.join(record.modalities)}); not in this run: "
            f"{', '.join(unused)} of {record.dataset}"
        )
    return notes
