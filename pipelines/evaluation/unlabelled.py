"""Predict the rows of a run's dataset that have no target, from their cached features."""

import time

import numpy as np

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import OK
from cache.layout import Home
from cache.runs import RunRecord, load_run
from pipelines.evaluation.predict import Predictions, Vectors
from pipelines.progress import Track, tracked_step, untracked


def predict_unlabelled(
    home: Home, run: str | RunRecord, *, device: str = "auto", track: Track = untracked
) -> Predictions:
    """Predict the rows that `keep_unlabelled` gave features: those in no split.

    Nothing is encoded, so that encoders and raw data need not be there.

    Args:
        home: where the run and its features are.
        run: a record, its id, or a prefix of the id.
        device: auto, cpu, cuda.
        track: progress.

    Raises:
        MmfuseError: where there are no such rows, or the features are gone or of other samples.
    """
    record = load_run(home, run) if isinstance(run, str) else run
    store = FeatureStore(home, record.dataset)
    infos = store.streams_of(record)
    samples = store.samples(next(iter(infos.values())))
    rows = np.flatnonzero(samples.splits == "")
    if not len(rows):
        raise MmfuseError(
            f"{record.dataset} has features of no rows without a target; extract them with "
            f"--keep-unlabelled, or name new ones by --input FILE"
        )
    began = time.perf_counter()
    vectors: dict[str, Vectors] = {}
    for stream in record.streams:
        info = infos[stream.name]
        if not store.are_samples_of(info, record.snapshot):
            raise MmfuseError(
                f"the samples of {record.dataset} changed since {record.id} was trained; run: "
                f"mmfuse train --dataset {record.dataset} --method {record.method}"
            )
        there = store.reader(info.key).state[rows] == OK
        if stream.sequence:
            frames, offsets = store.sequences(info.key, rows[there])
            found = np.split(frames, offsets[1:-1]) if there.any() else []
        else:
            found = list(store.rows(info.key, rows[there]))
        values = iter(found)
        vectors[stream.name] = [next(values) if seen else None for seen in there]
    middle = time.perf_counter()
    with tracked_step(track, f"predict by {record.method}"):
        from pipelines.evaluation.infer import infer  # torch, which errors above do not need

        outputs, present = infer(record, vectors, device)
    means = outputs.mean(0)
    return Predictions(
        record,
        tuple(str(name) for name in samples.ids[rows]),
        means,
        outputs.std(0, ddof=1) if len(outputs) > 1 else np.zeros_like(means),
        present,
        (),
        {"encode": middle - began, "head": time.perf_counter() - middle},
    )
