"""Charts as SVG text, without a library: dots with error bars by group, and line charts."""

import math
from collections.abc import Mapping, Sequence

from pipelines.reports.table import Spread, html_text

COLOURS = (  # palette of M. Okabe and K. Ito, safe for colour-blind readers
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8A6D00",
)  # fmt: skip
WIDTH, LEFT, RIGHT, ROW = 720, 170, 20, 15
Points = Sequence[tuple[float, float]]  # (x, y)


def dot_chart(groups: Mapping[str, Mapping[str, Spread]], axis: str) -> str:
    """Dot chart: a band a group, a dot a series at its mean, a bar of one standard deviation.

    Args:
        groups: group → series → spread; NaN is left out.
        axis: label of the x axis.
    """
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    spreads = [s for g in groups.values() for s in g.values() if not math.isnan(s.mean)]
    if not spreads:
        return ""
    low = min(s.mean - s.std for s in spreads)
    high = max(s.mean + s.std for s in spreads)
    scale = _scale(low, high, LEFT, WIDTH - RIGHT)
    top = 24 + 16 * math.ceil(len(series) / 4)
    parts = _legend(series)
    y = float(top)
    for name, group in groups.items():
        height = ROW * len(group) + 10
        parts.append(_text(LEFT - 10, y + height / 2 + 4, name, anchor="end"))
        parts.append(_line(LEFT, y + height, WIDTH - RIGHT, y + height, faint=True))
        for place, (method, spread) in enumerate(group.items()):
            if math.isnan(spread.mean):
                continue
            colour = COLOURS[series.index(method) % len(COLOURS)]
            at = y + 5 + ROW * (place + 0.5)
            label = f"{name}: {method} {spread}"
            ends = (scale(spread.mean - spread.std), scale(spread.mean + spread.std))
            parts.append(_line(ends[0], at, ends[1], at, colour=colour))
            parts.append(_dot(scale(spread.mean), at, colour, label))
        y += height
    parts += _axis(scale, low, high, y, axis)
    return _svg(parts, y + 42)


def line_chart(curves: Mapping[str, Points], x_axis: str, y_axis: str) -> str:
    """Line chart: one line a series over a common x.

    Args:
        curves: series → points in order of x.
        x_axis: label of x.
        y_axis: label of y.
    """
    points = [p for curve in curves.values() for p in curve if math.isfinite(p[1])]
    if len(points) < 2:
        return ""
    top = 24 + 16 * math.ceil(len(curves) / 4)
    bottom = top + 240.0
    across = _scale(min(x for x, _ in points), max(x for x, _ in points), LEFT, WIDTH - RIGHT)
    low, high = min(y for _, y in points), max(y for _, y in points)
    up = _scale(low, high, bottom, top)
    parts = _legend(list(curves))
    for value in _ticks(low, high):
        parts.append(_line(LEFT, up(value), WIDTH - RIGHT, up(value), faint=True))
        parts.append(_text(LEFT - 10, up(value) + 4, f"{value:g}", anchor="end"))
    for number, curve in enumerate(curves.values()):
        places = [f"{across(x):.1f},{up(y):.1f}" for x, y in curve if math.isfinite(y)]
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" '
            f'stroke-width="1.8"/>'
        )
    parts.append(_text(12, (top + bottom) / 2, y_axis))
    parts += _axis(across, min(x for x, _ in points), max(x for x, _ in points), bottom, x_axis)
    return _svg(parts, bottom + 42)


class _scale:  # noqa: N801 - used as a function
    """Linear scale: values from low to high → positions from start to stop."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        room = (high - low) * 0.03 or 0.5
        self.low, self.high, self.start, self.stop = low - room, high + room, start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def _ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between low and high, about as many as `about`."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _axis(scale: _scale, low: float, high: float, y: float, label: str) -> list[str]:
    parts = [_line(LEFT, y, WIDTH - RIGHT, y)]
    for value in _ticks(low, high):
        parts.append(_line(scale(value), y, scale(value), y + 4))
        parts.append(_text(scale(value), y + 17, f"{value:g}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, y + 34, label, anchor="middle"))
    return parts


def _legend(series: Sequence[str]) -> list[str]:
    parts = []
    for number, name in enumerate(series):
        x, y = LEFT + 135 * (number % 4), 14 + 16 * (number // 4)
        parts.append(_dot(x, y - 4, COLOURS[number % len(COLOURS)], name))
        parts.append(_text(x + 9, y, name if len(name) < 22 else f"{name[:20]}…"))
    return parts


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html_text(words)}</text>'


def _line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = "currentColor", faint: bool = False
) -> str:
    strength = "0.15" if faint else "1"
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-opacity="{strength}"/>'
    )


def _dot(x: float, y: float, colour: str, label: str) -> str:
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
    return f"{circle}<title>{html_text(label)}</title></circle>"


def _svg(parts: Sequence[str], height: float) -> str:
    inside = "\n".join(parts)
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">\n{inside}\n</svg>'
