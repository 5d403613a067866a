"""Window statistics of time series, or their scaled steps as a sequence; no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.encoder import Storage
from pipelines.media.payloads import Unreadable

KINDS: dict[Kind, int | None] = {"series": None}
VERSION = 1
LIMIT = 10.0  # scaled values are clipped to this
WHOLE = 8  # statistics of the whole series: mean, std, min, max, first, last, slope, share known


@dataclass
class Series:
    """Series scaled per variable by the training rows' median and interquartile range.

    Statistics are those of the whole series (mean, standard deviation, minimum, maximum, first,
    last, slope over the series, share of values that are not missing) and the mean of each of
    `windows` equal parts, a part without any value being 0. With `sequence`, every step is its
    values, 0 where missing, and one indicator for each variable that is 1 where it is missing.
    """

    windows: int
    sequence: bool
    scales: list[list[float]] | None = field(default=None, compare=False)  # V × (centre, spread)
    name: str = "series"
    storage: Storage = "float32"
    weights: Literal["weight-free"] = "weight-free"

    @property
    def kinds(self) -> Mapping[Kind, int | None]:
        """`series` → features per variable × variables of the training rows; None until fitted."""
        each = 2 if self.sequence else WHOLE + self.windows
        return {"series": None if self.scales is None else each * len(self.scales)}

    def fields(self, kind: Kind) -> dict[str, object]:
        """The options; extraction adds the digest of the training rows."""
        own = {"windows": self.windows, "limit": LIMIT, "sequence": self.sequence}
        return {"encoder": self.name, "version": VERSION, **own}

    def provenance(self) -> dict[str, object]:
        """Version of numpy."""
        return {"versions": {"numpy": np.__version__}}

    def fit(self, kind: Kind, payloads: Sequence[Any]) -> dict[str, object]:
        """Learn the number of variables and their scales, from training rows alone.

        Raises:
            MmfuseError: where there are no training rows.
        """
        shapes = [np.atleast_2d(np.asarray(one, np.float64).T).T for one in payloads]
        if not shapes:
            raise MmfuseError("series: there is no training row to learn scales from")
        count = max({shape.shape[1] for shape in shapes}, key=[s.shape[1] for s in shapes].count)
        values = np.concatenate([shape for shape in shapes if shape.shape[1] == count])  # (T, V)
        self.scales = [_scale(column) for column in values.T]
        return {"scales": self.scales}

    def restore(self, state: Mapping[str, object]) -> None:
        """Load a state that `fit` returned."""
        scales = state["scales"]
        if not isinstance(scales, list):
            raise MmfuseError("series: the stored state holds no scales; extract again")
        self.scales = scales

    def prepare(self, kind: Kind, payload: Any) -> tuple[NDArray[np.float32], int]:  # noqa: ANN401
        """(T, V) or (T,) values, NaN where missing → (T, V) float32; the cost is 1.

        Raises:
            Unreadable: without a single value, with infinity, or with other variables than the
                training rows have.
        """
        values = np.asarray(payload, np.float32)
        values = values[:, None] if values.ndim == 1 else values
        if not values.size or np.isnan(values).all():
            raise Unreadable("empty", "the series holds no value")
        if np.isinf(values).any():
            raise Unreadable("non-finite", "the series holds infinity")
        if self.scales is not None and values.shape[1] != len(self.scales):
            raise Unreadable(
                "wrong-type",
                f"{values.shape[1]} variables, where the training rows have {len(self.scales)}",
            )
        return values, 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Series → (D,) float32 each, by variable; or (T, 2 V) with `sequence`.

        Raises:
            MmfuseError: before `fit` or `restore`.
        """
        if self.scales is None:
            raise MmfuseError("series must be fitted on training rows before it can encode")
        centre, spread = np.array(self.scales, np.float32).T
        found = []
        for values in batch:
            scaled = np.clip((values - centre) / spread, -LIMIT, LIMIT)  # (T, V)
            if self.sequence:
                missing = np.isnan(scaled)
                whole = np.concatenate([np.nan_to_num(scaled), missing], axis=1)
                found.append(whole.astype(np.float32))
            else:
                found.append(_statistics(scaled, self.windows).ravel())
        return found


def _scale(column: NDArray[np.float64]) -> list[float]:
    """Median and interquartile range; where that is 0, the standard deviation; else 1."""
    known = column[np.isfinite(column)]
    if not known.size:
        return [0.0, 1.0]
    low, middle, high = np.percentile(known, [25, 50, 75])
    return [float(middle), float(high - low) or float(known.std()) or 1.0]


def _statistics(scaled: NDArray[np.float32], windows: int) -> NDArray[np.float32]:
    """(T, V) with NaN where missing → (V, 8 + windows) without."""
    steps, variables = scaled.shape
    found = np.zeros((variables, WHOLE + windows), np.float32)
    edges = np.linspace(0, steps, windows + 1).round().astype(int)
    for row, column in zip(found, scaled.T, strict=True):
        places = np.flatnonzero(~np.isnan(column))
        if not len(places):
            continue
        known = column[places]
        row[:6] = known.mean(), known.std(), known.min(), known.max(), known[0], known[-1]
        moments = places / max(steps - 1, 1)
        moments = moments - moments.mean()
        row[6] = (moments @ known) / max(moments @ moments, 1e-6)
        row[7] = len(places) / steps
        for window, (start, stop) in enumerate(pairwise(edges)):
            part = column[start:stop]
            part = part[~np.isnan(part)]
            row[WHOLE + window] = part.mean() if part.size else 0
    return found


def build(*, windows: int = 8, sequence: bool = False) -> Series:
    """Window statistics of time series as an encoder.

    Args:
        windows: number of equal parts whose means are features.
        sequence: a vector for every step instead.
    """
    return Series(windows, sequence)
