"""Extraction: every row where it belongs, every input once, nothing lost and nothing silent."""

import io
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from small_encoders import Centred, Echo, texts, vector_of

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import FAILED
from cache.layout import Home
from cache.maintenance.verify import verify
from cache.storage.objects import get_record
from pipelines.encoding.encoder import build_encoder
from pipelines.extract import estimate
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import plan, serving_encoders, unserved


def lengths(count, seed=0):
    """Texts of log-normal length, all different."""
    sizes = np.random.default_rng(seed).lognormal(3, 1, count).astype(int)
    return [f"{row}:{'x' * size}" for row, size in enumerate(sizes)]


def run(dataset, encoder, home, **options):
    """The one report of an extraction."""
    (report,) = extract(
        dataset, [encoder], home=home, options=ExtractOptions(**{"latency": False} | options)
    )
    return report


def stored(home, dataset, report):
    """What the store holds of a stream."""
    return FeatureStore(home, dataset.name).whole(report.key)


@pytest.mark.parametrize("workers", [0, 2, pytest.param(8, marks=pytest.mark.slow)])
def test_every_row_is_where_the_dataset_has_it(home, small_shards, workers):
    """Workers, windows and buckets change nothing of the order: row i is input i, in all shards."""
    cells = lengths(2000)
    cells[7] = cells[1500] = None
    dataset = texts({"m": cells})
    report = run(dataset, Echo(), home, workers=workers, batch_rows=8)
    found = stored(home, dataset, report)
    expected = [np.full(8, np.nan) if c is None else vector_of(c) for c in cells]
    np.testing.assert_array_equal(found.values, np.array(expected, np.float32))
    assert found.present.tolist() == [cell is not None for cell in cells]
    assert (report.rows, report.ok, report.absent, report.pending) == (2000, 1998, 2, 0)
    assert (report.new, report.reused, report.failed, report.workers) == (1998, 0, {}, workers)
    assert report.complete
    assert not report.interrupted


def test_each_distinct_input_is_encoded_once(home, small_shards):
    """N rows with U distinct inputs cost U encodings, over shards too, and yield N rows."""
    rng = np.random.default_rng(1)
    cells = [f"text {n}" for n in rng.integers(0, 300, 1500)]
    dataset, encoder = texts({"m": cells}), Echo()
    report = run(dataset, encoder, home)
    assert sorted(encoder.encoded) == sorted(set(cells))
    assert (report.new, report.ok, report.reused) == (len(set(cells)), 1500, 1500 - len(set(cells)))
    np.testing.assert_array_equal(
        stored(home, dataset, report).values, [vector_of(cell) for cell in cells]
    )


BAD = {
    10: ("UNREADABLE", "odd"),
    60: ("RAISES", "error"),
    61: (" ", "empty"),
    200: ("POISON", "error"),
    201: ("NAN", "non-finite"),
    410: ("HUGE", "overflow"),
}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_costs_exactly_its_own_cell(home, small_shards, workers):
    """Whatever goes wrong with a sample, it alone is not present, with its reason on record."""
    cells = lengths(500)
    good = texts({"m": cells}, name="good")
    expected = stored(home, good, run(good, Echo(storage="float16"), home)).values.copy()
    for row, (word, _) in BAD.items():
        cells[row] = word
    dataset = texts({"m": cells}, name="bad")
    report = run(dataset, Echo(storage="float16", version=2), home, workers=workers)
    found = stored(home, dataset, report)
    assert np.flatnonzero(found.state == FAILED).tolist() == sorted(BAD)
    expected[sorted(BAD)] = np.nan
    np.testing.assert_array_equal(found.values, expected)
    table = FeatureStore(home, "bad").failures(report.key)
    assert dict(zip(table["row"], table["reason"], strict=True)) == {
        row: reason for row, (_, reason) in BAD.items()
    }
    assert table.filter(table["reason"] == "odd")["transient"].to_list() == [True]
    assert "ValueError: RAISES" in table["detail"].to_list()
    assert report.failures == 6
    assert report.failed == {"error": 2, "odd": 1, "empty": 1, "non-finite": 1, "overflow": 1}
    assert (report.new, report.new_failed, report.complete) == (494, 6, True)


def test_strict_stops_at_the_first_bad_sample_and_keeps_what_was_done(home, small_shards):
    """The error names the sample and the reason; without strict the next run encodes the rest."""
    cells = [f"text {n}" for n in range(300)]
    cells[200] = "UNREADABLE"
    dataset, first = texts({"m": cells}), Echo()
    with pytest.raises(MmfuseError, match=r"m of sample s200 \(row 200\).*odd: UNREADABLE"):
        run(dataset, first, home, strict=True)
    second = Echo()
    report = run(dataset, second, home)
    assert sorted(first.encoded + second.encoded) == sorted({*cells} - {"UNREADABLE"})
    assert len(first.encoded) >= 128
    assert report.failed == {"odd": 1}


