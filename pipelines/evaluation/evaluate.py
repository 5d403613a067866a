"""Evaluate a run under missing patterns, beside complete data and simple baselines.

Imports no torch, so that a user error is reported at once; `pipelines.evaluation.score` does.
"""

from collections.abc import Sequence

from cache.layout import Home
from cache.runs import RunRecord, load_run
from pipelines.evaluation.result import Evaluation
from pipelines.features.missing import MissingPattern
from pipelines.metrics.metrics import PRIMARY, check_metric
from pipelines.progress import Track, untracked


def evaluate(
    home: Home,
    run: str | RunRecord,
    patterns: Sequence[MissingPattern],
    *,
    device: str = "auto",
    metrics: Sequence[str] = (),
    track: Track = untracked,
) -> Evaluation:
    """Score a run on its test rows under missing patterns; scores are saved beside the record.

    Args:
        home: where features and runs are.
        run: a record, its id, or a prefix of the id.
        patterns: what to hide; the complete pattern is always scored, first.
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
    for pattern in patterns:
        pattern.check(record.modalities, sequences)
    from pipelines.evaluation.score import score  # torch: not needed where something is wrong

    distinct = list(dict.fromkeys([MissingPattern(), *patterns]))
    return score(home, record, distinct, device, metrics=shown, track=track)
