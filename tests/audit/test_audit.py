"""The audit: it finds the leaks that were planted, and is silent where there are none."""

import csv
import dataclasses
import hashlib

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import pairwise_distances

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamKey, StreamSpec
from cache.layout import Home
from cache.samples import Modality, Samples, Task
from pipelines.audit import audit, feature_checks, label_checks
from pipelines.audit.finding import StreamArrays
from pipelines.data.dataset import Dataset
from pipelines.datasets import digits, mug
from pipelines.encoders import hashing, pixels
from pipelines.media import cells as reading

COUNT = 600


def rows(targets, splits=None, groups=None, task=None):
    """Samples with these targets; two thirds train, the rest halved."""
    count = len(targets)
    if splits is None:
        splits = ["train", "train", "val", "train", "train", "test"] * (count // 6)
    names = tuple(f"class {c}" for c in range(int(np.max(targets)) + 1))
    return Samples(
        ids=np.array([f"r{row}" for row in range(count)], object),
        splits=np.array(splits, object),
        targets=np.asarray(targets),
        groups=None if groups is None else np.array(groups, object),
        task=task or Task("classes", names),
        modalities=(Modality("image", "image"),),
        source="synthetic",
    )


@pytest.fixture
def numbers():
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def labels(numbers):
    """(N,) three classes."""
    return numbers.integers(0, 3, COUNT)


def whole(values):
    """A stream that every row has."""
    return StreamArrays(np.asarray(values, np.float32), np.ones(len(values), bool))


def one(found, check, about=None):
    """The finding of one check."""
    (finding,) = (f for f in found if f.check == check and about in (None, f.about))
    return finding


def encoded(dataset, name, encoder):
    """A modality's features by a weight-free encoder."""
    kind = {m.name: m.kind for m in dataset.modalities}[name]
    cells = dataset.table[name].to_list()
    payloads = [reading.read(kind, cell, dataset.root) for cell in cells]
    prepared = [encoder.prepare(kind, payload)[0] for payload in payloads]
    return whole(np.stack(encoder.encode(kind, prepared)))


def test_nothing_is_found_where_nothing_is(numbers, labels):
    """Signal, noise and holes at random: every verdict is clear."""
    signal = numbers.standard_normal((COUNT, 40)) + 2 * np.eye(3, 40)[labels]
    present = numbers.random(COUNT) > 0.2
    signal[~present] = np.nan
    samples = rows(labels, groups=[f"g{row}" for row in range(COUNT)])
    found = audit.findings(samples, {"x/image": StreamArrays(signal, present)})
    assert {finding.verdict for finding in found} == {"clear"}
    assert {finding.check for finding in found} == {"groups", "absence", "near-duplicates", "probe"}


def test_twins_across_splits_are_found_and_named(numbers, labels):
    """Copies of train rows with a little noise, among the held-out: all of them, with their ids."""
    values = 5 + numbers.standard_normal((COUNT, 64))  # a large common part does not disturb
    values[[2, 8, 14]] = values[[0, 1, 3]] + 0.01 * numbers.standard_normal((3, 64))
    finding = feature_checks.near_duplicates("x", whole(values), rows(labels))
    assert finding.numbers["count"] == 3
    assert set(finding.rows) == {("r2", "r0"), ("r8", "r1"), ("r14", "r3")}
    assert finding.verdict == "suspect"


def test_nearness_in_few_dimensions_is_not_taken_for_twins(numbers, labels):
    """A few numbers a row are often close by chance; only equal rows count there."""
    for width in (1, 2, 3):
        values = numbers.standard_normal((COUNT, width))
        assert (
            feature_checks.near_duplicates("x", whole(values), rows(labels)).numbers["count"] == 0
        )
    values = numbers.standard_normal((COUNT, 3)).repeat(30, axis=1)
    values[2] = values[0]
    finding = feature_checks.near_duplicates("x", whole(values), rows(labels))
    assert ("r2", "r0") in finding.rows


def test_equal_rows_of_a_coarse_table_are_no_leak(numbers, labels):
    """Ages in years are equal everywhere; that says nothing of the split, and it is said so."""
    ages = numbers.integers(20, 60, (COUNT, 1))
    finding = feature_checks.near_duplicates("x", whole(ages), rows(labels))
    assert (finding.verdict, finding.rows) == ("not checked", ())


def test_the_nearest_by_blocks_is_the_nearest(numbers, monkeypatch):
    """Blocks of cosines give what one full matrix gives."""
    monkeypatch.setattr(feature_checks, "BLOCK", 7)
    left, right = (
        feature_checks._unit(numbers.standard_normal((count, 12)).astype(np.float32))
        for count in (23, 40)
    )
    best, twin = feature_checks._nearest(left, right)
    cosine = 1 - pairwise_distances(left, right, metric="cosine")
    assert np.array_equal(twin, cosine.argmax(axis=1))
    assert np.allclose(best, cosine.max(axis=1), atol=1e-5)


def test_groups_on_both_sides_are_counted(labels):
    """A group with rows in train and in test is a leak; whole groups are none."""
    torn = audit.findings(rows(labels, groups=[f"g{row // 6}" for row in range(COUNT)]), {})
    assert one(torn, "groups").verdict == "leak"
    assert one(torn, "groups").numbers == {"groups": 100, "rows": 200, "share": 1.0}
    splits = (["train"] * 12 + ["val"] * 6 + ["test"] * 6) * (COUNT // 24)
    groups = [f"g{row // 6}" for row in range(COUNT)]
    assert one(audit.findings(rows(labels, splits, groups), {}), "groups").verdict == "clear"
    none = one(audit.findings(rows(labels), {}), "groups")
    assert (none.verdict, "has no groups" in none.sentence) == ("not checked", True)


def test_texts_that_say_their_class_are_found(labels):
    """As whole words, in any case and joined in any way; not as part of another word."""
    texts = [f"so this is CLASS_{label}, I think" for label in labels]
    samples = rows(labels, task=Task("classes", ("cat", "sea dog", "birdOfPrey")))
    said = [("The Cat!", "a sea-dog", "Bird of prey")[label] for label in labels]
    part = [("category", "sea dogma", "bird of preying")[label] for label in labels]
    none = [None] * COUNT
    for cells, verdict in ((said, "leak"), (part, "clear"), (none, "clear"), (texts, "clear")):
        found = audit.findings(samples, {}, texts={"plot": cells})
        assert one(found, "label-words").verdict == verdict


def test_vectors_in_the_wrong_slot_are_found(numbers, labels):
    """V18: text features written as those of pictures; what is absent need not be equal."""
    text, image = numbers.normal(size=(2, COUNT, 24))
    there = numbers.random(COUNT) < 0.9
    right = {
        "a/text": StreamArrays(text, there),
        "b/image": StreamArrays(image, there),
        "c/audio": whole(text),
    }
    found = one(audit.findings(rows(labels), right), "same-vectors")
    assert (found.verdict, found.rows) == ("clear", ())
    again = np.where(there[:, None], text, np.nan)
    wrong = {**right, "b/image": StreamArrays(again, there)}
    found = one(audit.findings(rows(labels), wrong), "same-vectors")
    assert (found.verdict, found.rows) == ("suspect", (("a/text", "b/image"),))
    assert found.sentence == "a/text and b/image hold the same vectors"


def test_names_that_lie_are_no_leak(numbers, labels):
    """Where the class a text names is the right one no more often than chance, it is clear."""
    names = np.array(["cat", "dog", "bird"])
    samples = rows(labels, task=Task("classes", tuple(names)))
    texts = list(names[(labels + 1 + numbers.integers(0, 2, COUNT)) % 3])
    assert one(audit.findings(samples, {}, texts={"t": texts}), "label-words").verdict == "clear"


@pytest.mark.parametrize("kind", ["classes", "labels", "value"])
def test_absence_that_goes_with_the_target_is_found(numbers, labels, kind):
    """Rows of one class (label, upper half) lack the modality more often."""
    value = numbers.standard_normal(COUNT)
    likely = np.where((labels == 0) if kind != "value" else value > 0, 0.6, 0.2)
    present = numbers.random(COUNT) > likely
    match kind:
        case "classes":
            samples = rows(labels)
        case "labels":
            both = np.stack([labels == 0, numbers.random(COUNT) < 0.5], 1).astype(np.float32)
            samples = rows(both, task=Task("labels", ("a", "b")))
        case _:
            samples = rows(value, task=Task("value", ("score",)))
    values = np.where(present[:, None], numbers.standard_normal((COUNT, 20)), np.nan)
    streams = {"x/image": StreamArrays(values, present)}
    finding = one(audit.findings(samples, streams), "absence")
    assert (finding.about, finding.verdict) == ("image", "suspect")
    assert finding.numbers["p"] < 1e-6
    assert finding.numbers["effect"] > 0.2


def test_absence_at_random_rarely_alarms(numbers, labels):
    """Of 200 modalities with holes at random, tested together, none is accused."""
    samples = rows(labels)
    for _ in range(200):
        present = numbers.random(COUNT) > 0.3
        assert label_checks.informative_absence("x", present, samples, tests=200).verdict == "clear"


def test_features_that_saw_their_train_labels_are_found(numbers, labels):
    """Labels written into train rows alone: those predict one another, not the held-out."""
    values = numbers.standard_normal((COUNT, 40))
    samples = rows(labels)
    train = samples.splits == "train"
    values[train] += 3 * np.eye(3, 40)[labels[train]]
    finding = feature_checks.label_aware_features("x", whole(values), samples)
    assert finding.verdict == "leak"
    assert finding.numbers["train"] > 0.9
    assert finding.numbers["held out"] < 0.5


def test_speakers_known_from_train_do_not_look_like_a_leak(numbers):
    """With groups whole in the folds, new groups inside train are as hard as those outside."""
    speaker = np.arange(COUNT) // 25
    labels = speaker % 2  # a speaker always says the same: features tell who it is
    values = numbers.standard_normal((24, 30))[speaker] + 0.1 * numbers.standard_normal((COUNT, 30))
    splits = np.where(speaker < 16, "train", np.where(speaker < 20, "val", "test"))
    named = feature_checks.label_aware_features(
        "x", whole(values), rows(labels, splits, [f"s{s}" for s in speaker])
    )
    unnamed = feature_checks.label_aware_features("x", whole(values), rows(labels, splits))
    assert named.verdict == "clear"
    assert unnamed.verdict == "leak"


@pytest.mark.parametrize("kind", ["classes", "labels", "value"])
def test_a_column_that_is_the_target_in_other_words_is_suspect(numbers, labels, kind):
    """Of a table that is said; of other streams, which may be that good, and of noise, not."""
    value = numbers.standard_normal(COUNT)
    both = np.stack([labels == 0, numbers.random(COUNT) < 0.5], 1).astype(np.float32)
    targets, task, known = {
        "classes": (labels, None, np.eye(3)[labels]),
        "labels": (both, Task("labels", ("a", "b")), both),
        "value": (value, Task("value", ("score",)), np.stack([3 * value - 1, value > 0], 1)),
    }[kind]
    samples = rows(targets, task=task) if task else rows(targets)
    noise = numbers.standard_normal((COUNT, 5))
    table = np.concatenate([known, noise], axis=1)
    streams = {"t/record": whole(table), "p/image": whole(table), "t/other": whole(noise)}
    found = audit.findings(samples, streams, tables=("t/record", "t/other"))
    told = {name: one(found, "probe", name) for name in streams}
    assert {name: finding.verdict for name, finding in told.items()} == {
        "t/record": "suspect", "p/image": "clear", "t/other": "clear",
    }  # fmt: skip
    assert "target in another form" in told["t/record"].sentence


def test_a_frequent_class_makes_no_table_suspect(numbers):
    """99 of 100 rows of one class: knowing that alone is right as often, and is no column."""
    labels = (np.arange(COUNT) % 100 == 0).astype(int)
    values = numbers.standard_normal((COUNT, 4))
    assert (
        feature_checks.label_aware_features("x", whole(values), rows(labels), table=True).verdict
        == "clear"
    )


def test_what_could_not_be_checked_is_told_before_what_is_clear(numbers, labels):
    """Twenty rows are too few for a probe: that is not the same as nothing found."""
    few = [*range(24)]
    samples = rows(labels[few], groups=[f"g{row}" for row in few])
    found = audit.findings(samples, {"x/image": whole(numbers.standard_normal((24, 40)))})
    assert one(found, "probe").verdict == "not checked"
    order = [finding.verdict for finding in found]
    assert order.index("not checked") < order.index("clear")


def test_the_built_in_digits_are_clean():
    """Nothing is a leak; the one suspicion is that phrases may say their number, as they should."""
    dataset = digits.build()
    texts = {"text": dataset.table["text"].to_list()}
    present = {name: ~dataset.table[name].is_null().to_numpy() for name in ("image", "audio")}
    blank = {f"x/{name}": StreamArrays(np.zeros((1797, 4)), here) for name, here in present.items()}
    found = audit.findings(dataset.samples(), blank, texts=texts)
    assert {f.check for f in found if f.verdict in ("leak", "suspect")} == {"label-words"}
    assert {f.about for f in found if f.check == "absence"} == {"image", "audio"}


def test_the_leak_of_mosi_is_found(pack):
    """Text and video vectors saw their train labels, audio did not: as the pack's README says."""
    features = np.load(pack("mosi_features") / "features.npz")
    with (pack("mosi_features") / "utterances.csv").open(encoding="utf-8") as file:
        videos = [row["video_id"] for row in csv.DictReader(file)]
    splits = ["val" if split == "dev" else str(split) for split in features["split"]]
    samples = rows(features["label"], splits, videos)
    streams = {name: whole(features[name]) for name in ("text", "audio", "video")}
    found = audit.findings(samples, streams)
    assert {name: one(found, "probe", name).verdict for name in streams} == {
        "text": "leak", "audio": "clear", "video": "leak",
    }  # fmt: skip
    assert one(found, "probe", "video").numbers["held out"] < 0.6
    assert one(found, "groups").verdict == "clear"
    assert found[0].verdict == "leak"


def test_families_in_the_random_split_of_monsters_are_found(pack):
    """MuG's own kind of split tears families apart; the family-disjoint one does not."""
    verdicts = {}
    for split in (None, "group_split"):
        (dataset,) = mug.build(pack("monsters"), task="Monster-holiness", split=split)
        streams = {
            "pixels/image": encoded(dataset, "image", pixels.build()),
            "hashing/text": encoded(dataset, "text", hashing.build()),
        }
        texts = {"text": dataset.table["text"].to_list()}
        found = audit.findings(dataset.samples(), streams, texts=texts)
        verdicts[split] = one(found, "groups").verdict
        assert one(found, "label-words").numbers["trust"] > 0.7
    assert verdicts == {None: "leak", "group_split": "clear"}


def stored(store, name, values, samples, *, sequence=False):
    """Fill one stream of a store with vectors or sequences; None is absent."""
    fingerprint = hashlib.blake2b(name.encode(), digest_size=32).hexdigest()
    key = StreamKey(name.split("/")[0], fingerprint, name.split("/")[1])
    width = next(v.shape[-1] for v in values if v is not None)
    spec = StreamSpec("image", width, "float32", sequence, {"n": name}, {"weights": "weight-free"})
    absent = np.array([value is None for value in values])
    inputs = np.frombuffer(
        b"".join(hashlib.blake2b(f"{row}".encode(), digest_size=16).digest()
                 for row in range(len(values))), np.uint8,
    ).reshape(-1, 16)  # fmt: skip
    writer = store.writer(key, spec=spec, samples=samples, inputs=inputs, absent=absent)
    for shard in writer.shards:
        with writer.claim(shard) as claim:
            claim.put(claim.todo, [values[row] for row in claim.todo])
            claim.commit()
    writer.finish()


def test_cached_streams_are_audited_sequences_and_texts_too(tmp_path, numbers, labels):
    """From a store: pooled and sequence streams, absent rows, and the raw texts beside them."""
    names = np.array(["cat", "dog", "bird"])
    samples = rows(labels, task=Task("classes", tuple(names)))
    train = samples.splits == "train"
    told = numbers.standard_normal((COUNT, 30)) + 3 * np.eye(3, 30)[labels] * train[:, None]
    told = told.astype(np.float32)
    store = FeatureStore(Home(tmp_path), "planted")
    frames = [np.stack([row - 1, row + 1, row][: 1 + 2 * (n % 2)]) for n, row in enumerate(told)]
    frames = [part - part.mean(axis=0) + row for part, row in zip(frames, told, strict=True)]
    frames[5] = None
    stored(store, "toy/image", list(told), samples)
    stored(store, "toy/video", frames, samples, sequence=True)
    table = pl.DataFrame(
        {
            "id": list(samples.ids), "split": list(samples.splits), "target": labels,
            "text": [f"it is a {names[label]}" for label in labels],
        }
    )  # fmt: skip
    dataset = Dataset("planted", table, (Modality("text", "text"),), samples.task)
    found = audit.audit(store, dataset=dataset)
    assert one(found, "label-words", "text").verdict == "leak"
    pooled, sequence = one(found, "probe", "toy/image"), one(found, "probe", "toy/video")
    assert (pooled.verdict, sequence.verdict) == ("leak", "leak")
    assert pooled.numbers["train"] == pytest.approx(sequence.numbers["train"], abs=0.02)
    assert "1 rows lack it" in one(found, "absence", "video").sentence
    assert {f.about for f in audit.audit(store, ["toy/image"])} == {"", "toy/image"}
    other = dataclasses.replace(dataset, table=table.reverse())
    with pytest.raises(MmfuseError, match="other rows than its cached features"):
        audit.audit(store, dataset=other)
