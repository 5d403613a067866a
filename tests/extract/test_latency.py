"""Seconds per new sample: measured at extraction, stored beside the stream, reported with runs."""

import time

import pytest
from made import fill_store, made_table
from small_encoders import Echo, texts

from cache.feature_store import FeatureStore
from cache.layout import DatasetPaths, Home
from cache.maintenance.verify import verify
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.media.payloads import Unreadable
from pipelines.reports import runs
from pipelines.training.costs import with_encoders
from pipelines.training.train import train

WAIT = 0.004


class Slow(Echo):
    """Preparing and encoding wait a known time each."""

    def prepare(self, kind, payload):
        """Wait; one text cannot be read, and would end this process were it tried again."""
        if payload == "bad":
            if self.encoded:
                raise SystemExit("a failed sample was prepared again")
            raise Unreadable("torn", payload)
        time.sleep(WAIT)
        return super().prepare(kind, payload)

    def encode(self, kind, items):
        """Wait."""
        time.sleep(WAIT)
        return super().encode(kind, items)


@pytest.mark.usefixtures("sleeping_clock")
def test_extraction_times_one_sample_after_another(tmp_path):
    """p50 and p95 hold both waits; what failed is not tried again; verify knows the record."""
    home, encoder = Home(tmp_path), Slow()
    cells = [*(f"text {n}" for n in range(30)), "bad", None]
    (report,) = extract(texts({"m": cells}, name="x"), [encoder], home=home)
    found = FeatureStore(home, "x").latency(report.key)
    assert found == pytest.approx({"p50": 2 * WAIT, "p95": 2 * WAIT}, abs=1e-4)
    path = DatasetPaths.of(home, "x").stream(report.key.label).latency
    path.write_bytes(path.read_bytes().replace(b"p50", b"p51"))
    assert [damage.path for damage in verify(home).damages] == [path]
    assert FeatureStore(home, "x").latency(report.key) is None


def test_nothing_is_timed_without_being_asked_or_without_new_rows(tmp_path):
    """The second extraction encodes nothing at all, not even to tell the time."""
    home, dataset = Home(tmp_path), texts({"m": [f"text {n}" for n in range(9)]}, name="x")
    (report,) = extract(dataset, [Echo()], home=home, options=ExtractOptions(latency=False))
    assert FeatureStore(home, "x").latency(report.key) is None
    encoder = Echo()
    extract(dataset, [encoder], home=home)
    assert encoder.encoded == []


def test_a_run_records_what_a_sample_takes_with_encoders(tmp_path):
    """Head and streams add up; where one stream was never timed nothing is claimed."""
    home = Home(tmp_path)
    fill_store(home, made_table(120, absent=0.0))
    words = {"epochs": "1", "seeds": "0", "width": "8"}
    run = train("concat", "made", home=home, options=words)
    assert "with_encoders_p50" not in run.costs
    store = FeatureStore(home, "made")
    for info in store.streams():
        store.keep_latency(info.key, {"p50": 0.5, "p95": 0.75})
    run = train("concat", "made", home=home, options=words)
    streams = len(run.streams)
    costs = run.costs
    assert costs["with_encoders_p50"] == pytest.approx(0.5 * streams + costs["latency_p50"])
    assert costs["with_encoders_p95"] == pytest.approx(0.75 * streams + costs["latency_p95"])
    (row,) = runs.cost_table([run]).rows
    assert row[2:4] == (run.parameters, round(costs["macs"]))
    assert row[6] == costs["with_encoders_p50"]
    (text,) = runs.cost_table([run]).texts()
    assert float(text[6]) == pytest.approx(costs["with_encoders_p50"] * 1e3, abs=0.01)


def test_sums_need_every_stream():
    """One unknown stream leaves nothing to add up."""
    head = {"latency_p50": 1.0, "latency_p95": 2.0}
    assert with_encoders([{"p50": 1.0, "p95": 1.5}, None], head) == {}
    both = with_encoders([{"p50": 1.0, "p95": 1.5}, {"p50": 2.0, "p95": 2.5}], head)
    assert both == {"with_encoders_p50": 4.0, "with_encoders_p95": 6.0}
