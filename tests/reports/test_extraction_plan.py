"""The outlook: what `--plan` shows of rows, disk, download and time."""

import re
import time
from dataclasses import dataclass

import numpy as np
import pytest
from small_encoders import Centred, Echo, texts

from cache.layout import Home
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import plan
from pipelines.reports.extraction import duration_text, estimate_table

pytestmark = pytest.mark.usefixtures("sleeping_clock")


@dataclass
class Slow(Echo):
    """Takes a twentieth of a second a text, and chokes on some."""

    pause: float = 0.05

    def encode(self, kind, batch):
        """As Echo's, after the pause."""
        time.sleep(self.pause * len(batch))
        if any("BAD" in str(item) for item in batch):
            raise ValueError("cannot encode this")
        return super().encode(kind, batch)


def look(dataset, encoder, home, **options):
    """The outlook's only row, its record and its text by heading, and its notes."""
    plans = {dataset.name: plan(dataset, [encoder], home=home)}
    table = estimate_table(plans, home=home, options=ExtractOptions(**{"workers": 0} | options))
    (row,) = table.texts()
    return table.records()[0] | dict(zip(table.headings, row, strict=True)), table.notes


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (0.2, "1 s"), (42, "42 s"), (600, "10 min"), (7200, "2.0 h"), (4e6, "1,111.1 h")],
)
def test_times_are_told_in_the_unit_people_use(seconds, told):
    """Seconds below a minute and a half, minutes below an hour and a half, then hours."""
    assert duration_text(seconds) == told


def test_a_long_extraction_is_told_in_hours_with_a_smaller_first_step(tmp_path):
    """200,000 texts at 50 ms are 2.8 hours on a CPU, and --limit is offered; nothing is stored."""
    home = Home(tmp_path / "artifacts")
    dataset = texts({"m": [f"text {n}" for n in range(200_000)]})
    row, notes = look(dataset, Slow(), home, batch_rows=2)
    assert row["to_encode"] == 200_000
    assert 1.5 * 3600 < row["seconds"] < 4 * 3600
    assert re.fullmatch(r"~[23]\.\d h", row["time"])
    assert re.match(r"about [23]\.\d hours in all on a CPU, from three timed", notes[-1])
    assert re.search(r"--limit (10000|9000|8000) would take about (\d+) min", notes[-1])
    assert not home.root.exists()


def test_a_limit_shortens_the_time_and_is_not_offered_again(tmp_path):
    """With --limit the time is that of the limited run."""
    dataset = texts({"m": [f"text {n}" for n in range(100_000)]})
    row, notes = look(dataset, Slow(), Home(tmp_path), batch_rows=2, limit=1000)
    assert 50 <= int(row["time"].strip("~ s")) < 75
    assert notes == ()


def test_what_cannot_be_encoded_costs_the_outlook_nothing_but_time(tmp_path):
    """Some bad samples leave an estimate; where all are bad, no time is made up."""
    mixed = [f"{'BAD' if n % 3 == 0 else 'good'} {n}" for n in range(40)]
    row, notes = look(texts({"m": mixed}), Slow(pause=0.001), Home(tmp_path), batch_rows=4)
    assert (row["time"], notes) == ("~1 s", ())
    bad = texts({"m": [f"BAD {n}" for n in range(40)]})
    row, notes = look(bad, Slow(pause=0), Home(tmp_path), batch_rows=4)
    assert (row["time"], row["seconds"]) == ("-", None)
    assert "none of the samples tried can be read or encoded" in notes[0]


def test_the_disk_of_a_fitted_stream_is_known_once_it_was_timed(tmp_path):
    """The width that fitting tells counts in bytes: values, digests, presence and state."""
    row, _ = look(texts({"m": ["a", "b", "c", "d", "e"]}), Centred(), Home(tmp_path))
    encoder = Centred()
    size = 5 * (encoder.kinds["text"] or 8) * np.dtype(encoder.storage).itemsize
    assert row["disk"].endswith(" B")
    assert row["bytes"] == int(row["disk"].split()[0]) >= size


def test_a_finished_stream_takes_no_time_and_no_disk(tmp_path):
    """After extraction the outlook is zero rows, 0 B and 0 s."""
    dataset = texts({"m": ["a", "b", "c", "d", "e"]})
    extract(dataset, [Echo()], home=Home(tmp_path), options=ExtractOptions(workers=0))
    row, notes = look(dataset, Echo(), Home(tmp_path))
    assert (row["to encode"], row["disk"], row["time"], notes) == ("0", "0 B", "~0 s", ())
    assert (row["bytes"], row["seconds"], row["download_bytes"]) == (0, 0, 0)
