"""The store against a plain in-memory model, under random sequences of everything that happens."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_rows import expected, fill, key_of, open_writer, shrink, spec_of, vector

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.maintenance.gc import collect_garbage, plan_gc
from cache.maintenance.repair import repair
from cache.maintenance.verify import verify


class Killed(BaseException):
    """Stops a run where a kill would: nothing is released or tidied."""


class StoreMachine(RuleBasedStateMachine):
    """Rows change, runs are killed, files are damaged, garbage goes; the model never differs."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        shrink(self.patch.setattr)
        self.patch.setattr(
            "cache.storage.leases.EXPIRY", 0.0
        )  # a killed run here is still this process
        self.patch.setattr("cache.maintenance.gc.MIN_AGE_SECONDS", -1.0)
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home(self.folder / "home")
        self.rows = []
        self.published = None  # rows that readers should see
        self.encoded_once = set()
        self.next = 0
        self.damaged = False

    @initialize(sequence=st.booleans(), count=st.integers(1, 60))
    def begin(self, sequence, count):
        """The first rows."""
        self.spec = spec_of(sequence=sequence)
        self.rows = list(range(count))
        self.next = count

    def writer(self, **options):
        """Open the stream for the rows as they are."""
        store = FeatureStore(self.home, "toy")
        return open_writer(store, self.rows, spec=self.spec, **options)

    @rule(count=st.integers(1, 40))
    def append(self, count):
        """New rows at the end."""
        self.rows = [*self.rows, *range(self.next, self.next + count)]
        self.next += count

    @rule(data=st.data())
    def edit(self, data):
        """One row is another input, absent, or the same as the first."""
        at = data.draw(st.integers(0, len(self.rows) - 1))
        what = data.draw(st.sampled_from(["new", "absent", "repeat"]))
        new = {"new": self.next, "absent": None, "repeat": self.rows[0]}[what]
        self.next += 1
        self.rows = [*self.rows[:at], new, *self.rows[at + 1 :]]

    @rule(seed=st.integers(0, 99))
    def reorder(self, seed):
        """The same rows in another order."""
        self.rows = [self.rows[i] for i in np.random.default_rng(seed).permutation(len(self.rows))]

    @precondition(lambda self: len(self.rows) > 1)
    @rule(data=st.data())
    def delete(self, data):
        """One row goes."""
        at = data.draw(st.integers(0, len(self.rows) - 1))
        self.rows = [*self.rows[:at], *self.rows[at + 1 :]]

    @rule()
    def run(self):
        """What `extract` does: nothing twice, and what it encodes is read back."""
        writer = self.writer()
        encoded = fill(writer, self.rows)
        assert len(encoded) == len(set(encoded))
        if not self.damaged:
            assert not set(encoded) & self.encoded_once
        assert writer.complete
        self.encoded_once |= set(encoded)
        self.published = list(self.rows)
        self.damaged = bool(verify(self.home).damages)

    @rule(after=st.integers(0, 30), data=st.data())
    def killed_run(self, after, data):
        """Stops after some rows: put and perhaps journalled, perhaps in the midst of a commit."""
        journal = data.draw(st.booleans())
        seen = self.writer().complete
        steps = 0

        def step(*_):
            nonlocal steps
            steps += 1
            if steps > after:
                raise Killed

        writer = self.writer()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "cache.storage.objects.sync_folder", step
                )  # once for each published object
                for shard in writer.shards:
                    claim = writer.claim(shard)
                    if claim is None:
                        continue
                    for row in claim.todo.tolist():
                        value = vector(self.rows[row], sequence=self.spec.sequence)
                        claim.put([row], [value])
                        if journal:
                            claim.checkpoint()
                    claim.commit()
                writer.finish()
        except Killed:
            pass
        if seen or writer.complete:
            self.published = list(self.rows)
        self.encoded_once.clear()  # what was encoded and lost is not counted here

    @precondition(lambda self: self.published is not None)
    @rule(pick=st.integers(0, 10**6), how=st.sampled_from(["flip", "cut", "delete"]))
    def damage_and_mend(self, pick, how):
        """Any file of the Zarr group; then verify, repair and run."""
        top = self.home.features("toy")
        files = sorted(p for p in top.rglob("*") if p.is_file())
        path = files[pick % len(files)]
        data = bytearray(path.read_bytes())
        match how:
            case "flip":
                data[pick % len(data)] ^= 1 << (pick % 8)
                path.write_bytes(data)
            case "cut":
                path.write_bytes(data[: pick % len(data)])
            case "delete":
                path.unlink()
        repair(self.home, verify(self.home).damages)
        self.damaged = True
        self.run()

    @precondition(lambda self: self.published is not None)
    @rule()
    def lose_the_group(self):
        """All features are deleted under their records; a run makes what readers see anew."""
        shutil.rmtree(self.home.features("toy"))
        assert verify(self.home).damages
        self.damaged = True
        self.run()
        old = verify(self.home).damages  # generations that no reader uses
        seen = next(iter(FeatureStore(self.home, "toy").streams())).generation
        assert all(damage.generation != seen for damage in old)
        repair(self.home, old)
        assert not verify(self.home).damages
        self.damaged = False

    @precondition(lambda self: self.published is not None)
    @rule(streams=st.booleans())
    def collect_garbage(self, streams):
        """Old generations and leftovers go; their rows may have to be encoded again."""
        garbage = plan_gc(self.home, streams=streams)
        collect_garbage(garbage)
        assert {item.why for item in plan_gc(self.home, streams=streams)} <= set()
        self.encoded_once.clear()

    @invariant()
    def readers_see_what_the_model_has(self):
        """What was published last is read back exactly, at any moment."""
        if self.published is None or self.damaged:
            return
        store = FeatureStore(self.home, "toy")
        info = next(i for i in store.streams() if i.key == key_of())
        if not info.complete:
            return  # a shard was discarded; the next run encodes it again
        found = store.whole(key_of())
        there = [number for number in self.published if number is not None]
        assert found.present.tolist() == [number is not None for number in self.published]
        values = found.values if self.spec.sequence else found.values[found.present]
        wanted = expected(there, sequence=self.spec.sequence) if there else values[:0]
        assert np.array_equal(values, wanted)
        ids = store.samples(info).ids
        assert len(ids) == len(self.published)

    def teardown(self):
        """Leave nothing behind."""
        self.patch.undo()
        shutil.rmtree(self.folder)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
