"""Rows without a target: features at extract, predictions from the cache alone."""

import io
import shutil

import numpy as np
import polars as pl
import pytest
import soundfile

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.layout import Home
from pipelines.audit.audit import audit
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import build_encoder
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.predict import predict
from pipelines.evaluation.unlabelled import predict_unlabelled
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.training.train import train

COUNT = 48
OPEN = [row for row in range(COUNT) if row % 6 == 5]  # without a target


def sound(row):
    """A short tone, or nothing."""
    if row % 7 == 3:
        return None
    buffer = io.BytesIO()
    samples = np.sin(np.arange(400 + 100 * (row % 4)) * (0.2 + 0.3 * (row % 2)))
    soundfile.write(buffer, samples.astype(np.float32), 8000, format="WAV")
    return buffer.getvalue()


@pytest.fixture(params=["classes", "value"])
def table(request, tmp_path):
    """A Parquet file of texts and sounds; every sixth row has no target."""
    label = {"classes": lambda row: "ab"[row % 2], "value": lambda row: row % 2 + row / 100}
    frame = pl.DataFrame(
        {
            "id": [f"s{row}" for row in range(COUNT)],
            "text": [f"{('good', 'bad')[row % 2]} thing {row}" for row in range(COUNT)],
            "sound": [sound(row) for row in range(COUNT)],
            "y": [None if row in OPEN else label[request.param](row) for row in range(COUNT)],
        },
        schema_overrides={"sound": pl.Binary},
    )
    frame.write_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def trained(table, home, *, keep):
    """A run on the table's features, a sequence stream among them."""
    options = TableOptions(name="t", keep_unlabelled=keep)
    (dataset,) = open_dataset(str(table), table=options)
    encoders = [build_encoder("hashing", width=64), build_encoder("mfcc", sequence=True)]
    extract(dataset, encoders, home=home, options=ExtractOptions(workers=0))
    return train("concat", "t", home=home, options={"epochs": 3, "seeds": (0, 1)})


def test_they_are_predicted_as_the_same_rows_of_a_file(table, tmp_path):
    """From the cache, without the raw data; absent cells stay absent."""
    home = Home(tmp_path / "home")
    run = trained(table, home, keep=True)
    rows = pl.read_parquet(table).drop("y")
    encoders = [build_encoder("hashing", width=64), build_encoder("mfcc", sequence=True)]
    whole = predict(home, run, rows, encoders=encoders)
    table.unlink()
    found = predict_unlabelled(home, run)
    assert found.ids == tuple(f"s{row}" for row in OPEN)
    assert np.array_equal(found.present, whole.present[OPEN])
    assert not found.present.all()
    assert np.allclose(found.outputs, whole.outputs[OPEN], atol=1e-6)
    assert np.isfinite(found.outputs).all()


def test_they_change_nothing_for_the_others(table, tmp_path):
    """Splits, heads and scores are those of the table without them; no check counts them."""
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    kept, left = trained(table, one, keep=True), trained(table, other, keep=False)
    assert [s.metrics for s in kept.scores] == [s.metrics for s in left.scores]
    found = audit(FeatureStore(one, "t"), None, None)
    assert found == audit(FeatureStore(other, "t"), None, None)
    with pytest.raises(MmfuseError, match=r"no rows without a target; .*--keep-unlabelled"):
        predict_unlabelled(other, left)


def test_a_run_stays_valid_when_they_come_or_go(table, tmp_path):
    """Trained without them, then they get features: the run predicts them, and its scores stay."""
    home = Home(tmp_path / "home")
    run = trained(table, home, keep=False)
    (dataset,) = open_dataset(str(table), table=TableOptions(name="t", keep_unlabelled=True))
    encoders = [build_encoder("hashing", width=64), build_encoder("mfcc", sequence=True)]
    extract(dataset, encoders, home=home, options=ExtractOptions(workers=0))
    assert predict_unlabelled(home, run).ids == tuple(f"s{row}" for row in OPEN)
    before = next(s.metrics for s in run.scores if s.split == "test")
    found = evaluate(home, run, []).rows[0].scores.metrics
    name = next(iter(before))
    assert found[name] == pytest.approx(before[name], abs=1e-6)


def test_features_of_other_samples_are_refused(table, tmp_path):
    """A table that changed since the run was trained: its rows are not the run's."""
    home = Home(tmp_path / "home")
    run = trained(table, home, keep=True)
    pl.read_parquet(table).head(COUNT - 6).write_parquet(table)
    trained(table, home, keep=True)
    with pytest.raises(MmfuseError, match="the samples of t changed since"):
        predict_unlabelled(home, run)
    shutil.rmtree(home.root / "features")
    with pytest.raises(MmfuseError, match=r"features hashing-.*are gone"):
        predict_unlabelled(home, run)
