"""Payload types: decoded cells of a dataset, and the error for cells that cannot be decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Waveform:
    """Audio: samples (T,) float32 in [-1, 1], the mean of the channels, at `rate` Hz."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Frames:
    """Video: its encoded bytes; `video.decode_frames` decodes frames evenly spaced in time.

    Attributes:
        data: the file.
        count: number of frames.
        rate: mean frames per second; 0 where the file does not say.
        start: when the first frame is shown, in ticks of the file; 0 without `timed`.
        end: when the last frame has been shown; `count` without `timed`.
        timed: whether the file says when frames are shown; otherwise all are shown equally long.
    """

    data: bytes = field(repr=False)
    count: int
    rate: float
    start: int
    end: int
    timed: bool


Record = Mapping[str, object]  # one row of a table: numbers, strings, dates; None where missing


Series = NDArray[np.float32]  # (T, V) values over time, NaN where missing


class Unreadable(Exception):  # noqa: N818 - names a state of a sample, not an error of the program
    """A sample that cannot be decoded or encoded; only its own cell is marked failed.

    Attributes:
        reason: one short word for tables, such as `truncated`, `empty`, `missing-file`,
            `wrong-type`, `bomb`, `non-finite`.
        detail: a sentence with the particulars.
        transient: True where a retry may help (input/output, network).
    """

    def __init__(self, reason: str, detail: str = "", transient: bool = False) -> None:  # noqa: FBT001, FBT002 - exceptions pickle by position
        super().__init__(reason, detail, transient)
        self.reason, self.detail, self.transient = reason, detail, transient

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
