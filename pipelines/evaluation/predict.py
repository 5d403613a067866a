"""Predict new raw samples with a recorded run; any modality may be absent.

User errors are found before torch is imported, which `pipelines.evaluation.infer` needs.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.fingerprints import fingerprint
from cache.format.streams import StreamInfo
from cache.layout import DatasetPaths, Home
from cache.runs import RunRecord, RunStream, load_run
from cache.samples import Kind, Task
from cache.shown import Shown
from cache.storage.objects import get_record
from pipelines import catalog
from pipelines.data.sources import new_rows
from pipelines.data.table_files import read_table
from pipelines.data.tables import TableOptions, path_root
from pipelines.encoding.encoder import (
    BuildCall,
    Encoder,
    KnowsCategories,
    build_encoder,
    is_fitted_encoder,
    with_storage,
)
from pipelines.encoding.weights import split_random
from pipelines.evaluation import input_columns, sample
from pipelines.media.cells import FILES, absent, path_of, read
from pipelines.media.payloads import Unreadable
from pipelines.progress import Track, tracked_step, untracked

ROWS = 32
"""Samples in a batch."""
FACTS = ("id", "prediction", "probability", "std", "seen")
"""What is told of each prediction: the fields of records and the columns of files."""
Vectors = list[NDArray[Any] | None]  # of one stream, a row each
Answer = str | float | list[str] | None


Cells = Mapping[str, object]  # of one sample, by modality or column


class FailedCell(NamedTuple):
    """A cell that could not be read, which counts as absent; `file` is "" where it is no path."""

    id: str
    modality: str
    file: str
    reason: str


@dataclass(frozen=True, repr=False)
class Predictions(Shown):
    """Predictions, one row a sample, averaged over the run's replicas.

    Attributes:
        run: the run that made them.
        ids: (N) of the samples.
        outputs: (N, C) probabilities; for `value` (N, 1) in units of the target.
        spread: (N, C) sample standard deviation over replicas.
        present: (N, M) bool, which streams a sample has.
        failures: cells that could not be read, which count as absent.
        seconds: by step: `encode`, `head`.
        lacking: modalities without a column, and columns that a table lacks.
        unused: columns of the samples that nothing uses.
        notes: remarks to show under the predictions.
        without: of one sample given by its cells: for each modality that it has, (C,) outputs
            with that modality hidden; empty where it has no other.
    """

    run: RunRecord
    ids: tuple[str, ...]
    outputs: NDArray[np.float64]
    spread: NDArray[np.float64]
    present: NDArray[np.bool_]
    failures: tuple[FailedCell, ...]
    seconds: dict[str, float]
    lacking: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    without: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} cells failed" if self.failures else ""
        count = f"{len(self.ids)} sample{'' if len(self.ids) == 1 else 's'}"
        return f"<Predictions by {self.run.id}: {count}{failed}>"

    def answers(self) -> list[Answer]:
        """Class name, label names at 0.5, or value; None for a sample with nothing present."""
        rows = zip(self.outputs, self.present, strict=True)
        return [answer_of(self.run.task, row) if there.any() else None for row, there in rows]

    def facts(self) -> dict[str, list[Any]]:
        """`FACTS` of every sample, None where there is no answer.

        id; prediction, as in `answers`; probability of the most probable class or label; std, the
        standard deviation of that, or of the value, over replicas; seen, the streams it has.
        """
        answers, is_value = self.answers(), self.run.task.kind == "value"
        names = [stream.name for stream in self.run.streams]
        best = self.outputs.argmax(1)
        rows = np.arange(len(best))
        sure, spread = self.outputs[rows, best].tolist(), self.spread[rows, best].tolist()
        pairs = list(zip(answers, zip(sure, spread, strict=True), strict=True))
        return {
            "id": list(self.ids),
            "prediction": answers,
            "probability": [None if is_value or own is None else p for own, (p, _) in pairs],
            "std": [None if own is None else s for own, (_, s) in pairs],
            "seen": [
                [name for name, seen in zip(names, row, strict=True) if seen]
                for row in self.present.tolist()
            ],
        }

    def to_polars(self) -> pl.DataFrame:
        """Data frame: the `facts`, and one column of probabilities a class.

        All are null for a sample with nothing present.
        """
        shown = np.where(self.present.any(1, keepdims=True), self.outputs, np.nan)
        each = {
            f"p({n})": pl.Series(shown[:, c]).fill_nan(None)
            for c, n in enumerate(self.run.task.names)
        }
        outputs = {} if self.run.task.kind == "value" else each
        types: dict[str, Any] = dict.fromkeys(("probability", "std"), pl.Float64)
        types["seen"] = pl.List(pl.String)
        return pl.DataFrame({**self.facts(), **outputs}, schema_overrides=types, strict=False)


def answer_of(task: Task, outputs: NDArray[np.float64]) -> Answer:
    """Class name, label names at 0.5, or value of one row (C,) of outputs."""
    if task.kind == "classes":
        return task.names[int(outputs.argmax())]
    if task.kind == "labels":
        return [name for name, p in zip(task.names, outputs, strict=True) if p >= 0.5]
    return float(outputs[0])


def predict(
    home: Home,
    run: str | RunRecord,
    samples: "pl.DataFrame | Cells | str | Path",
    *,
    root: Path | None = None,
    roots: Sequence[Path] = (),
    table: TableOptions | None = None,
    encoders: Sequence[Encoder] = (),
    weights: str | None = None,
    device: str = "auto",
    track: Track = untracked,
) -> Predictions:
    """Predict new samples with a run's heads.

    Args:
        home: where the run and its features are, and the state of fitted encoders.
        run: a record, its id, or a prefix of the id.
        samples: one row a sample, one column a modality (see `Dataset.table`), null or no column
            where it is absent; a modality may also be the columns that it was made of in training.
            A column `id` (or the one that was the ids in training) names the rows, else they are
            numbered. Or the path of a table file; or the cells of one sample, such as
            `{"image": "photo.jpg", "text": "a red card"}`, see `sample.read_sample`.
        root: folder that path cells are relative to; default: that of a table file.
        roots: folders of raw data, for a table file in the layout of a known dataset.
        table: encoding, sheet and root of a table file; its other fields are not used.
        encoders: built ones, for streams whose encoder the run does not record.
        weights: path of local weights, for encoders that are built here.
        device: auto, cpu, cuda.
        track: progress.

    Raises:
        MmfuseError: for an unknown run, samples without any of its modalities, or an encoder that
            is not the one the head was trained on, or encoded none of its streams.
    """
    record = load_run(home, run) if isinstance(run, str) else run
    infos = FeatureStore(home, record.dataset).streams_of(record)
    kinds: dict[str, Kind] = {i.key.modality: i.kind for i in infos.values()}  # type: ignore[misc]
    made_of, types = input_columns.sources_of(home, record, infos)
    said: list[str] = []
    if isinstance(samples, Mapping):
        known = sample.KnownCells(kinds, input_columns.all_columns(made_of, types))
        rows, root = sample.read_sample(samples, known, record.id), sample.ROOT
    elif isinstance(samples, str | Path):
        path, asked = Path(samples).expanduser(), table or TableOptions()
        rows = read_table(path, encoding=asked.encoding, sheet=asked.sheet, note=said.append)
        rows = new_rows(rows, record.dataset, roots=roots, home=home)
        root = root or path_root(asked, path.absolute().parent)
    else:
        rows = samples
    ids = input_columns.ids_of(home, record.dataset, infos, rows)
    matched = input_columns.match_columns(rows, kinds, made_of, types, ids)
    said += () if isinstance(samples, Mapping) else matched.instead
    began = time.perf_counter()
    found = _Encoders(home, record, encoders, weights, device)
    encoding = _Encoding(ids.words.to_list(), root, track)
    for stream in record.streams:
        cells, info = matched.cells.get(stream.modality), infos[stream.name]
        encoding.add(stream, info, None if cells is None else found.find(stream, info), cells)
    middle = time.perf_counter()
    hidden = encoding.hide_in_turn(record) if isinstance(samples, Mapping) else []
    with tracked_step(track, f"predict by {record.method}"):
        from pipelines.evaluation.infer import infer  # torch, which errors above do not need

        outputs, present = infer(record, encoding.vectors, device)
    seconds = {"encode": middle - began, "head": time.perf_counter() - middle}
    count, means = len(rows), outputs.mean(0)
    spread = outputs.std(0, ddof=1) if len(outputs) > 1 else np.zeros_like(means)
    return Predictions(
        record,
        tuple(ids.words.to_list()),
        means[:count],
        spread[:count],
        present[:count],
        tuple(dict.fromkeys(encoding.failures)),
        seconds,
        matched.lacking,
        matched.unused,
        (*said, *matched.notes, *dict.fromkeys(encoding.unseen), *found.notes),
        dict(zip(hidden, means[count:], strict=True)),
    )


def _unseen(encoder: Encoder, cells: pl.Series) -> list[str]:
    """One sentence for every column with words that a fitted encoder does not know."""
    if not isinstance(encoder, KnowsCategories):
        return []
    return [
        f"column {column}: {count} of {len(cells)} cells hold a word that is rare or was not seen "
        f"in training, such as {first!r}"
        for column, (count, first) in encoder.unknown_words(cells.to_list()).items()
    ]


class _Encoders:
    """Finds the encoder of each stream.

    Tried in turn: the given encoders, the recorded `build_encoder` call and, for streams that were
    encoded before calls were recorded, texts in the stream's fields and provenance.
    """

    def __init__(
        self,
        home: Home,
        record: RunRecord,
        given: Sequence[Encoder],
        weights: str | None,
        device: str,
    ) -> None:
        made = {stream.encoder for stream in record.streams}
        strange = [encoder.name for encoder in given if encoder.name not in made]
        if strange:
            streams = ", ".join(stream.name for stream in record.streams)
            raise MmfuseError(f"{strange[0]} made none of the streams of {record.id}: {streams}")
        self.home, self.record, self.given = home, record, given
        self.weights, self.device = weights, device
        self.guessed: dict[str, str] = {}  # stream → word of its encoder

    @property
    def notes(self) -> tuple[str, ...]:
        """One line on encoders that were not found by a recorded call."""
        if not self.guessed:
            return ()
        each = ", ".join(f"{stream} by {word}" for stream, word in self.guessed.items())
        return (f"no recorded encoder word; found by fingerprint: {each}",)

    def find(self, stream: RunStream, info: StreamInfo) -> Encoder:
        """The encoder whose fingerprint for this kind is the stream's, its state restored.

        Raises:
            MmfuseError: if none of those that are tried is.
        """
        for encoder in self._given(stream, info):
            if self._same(encoder, info):
                return self._restored(encoder, info)
        recorded = BuildCall.of_stream(info.provenance)
        if stream.word:
            recorded = BuildCall(stream.word, stream.options)
        problem: MmfuseError | None = None
        for call in (*([recorded] if recorded else []), *_guesses(stream, info)):
            try:
                found = self._fitting(call, stream, info)
            except MmfuseError as error:
                if call == (recorded or BuildCall(stream.encoder, {})):
                    problem = error
                continue
            if found is not None:
                if call != recorded:
                    self.guessed[stream.name] = call.word
                return self._restored(found, info)
        file = info.provenance.get("file")
        source = f" from the weights file {file}" if file else ""
        if problem is not None:
            raise MmfuseError(f"{problem} ({stream.name} was made{source})") if file else problem
        fields = ", ".join(f"{k}={v}" for k, v in sorted(info.fields.items()) if k != "fitted_on")
        raise MmfuseError(
            f"{stream.name} was made by {stream.encoder}{source} with {fields}; give that encoder, "
            f"such as --encoder {stream.encoder}:MODEL, and its --weights PATH"
        )

    def _fitting(self, call: BuildCall, stream: RunStream, info: StreamInfo) -> Encoder | None:
        """The encoder of a call, with the given weights or else without, if it made the stream.

        Raises:
            MmfuseError: where it cannot be built with either.
        """
        problem: MmfuseError | None = None
        built = False
        for weights in self._weights(call):
            try:
                encoder = self._build(call, weights, stream, info)
                if self._same(encoder, info):
                    return encoder
                built = True
            except MmfuseError as error:
                problem = problem or error
        if problem is not None and not built:
            raise problem
        return None

    def _given(self, stream: RunStream, info: StreamInfo) -> Iterator[Encoder]:
        for encoder in self.given:
            with contextlib.suppress(MmfuseError):  # an encoder without a choice of dtypes
                if encoder.name == stream.encoder:
                    yield with_storage(encoder, info.dtype)

    def _weights(self, call: BuildCall) -> tuple[str | None, ...]:
        """The given weights, which may be of another of the run's encoders; and none."""
        word, model = catalog.split_encoder_word(call.word)
        source = catalog.read_source(word)
        takes_weights = source.path is None or source.constants.get("NEEDS_WEIGHTS", False)
        if self.weights is None or not takes_weights or split_random(model)[1]:
            return (None,)
        return self.weights, None

    def _build(
        self, call: BuildCall, weights: str | None, stream: RunStream, info: StreamInfo
    ) -> Encoder:
        return build_encoder(
            call.word,
            weights=weights,
            device=self.device,
            dtype=str(info.fields.get("compute", "auto")),
            sequence=stream.sequence,
            storage=info.dtype,
            **call.options,
        )

    def _same(self, encoder: Encoder, info: StreamInfo) -> bool:
        kind: Kind = info.kind  # type: ignore[assignment]
        if kind not in encoder.kinds:
            return False
        fields: dict[str, object] = {
            "encoder": encoder.name,
            "kind": kind,
            "storage": encoder.storage,
            "sequence": encoder.sequence,
        }
        with contextlib.suppress(MmfuseError):  # its weights are not here
            fields |= encoder.fields(kind)
            if "fitted_on" in info.fields:
                fields["fitted_on"] = info.fields["fitted_on"]
            return fingerprint(fields) == info.key.fingerprint
        return False

    def _restored(self, encoder: Encoder, info: StreamInfo) -> Encoder:
        """The encoder, with what it learned from training rows if it is a fitted one."""
        if not is_fitted_encoder(encoder):
            return encoder
        paths = DatasetPaths.of(self.home, self.record.dataset)
        record = get_record(paths.stream(info.key.label).fitted)
        if record is None:
            raise MmfuseError(f"what {info.key.label} learned is gone; extract and train again")
        encoder.restore(record["state"])
        return encoder


