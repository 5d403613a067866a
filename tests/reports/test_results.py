"""Results in a prompt, in a notebook and as tables: short, escaped, with the numbers there are."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made import fill_store, made_table
from small_encoders import Echo, texts

import mmfuse
from pipelines.evaluation.predict import Predictions
from pipelines.training.sweep import Sweep, Trial

WORDS = {"epochs": "1", "seeds": "0,1", "width": "4"}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, object]:
    """What train, evaluate, predict, extract and sweep give."""
    home = mmfuse.Home(tmp_path_factory.mktemp("home"))
    fill_store(home, made_table(60))
    run = mmfuse.train("mean", "made", home=home, options=WORDS)
    outputs = np.full((30, 3), 1 / 3)
    ids = tuple(f"<b>{number}\x1b" for number in range(30))
    present = np.ones((30, 3), bool)
    options, words = mmfuse.ExtractOptions(workers=0), texts({"m": ["a", "b", "a", "c", "d"]})
    return {
        "train": run,
        "evaluate": mmfuse.evaluate(home, run, [mmfuse.MissingPattern.named("image")]),
        "predict": Predictions(run, ids, outputs, outputs * 0, present, (), {}),
        "extract": mmfuse.extract(words, [Echo()], home=home, options=options),
        "sweep": Sweep((Trial((run,), 0.5),), 1, (), "accuracy"),
    }


NAMES = {
    "train": "scores", "evaluate": "evaluation", "predict": "predictions", "extract": "extracted",
    "sweep": "settings",
}  # fmt: skip


@pytest.mark.parametrize("verb", NAMES)
def test_a_result_is_one_short_line_in_a_prompt(results, verb) -> None:
    """No array and no list of scores; what it is about is there."""
    said = repr(results[verb])
    assert said.startswith("<")
    assert len(said) < 160
    assert "array" not in said
    about = "mean-made" if verb != "extract" else "5 of 5 rows, complete"
    assert about in said


@pytest.mark.parametrize("verb", NAMES)
def test_a_result_is_a_table_with_the_numbers_of_the_command_line(results, verb) -> None:
    """As a `Table`, as a data frame, and as HTML, in which words of the data are escaped."""
    table = results[verb].table()
    assert isinstance(table, mmfuse.Table)
    assert table.name == NAMES[verb]
    assert table.to_polars().columns == table.fields
    page = ET.fromstring(f"<div>{results[verb]._repr_html_()}</div>")
    rows = page.findall("div/table/tbody/tr")
    assert len(rows) == min(20, len(table.rows))
    assert "\x1b" not in results[verb]._repr_html_()


def test_the_tables_are_of_these_results(results) -> None:
    """Scores of the run, patterns of the evaluation, ids of the samples, rows of the stream."""
    run = results["train"]
    (row, *_) = results["train"].table().records()
    assert row["runs"] == [run.id]
    patterns = [row["missing"] for row in results["evaluate"].table().records()]
    assert patterns == ["complete", "without image"]
    assert results["predict"].table().records()[29]["id"] == "<b>29\x1b"
    (stream,) = results["extract"].table().records()
    assert (stream["rows"], stream["new"]) == (5, 4)
    assert list(results["extract"]) == [results["extract"][0]]


def test_without_the_library_a_result_says_where_its_table_is_made() -> None:
    """Storage knows no table; `import mmfuse` connects it with those that do."""
    plain = "from cache.runs import RunRecord; RunRecord.table(RunRecord.__new__(RunRecord))"
    done = subprocess.run(
        [sys.executable, "-c", plain], capture_output=True, text=True, check=False
    )
    assert "results have tables once `import mmfuse` has run" in done.stderr
