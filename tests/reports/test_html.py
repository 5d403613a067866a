"""The HTML page and its plots: well formed, self-contained, and true to the numbers."""

import re
import xml.etree.ElementTree as ET

import pytest

from pipelines.reports import charts
from pipelines.reports.table import Spread, html_text

SVG = "{http://www.w3.org/2000/svg}"
GROUPS = {
    "complete": {"concat": Spread((0.8, 0.9)), "a<b & c": Spread((0.5,))},
    "without audio": {"concat": Spread((0.4, 0.6)), "a<b & c": Spread((float("nan"),))},
}


def test_dots_are_well_formed_and_one_a_number():
    """A dot for every score and every name of the legend; undefined scores have none."""
    drawn = ET.fromstring(charts.dot_chart(GROUPS, "test accuracy"))
    assert len(drawn.findall(f"{SVG}circle")) == 2 + 3


def test_dots_stand_where_their_numbers_say():
    """A higher mean is further to the right, and equal steps are equal distances."""
    spreads = {f"m{k}": Spread((k / 10,)) for k in range(1, 4)}
    drawn = ET.fromstring(charts.dot_chart({"complete": spreads}, "accuracy"))
    x = [float(c.get("cx")) for c in drawn.findall(f"{SVG}circle")][3:]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert x == sorted(x)


def test_a_dot_tells_its_number_when_pointed_at():
    """Each dot has a title with group, method and spread, escaped."""
    drawn = ET.fromstring(charts.dot_chart(GROUPS, "accuracy"))
    titles = [t.text for t in drawn.iter(f"{SVG}title")]
    assert "complete: concat 0.850 ± 0.071" in titles
    assert "complete: a<b & c 0.500" in titles


def test_lines_skip_what_is_undefined():
    """A curve with NaN in it is drawn through the numbers that there are."""
    curves = {"a": [(1.0, 0.1), (2.0, float("nan")), (3.0, 0.3)]}
    drawn = ET.fromstring(charts.line_chart(curves, "epoch", "score"))
    (curve,) = drawn.findall(f"{SVG}polyline")
    assert len(curve.get("points").split()) == 2


def test_nothing_to_draw_is_no_plot():
    """No numbers give no picture, not an empty frame."""
    assert charts.dot_chart({"complete": {"a": Spread((float("nan"),))}}, "x") == ""
    assert charts.line_chart({"a": [(1.0, 0.5)]}, "x", "y") == ""


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.81, 0.93), (-3, 250), (5, 5)])
def test_ticks_are_round_numbers_inside(low, high):
    """Two to eleven round numbers between the ends."""
    ticks = charts._ticks(low, high)
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert 1 <= len(ticks) <= 11
    assert all(len(re.sub(r"[-.0]", "", f"{tick:g}")) <= 3 for tick in ticks)


def test_words_of_the_data_are_text_on_the_page():
    """Tags are escaped, and control characters, which HTML forbids, are written out."""
    assert html_text("<b>\x1b[1m&\nend") == "&lt;b&gt;\\x1b[1m&amp;\\nend"
    drawn = charts.dot_chart({"complete": {"\x1b</svg>": Spread((0.5,))}}, "accuracy")
    assert "\x1b" not in drawn
    assert ET.fromstring(drawn) is not None
