"""Stems: trainable front ends of one stream (linear, mean, GRU, BiLSTM, CNN), frames to a vector.

A stem is `stem(values, frame_present)` with clean values (B, D) or (B, T, D), zeros where absent.
Recurrent ones are unrolled from matrix products, because fused kernels have no batching rule under
`vmap`; at an absent frame, wherever in the sequence, the state does not change.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import isqrt, sqrt

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError, unknown
from pipelines.fusion.head import Inputs, Stream
from pipelines.fusion.layers import LinearStem, pooled

Stem = Callable[[Stream, int], nn.Module]


class Mean(nn.Module):
    """Mean over present frames, without parameters; the stream's width must be H."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        if stream.width != width:
            message = f"stem mean keeps the width of {stream.modality}, {stream.width}, but the"
            raise MmfuseError(f"{message} head has width {width}; use stem=linear")

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, D) or (B, T, D) → (B, D)."""
        return pooled(x, frame_present)


class Gru(nn.Module):
    """Last state of a GRU, as `torch.nn.GRU` with one layer, batch first."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight_input = _uniform(3 * width, stream.width, width)
        self.weight_state = _uniform(3 * width, width, width)
        self.bias_input = _uniform(3 * width, None, width)
        self.bias_state = _uniform(3 * width, None, width)

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, T, D) → (B, H); zeros where no frame is present."""
        x, there = frames_of(x, frame_present)
        given = x @ self.weight_input.mT + self.bias_input  # (B, T, 3H)
        state = torch.zeros_like(given[:, 0, : self.width])
        two = 2 * self.width
        gates_in, fresh_in = given[..., :two], given[..., two:]
        # Unbound once: indexing frame by frame has a gradient as long as the sequence, T times.
        for gate, new, here in zip(*frame_by_frame(gates_in, fresh_in, there), strict=True):
            held = state @ self.weight_state.mT + self.bias_state
            reset, update = torch.sigmoid(gate + held[:, :two]).chunk(2, -1)
            fresh = torch.tanh(new + reset * held[:, two:])
            state = torch.where(here, torch.lerp(fresh, state, update), state)
        return state


class Lstm(nn.Module):
    """Last hidden state of an LSTM, as `torch.nn.LSTM` with one layer, one direction."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight_input = _uniform(4 * hidden, width, hidden)
        self.weight_state = _uniform(4 * hidden, hidden, hidden)
        self.bias_input = _uniform(4 * hidden, None, hidden)
        self.bias_state = _uniform(4 * hidden, None, hidden)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """(B, T, D), (B, T) → (B, H)."""
        given = x @ self.weight_input.mT + self.bias_input  # (B, T, 4H)
        state = memory = torch.zeros_like(given[:, 0, : self.hidden])
        for each, here in zip(*frame_by_frame(given, there), strict=True):
            gates = each + state @ self.weight_state.mT + self.bias_state
            input_gate, forget, fresh, shown = gates.chunk(4, -1)
            later = forget.sigmoid() * memory + input_gate.sigmoid() * fresh.tanh()
            memory = torch.where(here, later, memory)
            state = torch.where(here, shown.sigmoid() * memory.tanh(), state)
        return state


class BiLstm(nn.Module):
    """Bidirectional LSTM: a linear map of both directions' last states."""

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        self.ahead = Lstm(stream.width, width)
        self.back = Lstm(stream.width, width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, T, D) → (B, H)."""
        x, there = frames_of(x, frame_present)
        both = [self.ahead(x, there), self.back(x.flip(1), there.flip(1))]
        return torch.as_tensor(self.out(torch.cat(both, -1)))


class Cnn1d(nn.Module):
    """1-D CNN: three convolutions over time, mean over present frames, linear map.

    Absent frames are zeros before every convolution, like its padding, so padding a sequence
    changes nothing.
    """

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        sizes = [stream.width, width, width, width]
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, T, D) → (B, H)."""
        x, there = frames_of(x, frame_present)
        x = x.mT  # (B, D, T)
        for layer in self.layers:
            x = torch.where(there[:, None], torch.relu(layer(x)), 0)
        return torch.as_tensor(self.out(pooled(x.mT, there)))


