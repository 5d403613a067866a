"""Run records: settings, weights, history and scores of a training, in one folder per run.

runs/<id>/: `run.json`, the record, written last, so a folder without it is no run;
`head.safetensors`, parameters and buffers of R replicas; `history.parquet`; `predictions.parquet`;
`scores/<pattern>.<split>.json` and `baselines/<name>/` the same, added when something is scored;
`labels.json`, tags and a note of the user. runs/.deleted/<id>/: deleted, until garbage collection.
"""

import datetime
import io
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError, unknown
from cache.layout import Home
from cache.samples import Task
from cache.shown import Shown
from cache.storage.objects import put, user_errors

SCHEMA = 1
RENAMED = {"r": "pearson"}
"""Metrics that version 0.1.0 wrote under another name."""


@dataclass(frozen=True)
class RunStream:
    """A stream that a head was trained on, as it was at that time.

    Attributes:
        name: `clip/image`, or the label where several streams have that name.
        encoder: name of the encoder.
        fingerprint: of the encoder, 64 hex digits.
        modality: that was encoded.
        width: D.
        sequence: whether a row is (T, D) instead of (D,).
        weights: pretrained, weight-free, random or unknown.
        inputs: see `FeatureStore.inputs_digest`; "" in runs of older versions.
        word: that the encoder was built from, such as `clip:ViT-B-16/openai`; "" if unrecorded.
        options: that the encoder was built with.
    """

    name: str
    encoder: str
    fingerprint: str
    modality: str
    width: int
    sequence: bool
    weights: str
    inputs: str = ""
    word: str = field(default="", compare=False)
    options: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def identity(self) -> dict[str, object]:
        """What two equal streams have in common: all but how the encoder was named."""
        return {own.name: getattr(self, own.name) for own in fields(self) if own.compare}


@dataclass(frozen=True)
class Scores:
    """Metrics of a run (or a baseline) on a split under a missing pattern.

    Attributes:
        pattern: the pattern's label, such as `complete` or `without audio`.
        split: val or test.
        rows: how many.
        realised_rate: share of the present cells (frames, where frames alone) that the pattern hid.
        metrics: by name, one value per replica; the task's first metric first.
        per_class: `recall` of each class, (R, C), NaN where the class has no rows, and `rows`,
            (1, C); empty for other tasks and for records of older versions.
    """

    pattern: str
    split: str
    rows: int
    realised_rate: float
    metrics: dict[str, list[float]]
    per_class: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """What the user wrote on a run; it changes nothing.

    Attributes:
        tags: single words, in the order in which they were added.
        note: a sentence, or "".
    """

    tags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, repr=False)