def test_strict_stops_at_a_vector_that_is_not_finite_too(home):
    """A NaN from the encoder is as bad as a bad file."""
    dataset = texts({"m": ["a", "b", "NAN", "d"]})
    with pytest.raises(MmfuseError, match=r"sample s2 .*non-finite"):
        run(dataset, Echo(), home, strict=True)


@pytest.mark.parametrize("word", ["UNREADABLE", "POISON"])
def test_a_hundred_failures_and_no_success_stop_the_run(home, word):
    """When everything fails, something else is wrong: said at once, and nothing is stored."""
    dataset = texts({"m": [f"{word} {n}" for n in range(3000)]})
    with pytest.raises(MmfuseError, match=r"first \d+ inputs.*(odd|poisoned batch)"):
        run(dataset, Echo(), home)
    repaired = [f"{word} {n}".replace(word, word.lower()) for n in range(3000)]
    assert plan(dataset, [Echo()], home=home)[0].found.new == 3000
    assert run(texts({"m": repaired}), Echo(), home).ok == 3000


def test_many_failures_beside_one_success_do_not(home):
    """A dataset may be mostly broken; one readable sample shows that the encoder is not."""
    cells = [f"UNREADABLE {n}" for n in range(400)]
    cells[399] = "fine"
    report = run(texts({"m": cells}), Echo(), home)
    assert (report.ok, report.failed) == (1, {"odd": 399})


def test_an_encoder_that_gives_too_few_vectors_is_refused(home):
    """A contract broken by the encoder is an error that names it, not shifted rows."""

    class Short(Echo):
        def encode(self, kind, batch):
            return super().encode(kind, batch)[1:]

    with pytest.raises(MmfuseError, match="echo gave 3 vectors for 4 inputs"):
        run(texts({"m": ["a", "b", "c", "d"]}), Short(), home)


def test_too_little_memory_halves_the_batch_and_is_remembered(home):
    """All rows arrive after at most log2(batch) failed tries, and the next run has none."""
    tries = []

    class Counting(Echo):
        def encode(self, kind, batch):
            tries.append(len(batch))
            return super().encode(kind, batch)

    cells = [f"text number {n:04}" for n in range(256)]  # 16 characters each
    dataset, encoder = texts({"m": cells}), Counting(capacity=16 * 10)
    report = run(dataset, encoder, home, batch_rows=64)
    assert report.ok == 256
    assert len(tries) - len(encoder.seen) <= 6
    assert max(map(len, encoder.seen)) == 8
    np.testing.assert_array_equal(
        stored(home, dataset, report).values, [vector_of(cell) for cell in cells]
    )
    tries.clear()
    again = Counting(capacity=16 * 10)
    run(texts({"m": [cell.upper() for cell in cells]}, name="other"), again, home, batch_rows=64)
    assert len(tries) == len(again.seen)


def test_one_sample_that_does_not_fit_at_all_costs_its_own_cell(home):
    """A sample too large for the device is failed as such, and may be tried again elsewhere."""
    dataset = texts({"m": ["a", "b" * 500, "c", "d"]})
    report = run(dataset, Echo(capacity=100), home)
    table = FeatureStore(home, "small").failures(report.key)
    assert table.select("row", "reason", "transient").rows() == [(1, "out-of-memory", True)]


def test_ctrl_c_finishes_the_batch_keeps_it_and_the_next_run_goes_on(home, small_shards):
    """Interrupted in the middle of a shard, no batch is lost and none is encoded twice."""
    cells = lengths(1000)
    dataset, first, second = texts({"m": cells}), Echo(interrupt_at=7), Echo()
    before = signal.getsignal(signal.SIGINT)
    report = run(dataset, first, home, batch_rows=8)
    assert report.interrupted
    assert not report.complete
    assert len(first.seen) == 7
    assert (report.new, report.ok, report.pending) == (len(first.encoded),) * 2 + (
        1000 - len(first.encoded),
    )
    assert signal.getsignal(signal.SIGINT) is before
    resumed = run(dataset, second, home, batch_rows=8)
    assert resumed.complete
    assert sorted(first.encoded + second.encoded) == sorted(cells)


