"""Extraction plans: streams, known rows, and inputs left to encode; imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.fingerprints import fingerprint
from cache.format.streams import StreamKey, StreamSpec
from cache.layout import Home
from cache.samples import Kind, Modality
from cache.status import Forecast, forecast
from cache.storage.file_digests import DigestMemory
from cache.writing.journal import Retry
from pipelines import catalog
from pipelines.data.dataset import Dataset
from pipelines.encoding.encoder import (
    BUILD_CALL,
    Encoder,
    build_call,
    download_of,
    is_fitted_encoder,
)
from pipelines.extract.input_digests import InputDigests, fitted_on, input_digests
from pipelines.progress import Track, untracked

if TYPE_CHECKING:
    from pipelines.encoding.hub import Download

_ROW_BYTES = 18  # digest, presence and state of a row


@dataclass(frozen=True)
class StreamPlan:
    """Plan of one stream: one encoder on one modality.

    Attributes:
        key: of the stream.
        encoder: that encodes it.
        dataset: of its rows.
        modality: which column of them.
        inputs: digests of the rows.
        fields: the inputs of the fingerprint.
        found: rows that are cached, that failed, and that are new.
        width: D, or None until a fitted encoder is fitted.
        download: weights to fetch first (`repository`, `size` in bytes, `licence`), or None.
    """

    key: StreamKey
    encoder: Encoder
    dataset: Dataset
    modality: Modality
    inputs: InputDigests
    fields: Mapping[str, object]
    found: Forecast
    width: int | None
    download: "Download | None"

    @property
    def rows(self) -> int:
        """N, absent ones included."""
        return len(self.inputs.absent)

    @property
    def absent(self) -> int:
        """Rows without the modality."""
        return int(self.inputs.absent.sum())

    @property
    def disk(self) -> int | None:
        """Bytes that a new stream will take; None before its width is known, 0 if it is cached.

        For a sequence stream, with one frame a row.
        """
        if self.found.complete:
            return 0
        if self.width is None:
            return None
        return self.rows * (self.width * np.dtype(self.encoder.storage).itemsize + _ROW_BYTES)

    @property
    def spec(self) -> StreamSpec:
        """Description of the stream for the store; requires a known width."""
        if self.found.complete and self.found.spec is not None:
            return self.found.spec  # asking a loaded encoder again could import torch
        encoder = self.encoder
        width = encoder.kinds[self.modality.kind]
        if width is None:
            raise MmfuseError(f"encoder {encoder.name} gives no width after it was fitted")
        provenance = {"weights": encoder.weights, **encoder.provenance()}
        if call := build_call(encoder):
            provenance[BUILD_CALL] = asdict(call)
        return StreamSpec(
            self.modality.kind, width, encoder.storage, encoder.sequence, self.fields, provenance
        )


def plan(
    dataset: Dataset,
    encoders: Sequence[Encoder],
    *,
    home: Home,
    retry_failed: Retry = False,
    rehash: bool = False,
    track: Track = untracked,
) -> list[StreamPlan]:
    """Plan an extraction: every encoder with every modality of a kind that it serves.

    Reads only files without a remembered digest; encodes nothing and imports no torch.

    Args:
        dataset: the rows.
        encoders: built ones; duplicates count once.
        home: of the stores.
        retry_failed: whether inputs that failed before count as new, or those with these reasons.
        rehash: ignore remembered digests and read all files.
        track: progress over the files read.

    Raises:
        MmfuseError: if an encoder serves no modality; names encoders that would.
    """
    check_encoders([dataset], encoders)
    served = [(e, m) for m in dataset.modalities for e in encoders if m.kind in e.kinds]
    memory = DigestMemory(home.digests(dataset.name), forget=rehash)
    wanted = [m for m in dataset.modalities if any(m is modality for _, modality in served)]
    known = {m.name: input_digests(dataset, m, memory, track) for m in wanted}
    store = FeatureStore(home, dataset.name)
    plans: dict[StreamKey, StreamPlan] = {}
    for encoder, modality in served:
        found = known[modality.name]
        fields = identity_fields(encoder, dataset, modality, found)
        key = StreamKey(encoder.name, fingerprint(fields), modality.name)
        if key not in plans:
            spec = _spec(encoder, modality, fields)
            seen = forecast(
                store, key, spec, found.digests, found.absent, retry_failed=retry_failed
            )
            width = seen.spec.width if seen.spec else spec.width if spec else None
            download = None if seen.complete else download_of(encoder)
            plans[key] = StreamPlan(
                key, encoder, dataset, modality, found, fields, seen, width, download
            )
    return list(plans.values())


def check_encoders(datasets: Sequence[Dataset], encoders: Sequence[Encoder]) -> None:
    """Check that every encoder serves a modality of one of the datasets.

    Raises:
        MmfuseError: naming the kinds that an encoder encodes, those that the columns have, and the
            encoders that serve them.
    """
    modalities = list(dict.fromkeys(m for dataset in datasets for m in dataset.modalities))
    kinds = {modality.kind for modality in modalities}
    useless = [encoder for encoder in encoders if not kinds & set(encoder.kinds)]
    if encoders and not useless:
        return
    names = ", ".join(dataset.name for dataset in datasets)
    needs = [
        f"{encoder.name} serves no modality of {names}: it encodes {' and '.join(encoder.kinds)}"
        for encoder in useless
    ]
    have = "; ".join(
        f"{m.name} ({m.kind}) is served by {', '.join(serving(m.kind)) or 'none'}"
        for m in modalities
    )
    error = f"{'; '.join(needs) or 'no encoder is named'}; {have}"
    if useless and any(dataset.origin is not None for dataset in datasets):
        error += f"; a column of another kind: --modality NAME={min(useless[0].kinds)}:COLUMN"
    raise MmfuseError(error)


def serving_encoders(
    datasets: Sequence[Dataset], encoders: Sequence[Encoder]
) -> dict[str, list[Encoder]]:
    """Encoders that serve a modality of each dataset, by its name; all of them where none does.

    Raises:
        MmfuseError: as `check_encoders`.
    """
    check_encoders(datasets, encoders)
    found = {}
    for dataset in datasets:
        kinds = {modality.kind for modality in dataset.modalities}
        fit = [encoder for encoder in encoders if kinds & set(encoder.kinds)]
        found[dataset.name] = fit or list(encoders)
    return found


def unserved(dataset: Dataset, encoders: Sequence[Encoder]) -> dict[str, tuple[str, ...]]:
    """Modalities that no given encoder serves, with the names of encoders that would."""
    left = [m for m in dataset.modalities if not any(m.kind in e.kinds for e in encoders)]
    return {modality.name: serving(modality.kind) for modality in left}


def identity_fields(
    encoder: Encoder, dataset: Dataset, modality: Modality, found: InputDigests
) -> dict[str, object]:
    """Fields of a stream's fingerprint: the encoder's, and the digest of its training rows."""
    fields: dict[str, object] = {
        "encoder": encoder.name,
        "kind": modality.kind,
        "storage": encoder.storage,
        "sequence": encoder.sequence,
        **encoder.fields(modality.kind),
    }
    if is_fitted_encoder(encoder):
        fields["fitted_on"] = fitted_on(dataset, found)
    return fields


def _spec(encoder: Encoder, modality: Modality, fields: Mapping[str, object]) -> StreamSpec | None:
    """Spec of the stream without provenance; None while the width depends on fitting."""
    width = None if is_fitted_encoder(encoder) else encoder.kinds[modality.kind]
    if width is None:
        return None
    return StreamSpec(modality.kind, width, encoder.storage, encoder.sequence, fields, {})


def serving(kind: Kind) -> tuple[str, ...]:
    """Names of the installed encoders that serve a kind of modality."""
    return tuple(n for n, entry in catalog.entries("encoders").items() if kind in _kinds(entry))


def _kinds(entry: catalog.Entry) -> Mapping[object, object]:
    kinds = entry.constants.get("KINDS")
    return kinds if isinstance(kinds, dict) else {}
