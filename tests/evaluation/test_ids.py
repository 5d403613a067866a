"""Ids of new samples are the words that the same cells were in training."""

from pathlib import Path

import polars as pl
import pytest

from cache.feature_store import FeatureStore
from cache.layout import Home
from pipelines.data.sources import open_dataset
from pipelines.data.table_files import read_table
from pipelines.data.tables import TableOptions, sample_ids
from pipelines.encoding.encoder import build_encoder
from pipelines.evaluation.input_columns import ids_of
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions

ROWS = 20


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([*range(ROWS)], [str(n) for n in range(ROWS)]),
        ([float(n) for n in range(ROWS)], [str(n) for n in range(ROWS)]),
        ([f"{n:03}" for n in range(ROWS)], [f"{n:03}" for n in range(ROWS)]),
        ([f"  {n} " for n in range(ROWS)], [str(n) for n in range(ROWS)]),
        (["x7", *(f"{n}.0" for n in range(1, ROWS))], ["x7", *(f"{n}.0" for n in range(1, ROWS))]),
    ],
    ids=["ints", "floats", "zero-padded", "blanks", "one odd word"],
)
@pytest.mark.parametrize("column", ["id", "ID", "sku"])
def test_ids_are_the_same_words_in_extract_and_predict(tmp_path, cells, words, column, ending):
    """Whatever rows the new table has, under the name that the column had in training."""
    frame = pl.DataFrame({
        column: cells,
        "note": [f"a {('good', 'bad')[n % 2]} thing number {n}" for n in range(ROWS)],
        "label": [n % 2 for n in range(ROWS)],
    })  # fmt: skip
    path = write(frame, tmp_path / f"shop.{ending}")
    options = TableOptions(name="shop", id="sku" if column == "sku" else None)
    (dataset,) = open_dataset(str(path), table=options)
    home = Home(tmp_path / "home")
    extract(dataset, [build_encoder("hashing")], home=home, options=ExtractOptions(workers=0))
    (info,) = FeatureStore(home, "shop").streams()
    assert FeatureStore(home, "shop").samples(info).ids.tolist() == words
    new = write(frame[5:8], tmp_path / f"new.{ending}")
    found = ids_of(home, "shop", {"hashing/note": info}, read_table(new))
    assert found.words.to_list() == words[5:8]
    assert found.column == column


def write(frame: pl.DataFrame, path: Path) -> Path:
    """A table file of the kind of its ending."""
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def test_ids_of_data_without_ids_are_judged_by_themselves():
    """Rows that were numbered in training say nothing on how ids are written."""
    rows = pl.DataFrame({"id": ["1.0", "2.0"]})
    assert sample_ids(rows, None, ["row-00", "row-01"]).words.to_list() == ["1", "2"]
    assert sample_ids(rows, None, ["a", "b"]).words.to_list() == ["1.0", "2.0"]
    assert sample_ids(rows.rename({"id": "name"})).words.to_list() == ["row-0", "row-1"]
