"""The parts of extraction: batches by cost, encoding that survives, timings, estimates."""

import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_encoders import Centred, Echo, texts, vector_of

from cache.errors import MmfuseError
from cache.layout import Home
from cache.writing.journal import Failure
from pipelines.extract.engine.batches import (
    AllInputsFailedError,
    BatchBudget,
    BatchEncoder,
    MemoryLimits,
    bucketed_batches,
    default_budget,
)
from pipelines.extract.engine.timings import Timings
from pipelines.extract.estimate import estimate
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import plan

COSTS = st.lists(st.integers(1, 2000), max_size=300)


@given(COSTS, st.integers(1, 64), st.none() | st.integers(1, 20_000))
def test_every_sample_is_in_exactly_one_batch_and_no_batch_exceeds_its_budget(costs, rows, cost):
    """Batches are a partition; only a single sample may be dearer than the budget allows."""
    found = bucketed_batches(costs, BatchBudget(rows, cost))
    assert sorted(place for batch in found for place in batch) == list(range(len(costs)))
    most = cost or (max(1, round(rows * sum(costs) / len(costs))) if costs else 0)
    for batch in found:
        padded = len(batch) * max(costs[place] for place in batch)
        assert padded <= most or len(batch) == 1
        assert len(batch) <= (rows if len(set(costs)) == 1 else 4 * rows)


@given(COSTS, st.integers(1, 64))
def test_no_two_batches_overlap_in_cost(costs, rows):
    """Like goes with like: every sample of a batch is at least as dear as all that come later."""
    found = bucketed_batches(costs, BatchBudget(rows))
    for earlier, later in itertools.pairwise(found):
        assert min(costs[p] for p in earlier) >= max(costs[p] for p in later)


