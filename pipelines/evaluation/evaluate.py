"""Evaluation: a run × missing patterns → scores, against complete data and simple baselines.

Imports no torch: what takes it is in `pipelines.evaluation.score`, so that a mistake is answered at
once.
"""

from collections.abc import Sequence

from cache.layout import Home
from cache.runs import RunRecord, load_run
from pipelines.evaluation.result import Evaluation
from pipelines.features.missing import MissingPattern


def evaluate(
    home: Home,
    run: str | RunRecord,
    patterns: Sequence[MissingPattern],
    *,
    device: str = "auto",
) -> Evaluation:
    """Score a run on its test rows under missing patterns; scores are kept beside the record.

    Args:
        home: where features and runs are.
        run: a record, its id, or a beginning of it.
        patterns: what to hide; the complete pattern is always scored, first.
        device: auto, cpu, cuda.

    Raises:
        MmfuseError: for an unknown run or modality (naming what there is), or features that are
            gone or belong to other samples.
    """
    record = load_run(home, run) if isinstance(run, str) else run
    sequences = {stream.modality for stream in record.streams if stream.sequence}
    for pattern in patterns:
        pattern.check(record.modalities, sequences)
    from pipelines.evaluation.score import score  # torch: not needed where something is wrong

    return score(home, record, list(dict.fromkeys([MissingPattern(), *patterns])), device)