def test_ctrl_c_in_one_stream_does_not_begin_the_next(home):
    """The reports end with the interrupted stream."""
    dataset = texts({"one": lengths(600), "two": lengths(600, 1)})
    reports = extract(dataset, [Echo(interrupt_at=1)], home=home)
    assert [(r.key.modality, r.interrupted) for r in reports] == [("one", True)]


def test_a_second_ctrl_c_does_not_wait_for_the_batch(home):
    """Pressed twice, the current batch is dropped; rows finished before it are kept."""

    class Impatient(Echo):
        def encode(self, kind, batch):
            found = super().encode(kind, batch)
            if len(self.seen) == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return found

    dataset, first, second = texts({"m": lengths(1000)}), Impatient(), Echo()
    report = run(dataset, first, home, batch_rows=8)
    assert report.interrupted
    kept = [text for batch in first.seen[:2] for text in batch]
    assert report.ok == len(kept)
    run(dataset, second, home, batch_rows=8)
    assert sorted(kept + second.encoded) == sorted(dataset.table["m"])


def test_a_resumed_shard_sees_the_batches_it_would_have_seen(home, tmp_path, small_shards):
    """Vectors that depend on their batch are bit-identical after Ctrl-C in the middle of one."""
    dataset = texts({"m": lengths(1000)})
    whole = run(dataset, Echo(company=True), Home(tmp_path / "whole"), batch_rows=8)
    expected = stored(Home(tmp_path / "whole"), dataset, whole).values
    report, runs = None, 0
    while report is None or not report.complete:
        encoder = Echo(company=True, interrupt_at=5 + runs)
        report, runs = run(dataset, encoder, home, batch_rows=8), runs + 1
    assert runs > 5
    np.testing.assert_array_equal(stored(home, dataset, report).values, expected)


def test_a_limit_encodes_so_many_and_the_next_run_goes_on(home, small_shards):
    """With limit k, k distinct inputs are encoded; the stream stays incomplete and is resumed."""
    dataset, first, second = texts({"m": lengths(400)}), Echo(), Echo()
    report = run(dataset, first, home, limit=150)
    assert len(first.encoded) == report.new == 150
    assert not report.complete
    assert report.pending == 250
    again = run(dataset, second, home)
    assert again.complete
    assert sorted(first.encoded + second.encoded) == sorted(dataset.table["m"])


def test_failures_are_tried_again_only_when_asked(home):
    """A failed sample stays failed over runs; `retry_failed` encodes it alone, once more."""
    cells = [f"text {n}" for n in range(50)]
    cells[20] = "POISON"
    dataset = texts({"m": cells})
    assert run(dataset, Echo(), home).failed == {"error": 1}
    idle = run(dataset, Echo(), home)
    assert (idle.new, idle.new_failed, idle.failed) == (0, 0, {"error": 1})

    class Repaired(Echo):
        def encode(self, kind, batch):
            self.seen.append(list(batch))
            return [vector_of(text) for text in batch]

    encoder = Repaired()
    report = run(dataset, encoder, home, retry_failed=True)
    assert encoder.encoded == ["POISON"]
    assert (report.ok, report.failed, report.new, report.reused) == (50, {}, 1, 49)
    np.testing.assert_array_equal(
        stored(home, dataset, report).values, [vector_of(cell) for cell in cells]
    )


def test_edited_appended_and_reordered_rows_cost_what_is_new_of_them(home):
    """Ten edits cost ten encodings, an append its rows, a new order none at all."""
    cells = lengths(300)
    run(texts({"m": cells}), Echo(), home)
    for row in range(0, 100, 10):
        cells[row] = f"edited {row}"
    for change in (cells, [*cells, "new one", "new two"], list(reversed(cells))):
        encoder = Echo()
        planned = plan(texts({"m": change}), [encoder], home=home)[0].found
        report = run(texts({"m": change}), encoder, home)
        expected = {len(cells): 10, len(cells) + 2: 2}[len(change)] if change[-1] != cells[0] else 0
        assert len(encoder.encoded) == report.new == planned.new == expected
        found = stored(home, texts({"m": change}), report).values
        np.testing.assert_array_equal(found, [vector_of(cell) for cell in change])


def test_inputs_that_another_dataset_has_are_not_encoded_again(home):
    """Two datasets of one home share vectors of equal inputs under one fingerprint."""
    run(texts({"m": lengths(200)}, name="one"), Echo(), home)
    encoder = Echo()
    other = texts({"words": [*lengths(200)[50:], "new"]}, name="two")
    report = run(other, encoder, home)
    assert encoder.encoded == ["new"]
    assert (report.new, report.reused, report.ok) == (1, 150, 151)
    changed = Echo(version=2)
    assert run(other, changed, home).new == 151


