"""Run records: scores, predictions, history and identity of a trained run."""

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.feature_store import FeatureStore
from cache.fingerprints import fingerprint
from cache.format.streams import StreamInfo, display_names
from cache.runs import RunRecord, RunStream, Scores, new_id
from pipelines.data import origins
from pipelines.encoding.encoder import BuildCall
from pipelines.features.hiding import HiddenTable, by_modality
from pipelines.features.table import FeatureTable
from pipelines.fusion.head import FusionHead
from pipelines.metrics.metrics import replica_scores
from pipelines.training import costs
from pipelines.training.loop import Epoch, decoded
from pipelines.training.plan import Setting, option_defaults
from pipelines.training.replicas import Replicas
from pipelines.training.request import Request


@dataclass(frozen=True)
class TrainingJob:
    """A request with its method and rows loaded: what all of its settings share.

    Attributes:
        request: the checked request.
        module: the method.
        source: the method's source text, if it was given as a file.
        table: all rows, nothing hidden.
        group: of runs.
    """

    request: Request
    module: ModuleType
    source: str | None
    table: FeatureTable
    group: str


def make_record(
    job: TrainingJob, setting: Setting, hidden: HiddenTable, head: FusionHead
) -> RunRecord:
    """RunRecord of a setting, still without time, epochs and scores.

    Args:
        job: what the settings share.
        setting: plan and options.
        hidden: the table as trained on.
        head: one of the replicas.
    """
    request = job.request
    table, run = hidden.table, new_id(request.method, request.dataset)
    store = FeatureStore(request.home, request.dataset)
    alone = costs.costs(head, table)
    encoders = costs.with_encoders([store.latency(info.key) for info in request.infos], alone)
    weights = sorted({stream.weights for stream in streams(request)})
    now = datetime.datetime.now(datetime.UTC)
    return RunRecord(
        id=run,
        group=job.group,
        dataset=request.dataset,
        snapshot=request.infos[0].snapshot,
        method=request.method,
        method_digest="" if job.source is None else digest(job.source),
        task=table.samples.task,
        streams=streams(request),
        options=_plain(option_defaults(job.module.build) | setting.options),
        plan=_plain(asdict(setting.plan)),
        seeds=setting.plan.seeds,
        parameters=costs.parameters(head),
        scale=(table.scale.mean, table.scale.deviation),
        tags={"data": table.samples.source, "weights": "+".join(weights)},
        absent={split: absent(table, split) for split in ("train", "val", "test")},
        missing_rate=hidden.realised(),
        costs=alone | encoders,
        versions={name: version(name) for name in ("mmfuse", "torch", "numpy")},
        device=str(table.device),
        seconds=0.0,
        epochs=(),
        created=now.isoformat(timespec="milliseconds"),
        notes=hidden.remarks(),
        path=request.home.runs / run,
        sources=origins.sources(request.home, request.dataset, request.infos),
    )


def identity(job: TrainingJob, setting: Setting) -> str:
    """Digest of what a setting trains, equal to `identity_of` the run it becomes."""
    request = job.request
    return fingerprint(
        {
            "dataset": [request.dataset, request.infos[0].snapshot],
            "method": request.method if job.source is None else digest(job.source),
            "streams": [stream.identity for stream in streams(request)],
            "options": _plain(option_defaults(job.module.build) | setting.options),
            "plan": _plain(asdict(setting.plan)),
            "versions": [version(name) for name in ("mmfuse", "torch")],
        }
    )


def identity_of(record: RunRecord) -> str:
    """Digest of what a run trained, without time and device: to find trained settings again."""
    return fingerprint(
        {
            "dataset": [record.dataset, record.snapshot],
            "method": record.method_digest or record.method,
            "streams": [stream.identity for stream in record.streams],
            "options": record.options,
            "plan": record.plan,
            "versions": [record.versions[name] for name in ("mmfuse", "torch")],
        }
    )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as they come back from JSON: tuples as lists."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def streams(request: Request) -> tuple[RunStream, ...]:
    """The request's streams as `RunStream`s."""
    names = display_names(request.infos)
    each = zip(request.infos, names, request.inputs, strict=True)
    return tuple(_stream(info, name, inputs) for info, name, inputs in each)


def _stream(info: StreamInfo, name: str, inputs: str) -> RunStream:
    call = BuildCall.of_stream(info.provenance)
    return RunStream(
        name,
        info.key.encoder,
        info.key.fingerprint,
        info.key.modality,
        info.width,
        info.sequence,
        str(info.provenance.get("weights", "unknown")),
        inputs,
        call.word if call else "",
        call.options if call else {},
    )


def absent(table: FeatureTable, split: str) -> float:
    """Fraction of the (sample, modality) cells of a split that are absent."""
    part = table.take(table.split(split))
    return 1 - float(by_modality(part.present, part.owners).float().mean())


def score_rows(
    replicas: Replicas, hidden: HiddenTable, split: str, mine: Sequence[int], label: str
) -> tuple[Scores, NDArray[np.float64]]:
    """Scores, the method's own metrics among them, and outputs (R, N, C) on the rows of a split."""
    part = hidden.table.take(hidden.table.split(split))
    outputs, targets = decoded(part, replicas.logits(part)[list(mine)])
    found = replica_scores(
        part.samples.task,
        outputs,
        targets,
        pattern=label,
        split=split,
        realised=hidden.realised(split),
    )
    return replace(found, metrics=found.metrics | replicas.measures(part, mine)), outputs


def score_all(
    replicas: Replicas,
    hidden: HiddenTable,
    mine: Sequence[int],
    seeds: Sequence[int],
    *,
    label: str,
    splits: Sequence[str] = ("val", "test"),
) -> tuple[list[Scores], pl.DataFrame]:
    """Scores on the rows of some splits, and their table of predictions."""
    table, found, frames = hidden.table, [], []
    for split in splits:
        scores, outputs = score_rows(replicas, hidden, split, mine, label)
        found.append(scores)
        rows = table.split(split)
        for seed, one in zip(seeds, outputs, strict=True):
            columns = {
                "split": [split] * len(rows),
                "row": rows,
                "id": table.samples.ids[rows].tolist(),
                "seed": [seed] * len(rows),
                "outputs": pl.Series(one.astype(np.float32)).arr.to_list(),
            }
            frames.append(pl.DataFrame(columns))
    return found, pl.concat(frames)


def history_table(
    history: Sequence[Epoch], mine: Sequence[int], seeds: Sequence[int]
) -> pl.DataFrame:
    """Training history of a run: one row per epoch and seed, of the replicas `mine`."""
    rows = [
        {
            "stage": epoch.stage,
            "epoch": epoch.number,
            "seed": seed,
            "loss": epoch.losses[r],
            "monitored": epoch.monitored[r],
            "score": epoch.scores[r],
            "learning_rate": epoch.rates[r],
            "of": epoch.of,
            "monitor": epoch.monitor,
            "patience": epoch.patience,
        }
        for epoch in history
        for seed, r in zip(seeds, mine, strict=True)
        if not np.isnan(epoch.rates[r])
    ]
    return pl.DataFrame(rows, schema_overrides={"patience": pl.Int64})


def epochs_of(history: Sequence[Epoch], replica: int) -> int:
    """Number of epochs that a replica trained, over all stages."""
    return sum(not np.isnan(epoch.rates[replica]) for epoch in history)


def digest(text: str) -> str:
    """Hex sha256 of a method's source."""
    return hashlib.sha256(text.encode()).hexdigest()
