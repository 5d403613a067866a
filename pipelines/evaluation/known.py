"""Known scores: what an evaluation found, kept with the run, so that asking again takes no torch.

One record a pattern, named by a digest of all that it depends on: the weights, what was encoded for
each stream, the pattern, the metrics, the device and the version. A damaged one counts as unknown.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from cache.fingerprints import fingerprint
from cache.runs import RunRecord, Scores
from cache.storage.objects import DamagedError, get_record, put_record
from pipelines.evaluation.result import PatternScores
from pipelines.features.missing import MissingPattern
from pipelines.metrics.significance import Difference

VERSION = 1  # of how patterns are scored; records of another are not used


@dataclass(frozen=True)
class KnownScores:
    """Scores under one pattern, and what is to be said about it.

    Attributes:
        row: of the evaluation.
        remarks: on what the pattern hid.
    """

    row: PatternScores
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """Kept scores of a run, with its features as they are now.

    Attributes:
        run: the run.
        inputs: by stream, what was encoded, see `FeatureStore.inputs_digest`.
        metrics: in which differences are given.
        device: the word for it.
    """

    run: RunRecord
    inputs: Mapping[str, str]
    metrics: Sequence[str]
    device: str

    def get(self, pattern: MissingPattern) -> KnownScores | None:
        """What is known under a pattern; None where nothing is."""
        try:
            found = get_record(self._place(pattern))
        except DamagedError:
            return None
        return None if found is None else _unpacked(found)

    def put(self, pattern: MissingPattern, found: KnownScores) -> None:
        """Keep scores.

        Raises:
            MmfuseError: where the run's folder cannot be written.
        """
        put_record(self._place(pattern), _packed(found), self.run.path / "known")

    def _place(self, pattern: MissingPattern) -> Any:  # noqa: ANN401
        about = {
            "version": [VERSION, version("mmfuse")],
            "weights": self._weights,
            "inputs": dict(self.inputs),
            "pattern": asdict(pattern),
            "metrics": list(self.metrics),
            "device": self.device,
        }
        return self.run.path / "known" / f"{fingerprint(about)[:32]}.json"

    @cached_property
    def _weights(self) -> str:
        data = (self.run.path / "head.safetensors").read_bytes()
        return hashlib.blake2b(data, digest_size=16).hexdigest()


def _packed(found: KnownScores) -> dict[str, Any]:
    row = found.row
    record = {
        "scores": asdict(row.scores),
        "differences": {name: asdict(each) for name, each in row.differences.items()},
        "single": [row.single[0], asdict(row.single[1])],
        "majority": asdict(row.majority),
        "linear": asdict(row.linear),
        "remarks": list(found.remarks),
    }
    plain: dict[str, Any] = _each_number(record, lambda x: None if np.isnan(x) else float(x))
    return plain


def _unpacked(record: Mapping[str, Any]) -> KnownScores:
    scores, majority, linear = (_scores(record[name]) for name in ("scores", "majority", "linear"))
    differences = {
        name: Difference(**{n: np.nan if x is None else x for n, x in each.items()})
        for name, each in record["differences"].items()
    }
    single = record["single"][0], _scores(record["single"][1])
    row = PatternScores(scores, differences, single, majority, linear)
    return KnownScores(row, tuple(record["remarks"]))


def _scores(plain: Mapping[str, Any]) -> Scores:
    numbers = {name: _with_nan(plain[name]) for name in ("metrics", "per_class")}
    return Scores(**{**plain, **numbers})


def _with_nan(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {name: _with_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return np.nan if value is None else value


def _each_number(value: Any, change: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {name: _each_number(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_each_number(each, change) for each in value]
    return change(value) if isinstance(value, float) else value
