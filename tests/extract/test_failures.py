"""Failures of an extraction: how many may be, which are tried again, and how they are reported."""

from dataclasses import dataclass

import numpy as np
import pytest
from small_encoders import Echo, texts

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import plan
from pipelines.media.payloads import Unreadable


@dataclass
class Unreliable(Echo):
    """Reads what is not `down`; a text may say that it is slow (transient) or torn (for good)."""

    down: bool = True

    def prepare(self, kind, payload):
        """The text, unless the disk is down."""
        for word, transient in (("slow", True), ("torn", False)):
            if self.down and payload.startswith(word):
                raise Unreadable(word, payload, transient=transient)
        return payload, len(payload)


def run(dataset, encoder, home, **options):
    """The one report of an extraction without worker processes."""
    options_ = ExtractOptions(**{"workers": 0, "latency": False} | options)
    (report,) = extract(dataset, [encoder], home=home, options=options_)
    return report


def mixed(count=300, every=10):
    """Every tenth text is slow, every tenth torn."""
    words = {0: "slow", every // 2: "torn"}
    return texts({"m": [f"{words.get(row % every, 'text')} {row}" for row in range(count)]})


def test_more_failures_than_may_be_end_the_run_and_are_counted_by_reason(home, small_shards):
    """The share is of the run's own inputs; what was done is kept and the same command resumes."""
    dataset, first = mixed(), Unreliable()
    with pytest.raises(
        MmfuseError, match=r"than the 30 that --max-bad allows \(\d+ slow, \d+ torn\)"
    ):
        run(dataset, first, home, max_bad=0.1)
    assert 0 < len(first.encoded) < 240
    second = Unreliable()
    report = run(dataset, second, home)
    assert report.failed == {"slow": 30, "torn": 30}
    assert len(first.encoded) + len(second.encoded) == 240


@pytest.mark.parametrize(("share", "ends"), [(0.2, False), (0.199, True), (0.0, True)])
def test_as_many_failures_as_may_be_are_only_recorded(home, small_shards, share, ends):
    """Sixty of three hundred are a share of 0.2 exactly: that much is allowed, and no more."""
    if ends:
        with pytest.raises(MmfuseError, match="--max-bad"):
            run(mixed(), Unreliable(), home, max_bad=share)
    else:
        assert run(mixed(), Unreliable(), home, max_bad=share).failures == 60


def test_vectors_that_cannot_be_kept_count_as_failures_too(home, small_shards):
    """NaN and what float16 cannot hold are found by the store, and end the run as well."""
    cells = [f"{'HUGE' if row % 2 else 'fine'} {row}" for row in range(2000)]
    with pytest.raises(MmfuseError, match=r"allows \(\d+ non-finite or overflow\)"):
        run(texts({"m": cells}), Echo(storage="float16"), home, max_bad=0.01)


def test_the_types_of_bad_files_are_counted(home, tmp_path):
    """Where all files are bad, the message says which endings their names have."""
    names = [f"{row}.{'parquet' if row % 4 else 'JPG'}" for row in range(200)]
    for name in names:
        (tmp_path / name).write_bytes(f"no image {name}".encode())
    dataset = texts({"m": names}, kind="image", root=tmp_path)
    counts = r"100 wrong-type; \d\d \.parquet, \d\d \.jpg"
    with pytest.raises(MmfuseError, match=counts + r"; the last, .*, 99\.parquet\): wrong-t"):
        run(dataset, Echo(kind="image"), home)


@pytest.mark.parametrize("latency", [False, True])
@pytest.mark.parametrize("count", [4, 30])
def test_a_stream_without_one_good_row_ends_in_a_report(home, count, latency):
    """Fewer inputs than end a run early, all of them bad: counted by reason, nothing raised."""
    dataset = texts({"m": [f"torn {row}" for row in range(count)]})
    report = run(dataset, Unreliable(), home, latency=latency)
    assert (report.ok, report.failed, report.complete) == (0, {"torn": count}, True)
    again = run(dataset, Unreliable(), home, latency=latency)
    assert (again.new, again.new_failed, again.failures) == (0, 0, count)


@pytest.mark.parametrize(
    ("reasons", "tried"), [(("slow",), "slow"), (("transient",), "slow"), (("torn",), "torn")]
)
def test_only_what_failed_for_a_reason_is_tried_again(home, small_shards, reasons, tried):
    """Other failures stay as they are, and no other input is encoded."""
    dataset = mixed()
    run(dataset, Unreliable(), home)
    (seen,) = plan(dataset, [Unreliable()], home=home, retry_failed=reasons)
    assert (seen.found.new, seen.found.failed) == (30, 30)
    repaired = Unreliable(down=False)
    report = run(dataset, repaired, home, retry_failed=reasons)
    assert {text.split()[0] for text in repaired.encoded} == {tried}
    assert (report.new, report.ok) == (30, 270)
    assert report.failed == {({"slow", "torn"} - {tried}).pop(): 30}
    kept = FeatureStore(home, dataset.name).failures(report.key)
    assert set(kept["reason"]) == {"slow", "torn"} - {tried}


def test_a_reason_that_nothing_failed_for_changes_nothing(home, small_shards):
    """No generation is made, and nothing is read again."""
    dataset, again = mixed(), Unreliable(down=False)
    before = run(dataset, Unreliable(), home)
    after = run(dataset, again, home, retry_failed=("timeout",))
    assert again.encoded == []
    assert (after.generation, after.failed, after.new) == (before.generation, before.failed, 0)


def test_appended_rows_and_failures_are_tried_in_one_run(home, small_shards):
    """A retry holds for a changed dataset too: its old failures and its new rows are encoded."""
    run(mixed(300), Unreliable(), home)
    longer, repaired = mixed(310), Unreliable(down=False)
    (seen,) = plan(longer, [repaired], home=home, retry_failed=True)
    report = run(longer, repaired, home, retry_failed=True)
    assert (seen.found.new, report.new, len(repaired.encoded)) == (70, 70, 70)
    assert report.failed == {}


def test_failures_of_a_run_that_ended_early_can_be_tried_again(home, small_shards):
    """What the journal holds of an unfinished shard is retried as well, and nothing else is."""
    dataset, first, second = mixed(), Unreliable(), Unreliable(down=False)
    with pytest.raises(MmfuseError, match="--max-bad"):
        run(dataset, first, home, max_bad=0.05)
    (seen,) = plan(dataset, [second], home=home)
    assert seen.found.failed >= 15
    report = run(dataset, second, home, retry_failed=("transient",))
    assert report.complete
    assert set(report.failed) == {"torn"}
    assert sorted(set(first.encoded) & set(second.encoded)) == []
    values = FeatureStore(home, dataset.name).whole(report.key)
    assert np.isfinite(values.values[values.present]).all()
    assert report.ok == int(values.present.sum()) == 300 - report.failed["torn"]