class RunRecord(Shown):
    """Everything needed to document a training and to rebuild its heads.

    Attributes:
        id: readable and unique, such as 20261121-clarga-digits-ab12cd.
        group: of the runs that one command made.
        dataset: its name.
        snapshot: of its samples.
        method: name, or path of a file.
        method_digest: sha256 of a method given as a file (stored beside the record), or "".
        task: what was predicted.
        streams: in the order of `present`.
        options: of the method, all of them.
        plan: of the training, all of it.
        seeds: one per replica.
        parameters: of one head.
        scale: mean and standard deviation of `value` targets in training.
        tags: data {real, synthetic} and weights {pretrained, weight-free, random}.
        absent: share of absent cells by split, by true absence and by the missing protocol.
        missing_rate: share of present cells that the protocol hid, over all rows.
        costs: macs of one row, and seconds of a batch of one: `latency_p50` and `latency_p95` of
            the head alone, `with_encoders_p50` and `…p95` from raw data where that was measured.
        versions: of the libraries.
        device: where it ran.
        seconds: how long training took, all replicas together.
        epochs: trained epochs, one per replica.
        created: ISO time in UTC.
        notes: remarks shown under every table of the run.
        path: its folder.
        sources: by modality, `columns` of the table that it was made of and `types`, how each was
            read; empty where that is not recorded.
    """

    id: str
    group: str
    dataset: str
    snapshot: str
    method: str
    method_digest: str
    task: Task
    streams: tuple[RunStream, ...]
    options: dict[str, Any]
    plan: dict[str, Any]
    seeds: tuple[int, ...]
    parameters: int
    scale: tuple[float, float]
    tags: dict[str, str]
    absent: dict[str, float]
    missing_rate: float
    costs: dict[str, float]
    versions: dict[str, str]
    device: str
    seconds: float
    epochs: tuple[int, ...]
    created: str
    notes: tuple[str, ...]
    path: Path
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        streams = ", ".join(stream.name for stream in self.streams)
        size = f"{len(self.seeds)} seed{'' if len(self.seeds) == 1 else 's'}"
        return f"<RunRecord {self.id}: {self.method} on {self.dataset}, {streams}, {size}>"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of its streams, in order."""
        return tuple(dict.fromkeys(stream.modality for stream in self.streams))

    @property
    def scores(self) -> list[Scores]:
        """All scores so far, in the order in which patterns were scored, val before test."""
        return _read_scores(self.path / "scores")

    @property
    def labels(self) -> Labels:
        """Tags and note of the user."""
        file = self.path / "labels.json"
        if not file.exists():
            return Labels()
        plain = json.loads(file.read_text(encoding="utf-8"))
        return Labels(tuple(plain["tags"]), plain["note"])

    @property
    def baselines(self) -> dict[str, list[Scores]]:
        """Scores of the baselines by name: majority, logistic, single <modality>."""
        top = self.path / "baselines"
        folders = sorted(p for p in top.glob("*") if p.is_dir())
        return {folder.name.replace("~", " "): _read_scores(folder) for folder in folders}

    def add_scores(self, found: Iterable[Scores], baseline: str | None = None) -> None:
        """Store scores beside the record; the same pattern and split is replaced.

        Raises:
            MmfuseError: when the disk is full, read-only or not ours.
        """
        folder = self.path / "scores"
        if baseline is not None:
            folder = self.path / "baselines" / baseline.replace(" ", "~")
        for scores in found:
            place = folder / f"{_slug(scores.pattern)}.{scores.split}.json"
            order = len(list(folder.glob("*.json")))
            if place.exists():
                order = json.loads(place.read_text(encoding="utf-8"))["order"]
            put(place, _json({"order": order, **asdict(scores)}))

    def state(self) -> dict[str, NDArray[Any]]:
        """Parameters and buffers by name, (R, …)."""
        from safetensors.numpy import load_file

        return load_file(self.path / "head.safetensors")

    def history(self) -> pl.DataFrame:
        """One row per epoch and seed: stage, epoch, seed, loss, monitored, score, learning_rate.

        And what ends the stage: `of` epochs at most, `patience` without a better `monitor`; runs of
        older versions lack these.
        """
        return pl.read_parquet(self.path / "history.parquet")

    def predictions(self) -> pl.DataFrame:
        """split, row, id, seed, outputs; outputs in units of the target."""
        return pl.read_parquet(self.path / "predictions.parquet")

    def keep_predictions(self, predictions: pl.DataFrame) -> None:
        """Store predictions beside the record, replacing earlier ones.

        Raises:
            MmfuseError: when the disk is full, read-only or not ours.
        """
        put(self.path / "predictions.parquet", _parquet(predictions))


def find_runs(home: Home, runs: "RunRecord | str | Sequence[RunRecord | str]") -> list[RunRecord]:
    """Records of runs that are given as records, as ids or as prefixes of ids; one or several.

    Raises:
        MmfuseError: for an id that is unknown or ambiguous.
    """
    several = [runs] if isinstance(runs, RunRecord | str) else runs
    return [load_run(home, run) if isinstance(run, str) else run for run in several]


def new_id(method: str, dataset: str) -> str:
    """A readable id that no other run has."""
    today = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
    stem = Path(method).stem if method.endswith(".py") else method
    return f"{today}-{_slug(stem)}-{_slug(dataset)}-{secrets.token_hex(3)}"


def check_writable(home: Home) -> None:
    """Check before a training that runs can be written, by writing and removing a small file.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours.
    """
    probe = home.runs / f".probe.{os.getpid()}"
    put(probe, b"a run can be written here")
    probe.unlink(missing_ok=True)


def write_run(
    record: RunRecord,
    state: Mapping[str, NDArray[Any]],
    history: pl.DataFrame,
    predictions: pl.DataFrame,
    source: str | None = None,
) -> None:
    """Write a run; its record is written last and never changed.

    Args:
        record: with `path` set.
        state: of the heads.
        history: see `RunRecord.history`.
        predictions: see `RunRecord.predictions`.
        source: text of the method where it was given as a file.

    Raises:
        MmfuseError: if the run exists, or the disk is full, read-only or not ours.
    """
    from safetensors.numpy import save

    if (record.path / "run.json").exists():
        raise MmfuseError(f"the run {record.id} exists")
    # safetensors ignores strides: a view into a larger matrix would be written wrongly.
    whole = {name: np.ascontiguousarray(value) for name, value in state.items()}
    put(record.path / "head.safetensors", save(whole))
    for name, table in (("history", history), ("predictions", predictions)):
        put(record.path / f"{name}.parquet", _parquet(table))
    if source is not None:
        put(record.path / "method.py", source.encode())
    plain = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "path"}
    plain |= {"task": asdict(record.task), "streams": [asdict(s) for s in record.streams]}
    put(record.path / "run.json", _json({"schema": SCHEMA, **plain}))


def _parquet(table: pl.DataFrame) -> bytes:
    encoded = io.BytesIO()
    table.write_parquet(encoded)
    return encoded.getvalue()


def load_run(home: Home, run: str) -> RunRecord:
    """A run by its id, or by a unique prefix of it.

    Raises:
        MmfuseError: for an unknown or ambiguous id, or a record of a newer schema.
    """
    ids = _ids(home)
    if run not in ids:
        begins = [known for known in ids if run and known.startswith(run)]
        if len(begins) > 1:
            raise MmfuseError(f"several runs begin with {run!r}: {', '.join(begins)}")
        if not begins:
            raise unknown("run", run, ids)
        run = begins[0]
    return _read(home.runs / run)


def list_runs(home: Home) -> list[RunRecord]:
    """Every run of this home, oldest first."""
    return sorted((_read(home.runs / i) for i in _ids(home)), key=lambda r: (r.created, r.id))


def latest_group(home: Home, datasets: Collection[str] | None = None) -> list[RunRecord]:
    """The runs of the last `train` command, oldest first.

    Args:
        home: where the runs are.
        datasets: only runs of these; None = all.

    Raises:
        MmfuseError: if there is none.
    """
    runs = [run for run in list_runs(home) if datasets is None or run.dataset in datasets]
    if not runs:
        raise MmfuseError(f"no runs in {home.runs}; run: mmfuse train --method concat")
    return [run for run in runs if run.group == runs[-1].group]


def label_run(
    run: RunRecord,
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    note: str | None = None,
) -> None:
    """Change the tags and the note of a run; the record itself never changes.

    Args:
        run: the run.
        add: tags to add.
        remove: tags to remove; those it has not are ignored.
        note: its new note, "" for none; None leaves it.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours.
    """
    gone = set(remove)
    tags = [tag for tag in dict.fromkeys([*run.labels.tags, *add]) if tag not in gone]
    text = run.labels.note if note is None else note
    put(run.path / "labels.json", _json({"tags": tags, "note": text}))


def delete_run(home: Home, run: RunRecord) -> Path:
    """Move a run out of the way at once, into `runs/.deleted/`; garbage collection removes it.

    Returns:
        Where it lies now; moved back to `runs/`, it is a run again.

    Raises:
        MmfuseError: when the disk is read-only or not ours.
    """
    place = home.deleted_runs / run.id
    with user_errors(run.path):
        home.deleted_runs.mkdir(exist_ok=True)
        run.path.rename(place)
    return place


def _ids(home: Home) -> list[str]:
    return sorted(path.parent.name for path in home.runs.glob("*/run.json"))


def _read(path: Path) -> RunRecord:
    plain = json.loads((path / "run.json").read_text(encoding="utf-8"))
    schema = plain.pop("schema")
    if schema > SCHEMA:
        raise MmfuseError(f"{path} was written by a newer mmfuse (schema {schema}); upgrade it")
    plain["task"] = Task(plain["task"]["kind"], tuple(plain["task"]["names"]))
    plain["streams"] = tuple(RunStream(**stream) for stream in plain["streams"])
    for name in ("seeds", "epochs", "notes", "scale"):
        plain[name] = tuple(plain[name])
    return RunRecord(**plain, path=path)


def _read_scores(folder: Path) -> list[Scores]:
    found = [json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*.json")]
    found.sort(key=lambda plain: (plain.pop("order"), plain["pattern"], plain["split"]))
    for plain in found:
        metrics, by_class = plain["metrics"], plain.get("per_class", {})
        plain["metrics"] = {RENAMED.get(name, name): _with_nan(v) for name, v in metrics.items()}
        plain["per_class"] = {name: [_with_nan(v) for v in each] for name, each in by_class.items()}
    return [Scores(**plain) for plain in found]


def _with_nan(values: Iterable[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", text).strip("-.") or "x"


def _json(plain: Mapping[str, object]) -> bytes:
    return (json.dumps(_finite(plain), indent=1, allow_nan=False) + "\n").encode()


def _finite(value: object) -> object:
    """The value with NaN and infinity replaced by None, which JSON can hold."""
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case float():
            return value if np.isfinite(value) else None
        case _:
            return value
