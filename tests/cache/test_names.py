"""Names of modalities: kept for people, made safe for paths."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmfuseError
from cache.layout import DatasetPaths, Home, check_modality_name, path_part
from pipelines.data.columns import as_name

SAFE = re.compile(r"[A-Za-z0-9%~_][A-Za-z0-9%~._-]*")
NAMES = st.text(min_size=1, max_size=200).map(as_name)


@given(NAMES)
def test_any_column_makes_a_name_and_any_name_a_safe_path_part(name):
    """Also columns of control characters, slashes, emoji or nothing but blanks."""
    assert check_modality_name(name) == name
    part = path_part(name)
    assert SAFE.fullmatch(part)
    assert len(part) <= 200
    assert path_part(part) == part


@given(NAMES, NAMES)
def test_two_names_never_share_a_path(one, other):
    """Percent-encoding is unambiguous, and what it shortens ends in a digest."""
    assert (path_part(one) == path_part(other)) == (one == other)


def test_plain_names_are_their_own_path():
    """Stores made before names had all letters are found where they are."""
    for name in ("image", "table_2", "its.words", "a-b", "x1"):
        assert path_part(name) == name
    paths = DatasetPaths.of(Home("home"), "d")
    assert paths.stream("clip-1a2b3c4d/größe cm").label == "clip-1a2b3c4d/gr%C3%B6%C3%9Fe%20cm"
    long = path_part("描" * 60)
    assert long.startswith("%E6%8F%8F")
    assert len(long) == 200


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a/b", "a,b", "a=b", "a:b", "a@2", "a\\b", "a\nb", "a\x1b", "..", "-a",
             ".a", "a%20b", "n" * 121, "\u202ea"]
)  # fmt: skip
def test_signs_that_mean_something_elsewhere_make_no_name(name):
    """Separators of the command line and of paths, control characters, directions of writing."""
    with pytest.raises(MmfuseError, match="modality"):
        check_modality_name(name)
