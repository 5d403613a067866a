"""The examples in docs/examples, which readers copy, satisfy the contracts they show."""

from project import ROOT

import mmfuse

EXAMPLES = ROOT / "docs" / "examples"


def test_the_example_encoder_passes_every_check_of_its_contract():
    """`mmfuse check` passes on the file; that of the head runs with the page on own methods."""
    found = mmfuse.check_encoder(str(EXAMPLES / "my_encoder.py"))
    assert [f"{one.text}: {one.detail}" for one in found if not one.passed] == []


def test_a_head_of_ones_own_is_short():
    """The example head is one short file: at most 35 lines."""
    assert len((EXAMPLES / "my_head.py").read_text(encoding="utf-8").splitlines()) <= 35