def test_equal_costs_are_batched_in_order():
    """Images, which all cost the same, are encoded as they come, `rows` at a time."""
    assert bucketed_batches([1] * 7, BatchBudget(3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_padding_is_cheaper_than_in_order_of_arrival():
    """On a log-normal mix, bucketed batches compute at least 1.3 times less."""
    costs = np.random.default_rng(0).lognormal(3.5, 0.9, 2048).astype(int) + 1
    bucketed = sum(
        len(b) * costs[b].max()
        for b in map(np.array, bucketed_batches(costs.tolist(), BatchBudget(32)))
    )
    arrival = sum(32 * part.max() for part in costs.reshape(-1, 32))
    assert arrival / bucketed > 1.3


def test_a_batch_suits_its_kind_and_device():
    """A few clips at a time on a CPU, minutes of sound on a GPU; the weight-free in bulk."""
    assert (
        default_budget("audio", "cpu", weights=True).rows
        < default_budget("audio", "cuda", weights=True).rows
    )
    clips = bucketed_batches(
        [160_000] * 100, default_budget("audio", "cpu", weights=True)
    )  # ten seconds each
    assert max(map(len, clips)) == 6
    assert default_budget("image", "cuda:1", weights=True) == BatchBudget(256)
    assert default_budget("text", "cpu", weights=False) == BatchBudget(256)


def batch_encoder(encoder, path=None):
    """A BatchEncoder of texts with memory limits stored at a path."""
    return BatchEncoder(encoder, "text", MemoryLimits(path), "key")


class Torch(Echo):
    """Runs out of memory as torch says it, with its own error type."""

    class OutOfMemoryError(RuntimeError):
        """What torch calls it."""

    def encode(self, kind, batch):
        """Three at a time."""
        if len(batch) > 3:
            raise self.OutOfMemoryError("no words that we know")
        return super().encode(kind, batch)


@pytest.mark.parametrize("encoder", [Echo(capacity=12), Torch()])
def test_memory_that_does_not_suffice_is_met_by_halving(encoder):
    """Results come in order, the retries are few, and later batches do not try again."""
    one, words = batch_encoder(encoder), ["abcd"] * 8 + ["efgh"] * 8
    found = one.encode(words, [4] * 16)
    np.testing.assert_array_equal(found, [vector_of(word) for word in words])
    assert one.retries <= 4
    before = one.retries
    one.encode(words, [4] * 16)
    assert one.retries == before


def test_what_fits_is_known_in_the_next_run(tmp_path):
    """The limit is a small JSON file; a damaged one is found out again."""
    path = tmp_path / "features" / "ceilings.json"
    batch_encoder(Echo(capacity=12), path).encode(["abcd"] * 16, [4] * 16)
    assert json.loads(path.read_text()) == {"key 4": 8}
    again = batch_encoder(Echo(capacity=12), path)
    again.encode(["abcd"] * 16, [4] * 16)
    assert again.retries == 0
    path.write_text("{")
    assert MemoryLimits(path).get("key", 4) is None


class Attentive(Echo):
    """Memory goes by the number of texts times the square of the longest."""

    def encode(self, kind, batch):
        """Out of memory above 2^16."""
        if len(batch) * max(map(len, batch)) ** 2 > 1 << 16:
            raise MemoryError
        return super().encode(kind, batch)


@pytest.mark.parametrize(("encoder", "known"), [(Echo(capacity=1 << 10), 5), (Attentive(), 1)])
def test_a_limit_holds_for_its_lengths(tmp_path, encoder, known):
    """Found for long texts, it neither hampers short ones nor is found once more for each length.

    Whether memory goes by padded cost or by the square of the length, all arrive, in at most
    log2(batch) failed tries for the longest and one for each shorter bucket; then in none.
    """
    path = tmp_path / "ceilings.json"
    chance = np.random.default_rng(0)
    lengths = chance.lognormal(4, 1, 2000).astype(int).clip(4, 250)
    texts_ = [f"{n:04}".ljust(length, "x") for n, length in enumerate(lengths)]
    costs = [len(text) for text in texts_]
    groups = bucketed_batches(costs, BatchBudget(64, 1 << 13))
    one = batch_encoder(encoder, path)
    for group in groups:
        found = one.encode([texts_[p] for p in group], [costs[p] for p in group])
        np.testing.assert_array_equal(found, [vector_of(texts_[p]) for p in group])
    buckets = {int(key.split()[1]) for key in json.loads(path.read_text())}
    assert len(buckets) == known
    assert 0 < one.retries <= np.log2(max(map(len, groups))) + len(buckets)
    again = batch_encoder(encoder, path)
    for group in groups:
        again.encode([texts_[p] for p in group], [costs[p] for p in group])
    assert again.retries == 0


def test_short_texts_are_not_held_to_the_limit_of_long_ones():
    """Where memory goes by the square of the length, half the length bears twice the cost."""
    encoder = Attentive()
    one = batch_encoder(encoder)
    one.encode(["x" * 256] * 32, [256] * 32)
    assert max(map(len, encoder.seen)) == 1
    encoder.seen.clear()
    one.encode(["x" * 64] * 64, [64] * 64)
    assert max(map(len, encoder.seen)) == 16
    assert one.retries == 5


def test_an_item_that_breaks_its_batch_is_found_and_the_others_are_kept():
    """One poisoned item of many costs itself, in few calls."""
    words = [f"w{n}" for n in range(64)]
    words[37] = "POISON"
    encoder = Echo()
    found = batch_encoder(encoder).encode(words, [1] * 64)
    assert found[37] == Failure("error", "ValueError: a poisoned batch")
    for place in set(range(64)) - {37}:
        np.testing.assert_array_equal(found[place], vector_of(words[place]))
    assert len(encoder.seen) <= 6


def test_what_the_user_must_mend_is_not_taken_for_a_bad_item():
    """A MmfuseError of the encoder ends the run with its own words."""

    class Missing(Echo):
        def encode(self, kind, batch):
            raise MmfuseError("weights are missing")

    with pytest.raises(MmfuseError, match="weights are missing"):
        batch_encoder(Missing()).encode(["a", "b"], [1, 1])


def test_an_encoder_that_never_succeeds_is_given_up_after_a_hundred():
    """Not every input of a million is tried, nor is the first one enough to give up."""
    one = batch_encoder(Echo())
    assert len(one.encode(["POISON"] * 99, [1] * 99)) == 99
    with pytest.raises(AllInputsFailedError, match=r"first 100 inputs of kind text.*poisoned"):
        one.encode(["POISON"] * 99, [1] * 99)


def test_no_leg_is_blamed_for_a_small_job():
    """Where neither inputs, encoder nor disk took a third of the time, something else did."""
    small = Timings(total=1.0, load=0.4, waited_inputs=0.05, encode=0.1, waited_writer=0.19)
    assert "start-up and bookkeeping took most" in small.bottleneck(0, 2)
    assert "disk" in Timings(total=1.0, load=0.4, waited_writer=0.21).bottleneck(0, 2)


@pytest.mark.parametrize(
    ("spent", "workers", "sentence"),
    [
        ({"encode": 8.0, "waited_inputs": 1.0}, 0, "encoding took 80% of the time"),
        ({"waited_writer": 6.0, "encode": 1.0}, 2, "waited 60% of the time for the disk"),
        ({"waited_inputs": 7.0, "prepare": 7.0}, 0, "preparing inputs took 70% of the time"),
        ({"waited_inputs": 7.0, "read": 9.0, "prepare": 2.0}, 2, "reading was the bottleneck (2 w"),
    ],
)
def test_the_bottleneck_is_the_leg_that_was_waited_for(spent, workers, sentence):
    """One sentence names the slowest step and its share."""
    assert sentence in Timings(total=10.0, **spent).bottleneck(workers, 2)


def test_more_workers_are_advised_only_where_there_are_cores_and_it_pays():
    """Advice names a number that the machine has, and spares who waited for seconds."""
    slow = Timings(total=100.0, waited_inputs=70.0, prepare=70.0)
    assert "try --workers 4" in slow.bottleneck(2, 16)
    assert "try --workers 15" in slow.bottleneck(0, 16)
    assert "try" not in slow.bottleneck(2, 2)
    assert "try" not in Timings(total=10.0, waited_inputs=7.0).bottleneck(2, 16)


@pytest.mark.usefixtures("sleeping_clock")
def test_an_estimate_comes_near_the_truth_and_stores_nothing(tmp_path):
    """Three timed batches tell the seconds of the whole within a factor of three."""
    home = Home(tmp_path / "artifacts")
    dataset = texts({"m": [f"text number {n}" for n in range(1000)]})
    options = ExtractOptions(workers=0, batch_rows=64)

    class Slow(Echo):
        def encode(self, kind, batch):
            time.sleep(0.002 * len(batch))
            return super().encode(kind, batch)

    (one,) = plan(dataset, [Slow()], home=home)
    guessed = estimate(one, home=home, options=options)
    assert not home.root.exists()
    (report,) = extract(dataset, [Slow()], home=home, options=options)
    assert guessed.seconds / 3 < report.seconds["total"] < 3 * guessed.seconds
    (one,) = plan(dataset, [Slow()], home=home)
    assert estimate(one, home=home).seconds == 0


def test_an_estimate_fits_what_must_be_fitted_without_keeping_it(tmp_path):
    """`--plan` of a fitted encoder leaves the home untouched too."""
    home = Home(tmp_path / "artifacts")
    (one,) = plan(texts({"m": ["a", "b", "c", "d", "e"]}), [Centred()], home=home)
    assert one.width is None
    assert estimate(one, home=home).seconds > 0
    assert not home.root.exists()


def test_workers_are_started_only_for_work_that_is_worth_them(tmp_path, monkeypatch):
    """Left to itself, extraction spawns for minutes of preparing and not for seconds."""
    from pipelines.extract import options

    dataset = texts({"m": [f"text number {n}" for n in range(50)]})
    (quick,) = extract(dataset, [Echo()], home=Home(tmp_path / "one"))
    assert quick.workers == 0
    monkeypatch.setattr(options, "MIN_SECONDS_FOR_WORKERS", 0.0)
    (long,) = extract(dataset, [Echo()], home=Home(tmp_path / "two"))
    assert long.workers >= 1
    assert long.ok == quick.ok == 50


def test_a_sample_that_ends_its_worker_is_a_failure_of_the_stream(tmp_path):
    """The run goes on without the sample, whose row records the failure."""
    cells = [f"text {n}" for n in range(40)]
    cells[11] = "EXITS"
    options = ExtractOptions(workers=1)
    (report,) = extract(texts({"m": cells}), [Echo()], home=Home(tmp_path), options=options)
    assert report.failed == {"worker-died": 1}
    assert report.ok == 39


class Timed(Echo):
    """A device whose time goes by padded cost, on a clock of its own."""

    clock = 0

    def encode(self, kind, batch):
        """Time passes."""
        Timed.clock += len(batch) * max(map(len, batch))
        return super().encode(kind, batch)


@pytest.mark.parametrize("rows", [500, 5000])
def test_the_time_foretold_does_not_drift_while_lengths_change(tmp_path, rows):
    """Within a window and over several, progress at any moment tells the time left to a tenth."""
    lengths = np.random.default_rng(0).lognormal(3.5, 0.9, rows).astype(int)
    dataset = texts({"m": [f"{n:05}".ljust(size, "x") for n, size in enumerate(lengths)]})
    seen = []

    def track(items, label, total):
        for done, item in enumerate(items, 1):
            if label == "small echo/m":
                seen.append((done, Timed.clock))
            yield item

    Timed.clock = 0
    options = ExtractOptions(workers=0, batch_rows=32)
    extract(dataset, [Timed()], home=Home(tmp_path), options=options, track=track)
    assert [done for done, _ in seen] == list(range(1, rows + 1))
    ends = {clock: done for done, clock in seen if done > 0.1 * rows}
    assert len(ends) > 10
    assert max(abs(clock / done * rows / Timed.clock - 1) for clock, done in ends.items()) < 0.1


@pytest.mark.usefixtures("sleeping_clock")
def test_an_estimate_reckons_with_buckets(tmp_path):
    """On a log-normal mix, where padding would double it, the estimate is within a third."""

    class Long(Echo):
        def encode(self, kind, batch):
            time.sleep(2e-5 * len(batch) * max(map(len, batch)))
            return super().encode(kind, batch)

    lengths = np.random.default_rng(0).lognormal(3.5, 0.9, 1000).astype(int)
    dataset = texts({"m": [f"{n:05}".ljust(size, "x") for n, size in enumerate(lengths)]})
    options = ExtractOptions(workers=0, batch_rows=32)
    (one,) = plan(dataset, [Long()], home=Home(tmp_path))
    guessed = estimate(one, home=Home(tmp_path), options=options)
    (report,) = extract(dataset, [Long()], home=Home(tmp_path), options=options)
    assert 0.67 < guessed.seconds / report.seconds["total"] < 1.5