def _guesses(stream: RunStream, info: StreamInfo) -> Iterator[BuildCall]:
    """The encoder's name alone, then with each text of the stream's record as the model."""
    yield BuildCall(stream.encoder, {})
    values = [*info.fields.values(), *(v for n, v in info.provenance.items() if n != "file")]
    for model in dict.fromkeys(value for value in values if isinstance(value, str) and value):
        yield BuildCall(f"{stream.encoder}:{model}", {})


class _Encoding:
    """Encodes the cells of new samples, stream by stream.

    Attributes:
        vectors: by stream, a vector a row, rounded as the store rounds it; None where absent.
        failures: cells that could not be read.
        unseen: sentences on words that a fitted encoder does not know.
    """

    def __init__(self, ids: Sequence[str], root: Path | None, track: Track) -> None:
        self._ids, self._root, self._track = ids, root, track
        self.vectors: dict[str, Vectors] = {}
        self.failures: list[FailedCell] = []
        self.unseen: list[str] = []

    def add(
        self, stream: RunStream, info: StreamInfo, encoder: Encoder | None, cells: pl.Series | None
    ) -> None:
        """Encode the cells of one stream; without an encoder or cells, all rows are absent."""
        result = self.vectors[stream.name] = [None] * len(self._ids)
        if encoder is None or cells is None:
            return
        self.unseen += _unseen(encoder, cells)
        kind: Kind = info.kind  # type: ignore[assignment]
        items: list[tuple[int, Any]] = []
        there = np.flatnonzero(~absent(cells, kind)).tolist()
        values = cells.to_list()
        for row in self._track(there, f"{stream.name}: read", len(there)):
            try:
                item, _ = encoder.prepare(kind, read(kind, values[row], self._root))
                items.append((row, item))
            except Unreadable as error:
                self._fail(row, info, values[row], str(error))
        starts = range(0, len(items), ROWS)
        for start in self._track(starts, f"{stream.name}: encode batches of {ROWS}", len(starts)):
            part = items[start : start + ROWS]
            found = encoder.encode(kind, [item for _, item in part])
            for (row, _), vector in zip(part, found, strict=True):
                stored = np.asarray(vector).astype(info.dtype)
                if np.isfinite(stored).all():
                    result[row] = stored.astype(np.float32)
                else:
                    self._fail(row, info, values[row], "non-finite")

    def hide_in_turn(self, record: RunRecord) -> list[str]:
        """Add the first sample again without each modality that it has; names of these.

        None are added where it has only one: nothing would be left.
        """
        first = {stream.name: self.vectors[stream.name][0] for stream in record.streams}
        present = [s.modality for s in record.streams if first[s.name] is not None]
        names = list(dict.fromkeys(present))
        if len(names) < 2:
            return []
        for stream in record.streams:
            for name in names:
                left = None if stream.modality == name else first[stream.name]
                self.vectors[stream.name].append(left)
        return names

    def _fail(self, row: int, info: StreamInfo, cell: object, reason: str) -> None:
        file = path_of(cell) if info.kind in FILES else ""
        self.failures.append(FailedCell(self._ids[row], info.key.modality, file, reason))