class Cnn2d(nn.Module):
    """2-D CNN: three convolutions over an image, 2×2 pooling after the first two, mean, linear map.

    A pooled stream of width s² or 3 s² is a grey or RGB image of side s, row by row; a sequence
    (T, D) is a grey image, time by feature, whose absent frames are zeros before every
    convolution and do not count in the mean.
    """

    def __init__(self, stream: Stream, width: int) -> None:
        super().__init__()
        self.channels, self.side = (1, 0) if stream.sequence else image_shape(stream)
        sizes = [self.channels, max(1, width // 4), max(1, width // 2), width]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """(B, D) or (B, T, D) → (B, H)."""
        if frame_present is None:
            x, there = x.view(len(x), self.channels, self.side, self.side), None
        else:
            x, there = x.unsqueeze(1), frame_present  # (B, 1, T, D), (B, T)
        for number, layer in enumerate(self.layers):
            x = torch.relu(layer(x))
            if there is not None:
                x = torch.where(there[:, None, :, None], x, 0)
            if number < 2:
                x = halved(x)
                if there is not None:
                    there = halved(there[:, None, :, None].to(x.dtype))[:, 0, :, 0] > 0
        rows = x.mean(-1).mT  # (B, T, H)
        return torch.as_tensor(self.out(rows.mean(1) if there is None else pooled(rows, there)))


class SharedStem(nn.Module):
    """Weight sharing: calls another stream's stem, whose parameters are registered there only."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = (owner,)  # in a tuple, so that it is not registered a second time

    def forward(self, x: Tensor, frame_present: Tensor | None) -> Tensor:
        """As the owner."""
        return torch.as_tensor(self.owner[0](x, frame_present))


STEMS: dict[str, Stem] = {
    "linear": LinearStem,
    "mean": Mean,
    "gru": Gru,
    "bilstm": BiLstm,
    "cnn1d": Cnn1d,
    "cnn2d": Cnn2d,
}
NEED_FRAMES = frozenset({"gru", "bilstm", "cnn1d"})


def stems_of(inputs: Inputs, words: str, *, share: bool = False) -> Stem:
    """Factory of the stem of each stream, for `Stems` and `Tokens`.

    Args:
        inputs: the streams.
        words: one word for all, such as `gru`, or by modality `audio=bilstm,image=cnn2d`, the
            others `linear`. Streams without frames are `linear` where a stem needs frames.
        share: streams of the same width and kind of stem share one, as for many series of one
            kind.

    Raises:
        MmfuseError: for unknown words, or a modality without frames whose stem needs them.
    """
    chosen = _chosen(inputs, words)
    made: dict[tuple[str, Stream, int], nn.Module] = {}

    def make(stream: Stream, width: int) -> nn.Module:
        word = chosen.get(stream.modality, "linear")
        word = "linear" if word in NEED_FRAMES and not stream.sequence else word
        key = word, replace(stream, modality=""), width
        if share and key in made:
            return SharedStem(made[key])
        made[key] = STEMS[word](stream, width)
        return made[key]

    return make


def frames_of(x: Tensor, frame_present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Frames (B, T, D) and which are present (B, T); a pooled stream is one frame."""
    if frame_present is not None:
        return x, frame_present
    return x[:, None], torch.ones_like(x[:, :1], dtype=torch.bool)


def frame_by_frame(*sequences: Tensor) -> list[tuple[Tensor, ...]]:
    """Unbind over time: each (B, T, …) as T frames (B, …); presence (B, T) as (B, 1)."""
    return [(x[..., None] if x.ndim == 2 else x).unbind(1) for x in sequences]


def halved(x: Tensor) -> Tensor:
    """2×2 average pooling of (…, h, w); an odd last row or column is padded with zeros."""
    x = nn.functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    return nn.functional.avg_pool2d(x, 2)


def image_shape(stream: Stream) -> tuple[int, int]:
    """Channels and side of the square image that has as many values as the stream is wide."""
    for channels in (1, 3):
        side = isqrt(stream.width // channels)
        if channels * side * side == stream.width:
            return channels, side
    raise MmfuseError(
        f"stem cnn2d: {stream.modality} has width {stream.width}, which is not a square image, "
        "grey or RGB; use stem=linear"
    )


def _chosen(inputs: Inputs, words: str) -> dict[str, str]:
    """Word of the stem by modality."""
    framed = {s.modality: False for s in inputs.streams.values()}
    framed |= {s.modality: True for s in inputs.streams.values() if s.sequence}
    if "=" not in words:
        if words not in STEMS:
            raise unknown("stem", words, STEMS)
        return dict.fromkeys(framed, words)
    chosen = {}
    for part in words.split(","):
        modality, _, word = (piece.strip() for piece in part.partition("="))
        if word not in STEMS:
            raise unknown("stem", word, STEMS)
        if modality not in framed:
            raise unknown("modality", modality, framed)
        if word in NEED_FRAMES and not framed[modality]:
            raise MmfuseError(
                f"stem {word}: {modality} has no frames; extract it with --sequence, "
                "or use stem=linear"
            )
        chosen[modality] = word
    return chosen


def _uniform(rows: int, columns: int | None, hidden: int) -> nn.Parameter:
    """Parameter initialised uniform within ±1/√H, as in `torch.nn.GRU`."""
    shape = (rows,) if columns is None else (rows, columns)
    return nn.Parameter((torch.rand(shape) * 2 - 1) / sqrt(hidden))