def test_two_modalities_of_one_kind_are_two_streams(home):
    """A name tells streams apart, not a kind; equal inputs of both are still encoded once."""
    encoder = Echo()
    dataset = texts({"title": ["a", "b", "c", "d"], "plot": ["a", "x", None, "z"]})
    title, plot = extract(dataset, [encoder], home=home, options=ExtractOptions(latency=False))
    assert [title.key.name, plot.key.name] == ["echo/title", "echo/plot"]
    assert (title.new, plot.new, plot.reused, plot.absent) == (4, 2, 1, 1)
    assert len(encoder.encoded) == 6


def test_a_modality_nobody_serves_is_named_with_who_would_serve_it(home):
    """What is skipped is said in every report; with nothing left to do it is an error."""
    dataset = texts({"m": ["a", "b", "c", "d"]}, kind="audio")
    assert "mfcc" in unserved(dataset, [Echo()])["m"]
    with pytest.raises(MmfuseError, match=r"echo serves no modality.*m \(audio\).*mfcc"):
        extract(dataset, [Echo()], home=home)
    assert run(texts({"m": ["a", "b", "c", "d"]}), Echo(), home).skipped == {}


def test_an_encoder_that_serves_nothing_is_an_error_beside_one_that_does(home):
    """Of a group, it is enough that one dataset can use it; that one gets it alone."""
    words = texts({"m": ["a", "b", "c", "d"]})
    sounds = texts({"n": ["a", "b", "c", "d"]}, name="sounds", kind="audio")
    both = [Echo(), build_encoder("mfcc")]
    with pytest.raises(MmfuseError, match=r"mfcc serves no modality of .*: it encodes audio; m \("):
        plan(words, both, home=home)
    assert serving_encoders([words, sounds], both) == {words.name: both[:1], "sounds": both[1:]}


def test_a_fitted_encoder_learns_from_training_rows_alone_and_once(home):
    """Its state is kept beside the stream: a resumed run restores it, another split refits."""
    cells = lengths(100)
    dataset, first = texts({"m": cells}), Centred(interrupt_at=2)
    assert run(dataset, first, home, batch_rows=8).interrupted
    second = Centred()
    report = run(dataset, second, home, batch_rows=8)
    assert (first.fits, second.fits) == (1, 0)
    mean = np.mean([vector_of(cell) for cell in cells[:60]], axis=0)
    expected = [vector_of(cell) - mean.astype(np.float32) for cell in cells]
    np.testing.assert_allclose(stored(home, dataset, report).values, expected, atol=1e-7)
    again = Centred()
    other = run(texts({"m": cells}, train=0.5), again, home)
    assert again.fits == 1
    assert other.key.fingerprint != report.key.fingerprint
    assert other.new == 100
    reordered = texts({"m": [*reversed(cells[:60]), *cells[60:]]})
    assert run(reordered, Centred(), home).key == report.key


def test_one_encoder_object_may_serve_several_datasets_in_turn(home):
    """What it learned of the first dataset does not leak into the second."""
    encoder = Centred()
    cells, others = lengths(50), lengths(50, seed=3)[::-1]
    run(texts({"m": cells}, name="one"), encoder, home)
    used = run(texts({"m": others}, name="two"), encoder, home)
    fresh = run(texts({"m": others}, name="two"), Centred(), Home(home.root / "fresh"))
    np.testing.assert_array_equal(
        FeatureStore(home, "two").whole(used.key).values,
        FeatureStore(Home(home.root / "fresh"), "two").whole(fresh.key).values,
    )


def test_sequences_keep_each_rows_own_length(home, small_shards):
    """(T_i, D) of a row come back under its own number, with workers and buckets at work."""
    cells = [f"{n}:{'y' * (n % 7)}" for n in range(300)]
    dataset = texts({"m": cells})
    report = run(dataset, Echo(sequence=True), home, batch_rows=8)
    found = stored(home, dataset, report)
    for row, cell in enumerate(cells):
        own = found.values[found.offsets[row] : found.offsets[row + 1]]
        np.testing.assert_array_equal(own, [vector_of(cell)] * len(cell))


def test_a_file_that_changes_while_the_run_goes_on_is_not_stored_as_what_it_was(home, tmp_path):
    """The bytes that are decoded are those that were planned, or the row fails for now."""
    from pipelines.extract import plan as planning

    root = tmp_path / "data"
    root.mkdir()
    names = [f"{n}.png" for n in range(4)]
    for name in names:
        (root / name).write_bytes(b"before")
    dataset = texts({"m": names}, kind="image", root=root)
    plans = planning.plan(dataset, [Echo(kind="image")], home=home)
    (root / "2.png").write_bytes(b"after!")
    found = estimate.probe_samples(plans[0])
    assert [f.failure.reason for f in found][2] == "changed"
    assert found[2].failure.transient


