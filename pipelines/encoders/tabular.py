"""Scaled numbers, one-hot categories and date features of table rows; no weights."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError
from cache.samples import Kind
from pipelines.encoding.encoder import Storage
from pipelines.media.payloads import Unreadable

KINDS: dict[Kind, int | None] = {"tabular": None}
VERSION = 1
LIMIT = 3.0  # scaled numbers are smoothly clipped to (-LIMIT, LIMIT)
HUGE = 1e30  # replaces infinity before clipping
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_YEAR = 365.2425 * 86400  # seconds
_CELLS = 1 << 22  # numbers that are scaled at a time

Column = dict[str, Any]  # what was learnt about a column, as JSON
Values = list[object]  # a column's cells, None where missing


@dataclass
class Tabular:
    """Each column as a block of features that depends on its training cells.

    - numbers: centred on the median, divided by the interquartile range, clipped by
      x / √(1 + (x/3)²) (robust scaling and smooth clipping; Holzmüller, Grinsztajn and Steinwart,
      "Better by Default", NeurIPS 2024, section 3), so that one outlier does not dominate a row;
    - categories: one-hot, with one place for all that were rare or unseen in training;
    - dates: a number as above, and sine and cosine of the season, the weekday and the hour;
    - and one missing indicator, where a training cell was missing.
    """

    categories: int
    rare: float
    columns: list[Column] | None = field(default=None, compare=False)
    name: str = "tabular"
    storage: Storage = "float32"
    sequence: bool = False
    weights: Literal["weight-free"] = "weight-free"

    @property
    def kinds(self) -> Mapping[Kind, int | None]:
        """`tabular` → the width that follows from the training rows; None until fitted."""
        if self.columns is None:
            return {"tabular": None}
        return {"tabular": sum(map(_width, self.columns))}

    def fields(self, kind: Kind) -> dict[str, object]:
        """The options; extraction adds the digest of the training rows."""
        return {
            "encoder": self.name,
            "version": VERSION,
            "categories": self.categories,
            "rare": self.rare,
        }

    def provenance(self) -> dict[str, object]:
        """Version of scikit-learn, which finds scales and categories."""
        return {"versions": {"scikit-learn": version("scikit-learn")}}

    def fit(self, kind: Kind, payloads: Sequence[Any]) -> dict[str, object]:
        """Learn columns, scales and categories from training rows alone.

        Returns:
            What was learnt, as JSON, for `restore`.

        Raises:
            MmfuseError: where there are no training rows, or none of their columns varies.
        """
        names = dict.fromkeys(name for payload in payloads for name in payload)
        columns = []
        for name in names:
            values = [payload.get(name) for payload in payloads]
            columns.append({"name": name, **self._learn(values)})
        _add_scales(columns, payloads)
        self.columns = [column for column in columns if _width(column)]
        if not self.columns:
            raise MmfuseError(
                f"tabular: nothing varies in the {len(payloads)} training rows with a table; "
                "leave the modality out"
            )
        return {"columns": self.columns}

    def restore(self, state: Mapping[str, object]) -> None:
        """Load a state that `fit` returned."""
        columns = state["columns"]
        if not isinstance(columns, list):
            raise MmfuseError("tabular: the stored state holds no list of columns; extract again")
        self.columns = columns

    def prepare(self, kind: Kind, payload: Any) -> tuple[dict[str, object], int]:  # noqa: ANN401
        """The row itself; the cost is 1.

        Raises:
            Unreadable: for anything but a row of named cells, and for a row without any value, or
                with none of the training columns.
        """
        if not isinstance(payload, Mapping):
            raise Unreadable("wrong-type", f"a table row has named cells; got {type(payload)}")
        known = {str(column["name"]) for column in self.columns or ()}
        if known and known.isdisjoint(payload):
            raise Unreadable("wrong-type", f"the row has none of the columns {sorted(known)}")
        if all(_missing(value) for value in payload.values()):
            raise Unreadable("empty", "every cell of the row is missing")
        return dict(payload), 1

    def encode(self, kind: Kind, batch: Sequence[Any]) -> list[NDArray[Any]]:
        """Rows → (D,) float32 each; columns that were not in training are ignored.

        Raises:
            MmfuseError: before `fit` or `restore`.
        """
        if self.columns is None:
            raise MmfuseError("tabular must be fitted on training rows before it can encode")
        ends = np.cumsum([_width(column) for column in self.columns])
        encoded = np.empty((len(batch), ends[-1]), np.float32)
        numbers = []
        for column, end in zip(self.columns, ends, strict=True):
            if column["kind"] == "number" and column["spread"]:
                numbers.append((column, int(end)))
                continue
            block = _block(column, [row.get(column["name"]) for row in batch])
            encoded[:, end - block.shape[1] : end] = block
        if numbers:
            _encode_numbers(encoded, numbers, batch)
        return list(encoded)

    def unknown_words(self, rows: Sequence[Any]) -> dict[str, tuple[int, str]]:
        """By column, how many cells hold a word that is rare or was not seen in training."""
        found: dict[str, tuple[int, str]] = {}
        for column in self.columns or ():
            if column["kind"] != "category":
                continue
            names = set(column["names"])
            cells = [row.get(column["name"]) for row in rows if isinstance(row, Mapping)]
            words = [_word(cell) for cell in cells if not _missing(cell)]
            unknown = [word for word in words if word not in names]
            if unknown:
                found[str(column["name"])] = len(unknown), unknown[0]
        return found

    def _learn(self, values: Values) -> Column:
        known = [value for value in values if not _missing(value)]
        learnt: Column = {"missing": 0 < len(known) < len(values)}
        if len({_word(value) for value in known}) < 2:
            return {"kind": "number", **learnt, "centre": 0.0, "spread": 0.0}
        if all(isinstance(value, int | float) for value in known):
            return {"kind": "number", **learnt}
        moments = [_moment(value) for value in known]
        if all(moment is not None for moment in moments):
            seconds = np.array([moment.timestamp() for moment in moments if moment is not None])
            return {"kind": "date", "clock": bool((seconds % 86400).any()), **learnt}
        return {"kind": "category", **learnt, "names": self._frequent([_word(v) for v in known])}

    def _frequent(self, known: list[str]) -> list[str]:
        from sklearn.preprocessing import OneHotEncoder

        cells = np.array(known, object)[:, None]
        atleast = max(2, math.ceil(self.rare * len(known)))
        learner = OneHotEncoder(min_frequency=atleast, max_categories=self.categories + 1)
        learner.fit(cells)
        infrequent = learner.infrequent_categories_[0]
        rare = set() if infrequent is None else set(infrequent)
        return [name for name in learner.categories_[0] if name not in rare]


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _moment(value: object) -> datetime | None:
    """The datetime of a date or of an ISO 8601 text, in UTC where it names no zone."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _add_scales(columns: Sequence[Column], payloads: Sequence[Any]) -> None:
    """Add `centre` and `spread` to the columns of numbers and dates that vary, many at a time."""
    varying = [c for c in columns if c["kind"] != "category" and "centre" not in c]
    step = max(1, _CELLS // len(payloads))
    for start in range(0, len(varying), step):
        part = varying[start : start + step]
        read = [
            (column["name"], _number if column["kind"] == "number" else _years) for column in part
        ]
        values = np.array([[to(payload.get(name)) for name, to in read] for payload in payloads])
        for column, centre, spread in zip(part, *_scales(values), strict=True):
            column.update(centre=centre, spread=spread)


def _scales(values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Median and interquartile range of each column of (N, K) numbers, without what is not finite.

    Half the whole range where the interquartile range is 0; 0 for a constant.
    """
    from sklearn.preprocessing import RobustScaler

    values = np.where(np.isfinite(values), values, np.nan)
    some = np.isfinite(values).any(axis=0)
    centre, spread = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    known = values[:, some]
    if known.size:
        learner = RobustScaler().fit(known)
        low, high = np.nanpercentile(known, [25, 75], axis=0)
        lowest, highest = np.nanmin(known, axis=0), np.nanmax(known, axis=0)
        centre[some] = np.where(lowest < highest, learner.center_, lowest)
        spread[some] = np.where(high > low, learner.scale_, (highest - lowest) / 2)
    return centre.tolist(), spread.tolist()


def _width(column: Column) -> int:
    match column["kind"]:
        case "number":
            own = 1 if column["spread"] else 0
        case "date":
            own = 1 + 4 + 2 * column["clock"] if column["spread"] else 0
        case _:
            own = len(column["names"]) + 1
    return int(own + column["missing"])


def _block(column: Column, values: Values) -> NDArray[np.float64]:
    """(B, width of this column)."""
    match column["kind"]:
        case "number":
            missing = np.isnan([_number(value) for value in values])
            parts = np.zeros((len(values), 0))  # a constant; see `_encode_numbers` for the others
        case "date":
            moments = [_moment(value) for value in values]
            missing = np.array([moment is None for moment in moments], bool)
            parts = _date_parts(column, moments)
        case _:
            missing = np.array([_missing(value) for value in values], bool)
            places = {name: place for place, name in enumerate(column["names"])}
            parts = np.zeros((len(values), len(places) + 1))
            found = [places.get(_word(value), len(places)) for value in values]
            parts[np.arange(len(values)), found] = ~missing
    return np.concatenate([parts, missing[:, None]], axis=1) if column["missing"] else parts


def _encode_numbers(
    encoded: NDArray[np.float32], columns: Sequence[tuple[Column, int]], batch: Sequence[Any]
) -> None:
    """Write the columns of numbers, each with the place behind its block, into (B, D)."""
    names = [column["name"] for column, _ in columns]
    values = np.array([[_number(row.get(name)) for name in names] for row in batch])  # (B, K)
    missing = np.isnan(values)
    said = np.array([column["missing"] for column, _ in columns], bool)
    ends = np.array([end for _, end in columns])
    encoded[:, ends - 1 - said] = _squashed([column for column, _ in columns], values)
    encoded[:, ends[said] - 1] = missing[:, said]


def _word(value: object) -> str:
    """A cell as the word of a category: `true` and `false` as CSV files write them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: object) -> float:
    """A cell as float; NaN for anything else, infinity for integers beyond float's range."""
    if not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _years(value: object) -> float:
    """A date as years since 1970; NaN for anything else."""
    moment = _moment(value)
    return math.nan if moment is None else moment.timestamp() / _YEAR


def _squashed(columns: Sequence[Column], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, K) numbers → (B, K) in (-LIMIT, LIMIT), 0 where missing."""
    centre = np.array([column["centre"] for column in columns])
    spread = np.array([column["spread"] for column in columns])
    scaled = np.nan_to_num(np.clip((values - centre) / spread, -HUGE, HUGE))
    squashed: NDArray[np.float64] = scaled / np.sqrt(1 + (scaled / LIMIT) ** 2)
    return squashed


def _date_parts(column: Column, moments: list[datetime | None]) -> NDArray[np.float64]:
    """(B, 5 or 7): time, season (2), weekday (2), hour (2) if any; zeros where missing."""
    if not column["spread"]:
        return np.zeros((len(moments), 0))
    present = np.array([moment is not None for moment in moments], bool)
    seconds = np.array([moment.timestamp() if moment else math.nan for moment in moments])
    parts = [_squashed([column], (seconds / _YEAR)[:, None])]
    days = np.nan_to_num(seconds) / 86400
    turns = [days / 365.2425, np.floor(days) / 7, *([days % 1] if column["clock"] else [])]
    for turn in turns:
        angles = 2 * np.pi * turn
        parts.append(np.stack([np.sin(angles), np.cos(angles)], axis=1) * present[:, None])
    return np.concatenate(parts, axis=1)


def build(*, categories: int = 32, rare: float = 0.01) -> Tabular:
    """A table's rows as an encoder.

    Args:
        categories: maximal one-hot width of a column, without its place for rare ones.
        rare: share of the training rows below which a category is rare; so is one that occurs once.
    """
    return Tabular(categories, rare)
