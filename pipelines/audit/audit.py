"""Audit a dataset for leaks, duplicates and label traces, from its cached features."""

from collections.abc import Collection, Mapping, Sequence
from typing import get_args

import numpy as np
import polars as pl

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamValues, display_names
from cache.samples import Kind, Samples
from pipelines.audit.feature_checks import identical_streams, label_aware_features, near_duplicates
from pipelines.audit.finding import Finding, StreamArrays, Verdict
from pipelines.audit.label_checks import (
    groups_on_both_sides,
    informative_absence,
    label_in_files,
    label_in_ids,
    label_words,
)
from pipelines.data.dataset import Dataset
from pipelines.media.cells import FILES, TEXTS
from pipelines.progress import Track, untracked

Texts = Mapping[str, Sequence[str | None]]
_SHOWN = 5  # failed rows that a finding names


def audit(
    store: FeatureStore,
    words: Sequence[str] | None = None,
    dataset: Dataset | None = None,
    *,
    track: Track = untracked,
) -> list[Finding]:
    """Run every check on the cached streams of a dataset; findings with leaks first.

    Args:
        store: the dataset's features.
        words: streams such as `clip/image`; None for all complete ones.
        dataset: the raw rows, to search texts for class names too.
        track: progress over the streams.

    Raises:
        MmfuseError: where there are no such streams, or the raw rows are not those of the store.
    """
    infos = store.resolve(words)
    samples = store.samples(infos[0])
    if any(info.snapshot != infos[0].snapshot for info in infos):
        raise MmfuseError(
            "the streams are of different rows; extract them anew, or name those to audit"
        )
    called = dict(zip(display_names(infos), infos, strict=True))
    streams = {name: _seen(store.whole(info.key)) for name, info in called.items()}
    modalities = {name: info.key.modality for name, info in called.items()}
    texts: dict[str, Sequence[str | None]] = {}
    files: dict[str, Sequence[str | None]] = {}
    if dataset is not None:
        if dataset.table["id"].to_list() != list(samples.ids):
            raise MmfuseError(
                f"{dataset.name} has other rows than its cached features; extract anew"
            )
        texts, files = _words(dataset, TEXTS), _words(dataset, FILES)
    tables = {name for name, info in called.items() if info.kind == "tabular"}
    found = findings(
        samples,
        streams,
        modalities=modalities,
        texts=texts,
        files=files,
        tables=tables,
        track=track,
    )
    failed = [failed_inputs(name, store.failures(info.key)) for name, info in called.items()]
    return _ordered([*found, *filter(None, failed)])


def _words(dataset: Dataset, kinds: Collection[Kind]) -> dict[str, Sequence[str | None]]:
    """By modality of these kinds, its cells where they are words."""
    columns = {m.name: dataset.table[m.name] for m in dataset.modalities if m.kind in kinds}
    return {name: c.to_list() for name, c in columns.items() if c.dtype == pl.String}


def failed_inputs(name: str, failures: pl.DataFrame) -> Finding | None:
    """Rows of a stream whose input could not be read or encoded; None where there are none.

    Args:
        name: of the stream.
        failures: its failed rows, see `FeatureStore.failures`.
    """
    if not len(failures):
        return None
    shown = [
        f"{row['id']} ({', '.join(filter(None, (row['file'], row['reason'])))})"
        for row in failures.head(_SHOWN).iter_rows(named=True)
    ]
    more = f" and {len(failures) - _SHOWN:,} more" if len(failures) > _SHOWN else ""
    sentence = f"{len(failures):,} rows failed and count as absent: {', '.join(shown)}{more}"
    rows = tuple((str(one),) for one in failures["id"].head(10))
    return Finding("failed", name, "not checked", sentence, {"rows": len(failures)}, rows)


def _ordered(found: Sequence[Finding]) -> list[Finding]:
    """Findings in the order of `Verdict`, leaks first."""
    return sorted(found, key=lambda finding: get_args(Verdict).index(finding.verdict))


def findings(
    samples: Samples,
    streams: Mapping[str, StreamArrays],
    *,
    modalities: Mapping[str, str] | None = None,
    texts: Texts | None = None,
    files: Texts | None = None,
    tables: Collection[str] = (),
    track: Track = untracked,
) -> list[Finding]:
    """Run every check on arrays; findings in the order of `Verdict`, leaks first.

    Args:
        samples: ids, splits, targets and groups of the rows.
        streams: features by name.
        modalities: the modality of each stream; default: the word after its last slash.
        texts: (N,) texts by modality, to search for class names.
        files: (N,) paths by modality, likewise.
        tables: the streams that are columns of a table.
        track: progress over the streams.
    """
    if (samples.splits == "").any():  # rows of no split may have no target
        rows = np.flatnonzero(samples.splits != "")
        samples = samples.take(rows)
        streams = {k: StreamArrays(s.values[rows], s.present[rows]) for k, s in streams.items()}
        texts, files = (
            {name: [cells[int(row)] for row in rows] for name, cells in (words or {}).items()}
            for words in (texts, files)
        )
    found = [groups_on_both_sides(samples)]
    by_modality = {
        (modalities or {}).get(name, name.rsplit("/", 1)[-1]): seen
        for name, seen in streams.items()
    }
    incomplete = {name: seen for name, seen in by_modality.items() if not seen.present.all()}
    for name, seen in incomplete.items():
        found.append(informative_absence(name, seen.present, samples, tests=len(incomplete)))
    for name, cells in (texts or {}).items():
        found.append(label_words(name, cells, samples))
    if (ids := label_in_ids(samples)).verdict == "suspect":
        found.append(ids)
    for name, cells in (files or {}).items():
        if (named := label_in_files(name, cells, samples)).verdict == "suspect":
            found.append(named)
    if len(streams) > 1:
        found.append(identical_streams(streams))
    for name, seen in track(streams.items(), "audit streams", len(streams)):
        found.append(near_duplicates(name, seen, samples))
        found.append(label_aware_features(name, seen, samples, table=name in tables))
    return _ordered(found)


def _seen(whole: StreamValues) -> StreamArrays:
    """Arrays of a stream, with sequences averaged over frames."""
    if whole.offsets is None:
        return StreamArrays(np.asarray(whole.values, np.float32), whole.present)
    starts, lengths = whole.offsets[:-1], np.diff(whole.offsets)
    pooled = np.full((len(starts), whole.values.shape[1]), np.nan, np.float32)
    some = whole.present & (lengths > 0)
    for row in np.flatnonzero(some):
        frames = whole.values[starts[row] : starts[row] + lengths[row]]
        pooled[row] = frames.mean(axis=0, dtype=np.float32)
    return StreamArrays(pooled, some)