def paint(path, shade):
    """A small grey image, of one size in bytes, with an old modification time."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "BMP")
    path.write_bytes(buffer.getvalue())  # in place: the inode stays
    os.utime(path, (1e9, 1e9))


def test_renamed_and_touched_files_cost_nothing_and_edited_ones_their_own(home, tmp_path):
    """A row is its bytes: only new ones are encoded; `rehash` finds what hides from the clock."""
    for shade in range(10):
        paint(tmp_path / f"{shade}.bmp", shade)

    def new(**options):
        names = sorted(path.name for path in tmp_path.glob("*.bmp"))
        dataset = texts({"m": names}, kind="image", root=tmp_path)
        return run(dataset, build_encoder("pixels"), home, **options).new

    assert new() == 10
    (tmp_path / "0.bmp").rename(tmp_path / "zero.bmp")
    os.utime(tmp_path / "1.bmp", (2e9, 2e9))
    assert new() == 0
    paint(tmp_path / "2.bmp", 200)
    os.utime(tmp_path / "2.bmp", (1e9, 1e9 + 1))
    assert new() == 1
    paint(tmp_path / "3.bmp", 201)  # same path, size, time and inode
    assert new() == 0
    assert new(rehash=True) == 1


def test_extraction_works_outside_the_main_thread(home):
    """Where no Ctrl-C can arrive, none is waited for."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, texts({"m": lengths(50)}), Echo(), home).result().ok == 50


def test_a_plan_tells_what_extraction_then_does_and_writes_nothing(home):
    """Rows, distinct new inputs, known ones and bytes; the home stays as it was."""
    cells = [*lengths(100), "twice", "twice", None]
    dataset = texts({"m": cells})
    (made,) = plan(dataset, [Echo()], home=home)
    assert not home.root.exists()
    assert (made.rows, made.absent, made.width, made.download) == (103, 1, 8, None)
    assert (made.found.new, made.found.known, made.found.complete) == (101, 0, False)
    assert made.disk == 103 * (8 * 4 + 18)
    report = run(dataset, Echo(), home)
    assert report.new == made.found.new
    assert report.key == made.key
    (after,) = plan(dataset, [Echo()], home=home)
    assert after.found.complete
    assert (after.found.new, after.disk) == (0, 0)


def test_the_same_encoder_named_twice_is_one_stream(home):
    """Repeating a word on the command line does no work twice."""
    assert len(plan(texts({"m": ["a", "b", "c", "d"]}), [Echo(), Echo()], home=home)) == 1


def test_a_report_is_json_names_the_bottleneck_and_is_kept(home):
    """Every figure of the last run that encoded is beside the stream; damage to it is found."""
    report = run(texts({"m": lengths(200)}), Echo(delay=0.2), home, batch_rows=100)
    record = json.loads(json.dumps(report.record()))
    assert record["key"].startswith("echo-")
    assert set(record["seconds"]) == {"load", "read", "prepare", "encode", "write", "total"}
    assert "encoding took" in record["bottleneck"]
    assert record["seconds"]["encode"] <= record["seconds"]["total"]
    path = FeatureStore(home, "small").paths.stream(report.key.label).report
    kept = get_record(path)
    assert {name: kept[name] for name in record if name != "path"} == {
        name: value for name, value in record.items() if name != "path"
    }
    assert str(home.root) not in path.read_text()
    idle = run(texts({"m": lengths(200)}), Echo(), home)
    assert get_record(path) == kept
    path.write_bytes(path.read_bytes().replace(b'"new":200', b'"new":201'))
    (damage,) = verify(home).damages
    assert (damage.what, damage.path) == ("report", path)
    assert (idle.bottleneck, idle.reused, idle.new) == ("nothing was left to encode", 200, 0)


def test_progress_counts_every_input_once(home):
    """`track` sees as many items as there are inputs to encode, failures included.

    Of other steps too it sees as many as were announced.
    """
    seen = {}

    def track(items, label, total):
        items = list(items)
        seen[label] = (len(items), total)
        return items

    dataset = texts({"m": [*lengths(300), "UNREADABLE", None]})
    extract(dataset, [Echo()], home=home, track=track)
    assert seen["small echo/m"] == (301, 301)
    assert {label for label, (count, total) in seen.items() if total not in (None, count)} == set()
