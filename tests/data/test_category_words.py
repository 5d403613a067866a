"""Words of a category column: which cells are the same word, and in which order words stand."""

import subprocess
import sys
import unicodedata
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import with_project

from pipelines.data.values.category_words import canonical_words, look_alikes, sort_words

WORDS = st.one_of(
    st.text(max_size=6), st.from_regex(r"-?0*[0-9]{1,4}(\.[0-9]{1,3})?", fullmatch=True)
)


def words(*cells, dtype=None):
    """Canonical words of a column with these cells."""
    return canonical_words(pl.Series("c", cells, dtype)).to_list()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["cat", "cat ", " dog"], ["cat", "cat", "dog"]),
        (["1", "1.0", "2.50", " 2.5"], ["1", "1", "2.5", "2.5"]),
        (["7", "07", "007", "7.0"], ["7", "07", "007", "7.0"]),  # 07 is no canonical decimal
        (["1", "1.0", "1e0"], ["1", "1.0", "1e0"]),
        (["0", "-0", "0.0"], ["0", "-0", "0.0"]),
        (["-0.5", "-0.50", "3"], ["-0.5", "-0.5", "3"]),
        (["٣", "3", "3.0"], ["٣", "3", "3.0"]),  # Arabic digits are another word
        (["NA", "None", "", "  ", None], ["NA", "None", None, None, None]),
    ],
)
def test_cells_are_one_word_where_they_mean_one(cells, expected):
    """Blanks never count; values count only where every word is a canonical decimal."""
    assert words(*cells) == expected


def test_types_of_files_do_not_matter():
    """A CSV's `true` and `1` are JSON's true and 1, and a float that is whole is a whole number."""
    truths = [True, False, None]
    assert words(*truths) == ["true", "false", None] == words("true", "false", "")
    assert words(1, 2) == ["1", "2"] == words(1.0, 2.0) == words("1", "2.0")
    assert words(0.5, float("nan")) == ["0.5", None]


def test_a_label_of_five_thousand_digits_is_a_word():
    """Python refuses to read so long an int; a label need not be one."""
    long = "9" * 5000
    assert words(long, "1") == [long, "1"]
    assert sort_words([long, "10", "9"]) == ["9", "10", long]


@given(st.lists(WORDS, min_size=1, max_size=8))
def test_words_are_stable_and_their_order_is_total(cells):
    """Twice is once, shuffling changes nothing, and equal words come from equal cells or values."""
    once = words(*cells, dtype=pl.String)
    assert words(*once, dtype=pl.String) == once
    kept = [word for word in once if word is not None]
    assert sort_words(kept) == sort_words(reversed(kept)) == sort_words(set(kept))
    for cell, word in zip(cells, once, strict=True):
        stripped = pl.Series([cell]).str.strip_chars()[0]
        if word is None:
            assert stripped == ""
        elif word != stripped:
            assert Decimal(word) == Decimal(stripped)


def test_the_order_is_the_same_in_every_process():
    """The hash seed decides nothing."""
    script = "from pipelines.data.values.category_words import sort_words; print(sort_words({!r}))"
    code = script.format(["7", "07", "007", "-0", "8", "٧"])
    said = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=with_project(PYTHONHASHSEED=seed),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.add(done.stdout)
    assert len(said) == 1


def test_words_that_look_alike_are_found():
    """Case, composed and decomposed letters, blanks inside a word."""
    composed = "café"
    decomposed = unicodedata.normalize("NFD", composed)
    found = look_alikes(["Yes", "yes", "no", composed, decomposed, "a  b", "a b"])
    assert sorted(map(sorted, found)) == sorted(
        map(sorted, [("Yes", "yes"), (composed, decomposed), ("a  b", "a b")])
    )
    assert look_alikes(["a", "b"]) == []
