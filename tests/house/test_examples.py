"""The examples in docs/examples, which readers copy, satisfy the contracts they show."""

import pytest
from project import ROOT

import mmfuse

EXAMPLES = ROOT / "docs" / "examples"


@pytest.mark.parametrize("check", [mmfuse.check_encoder, mmfuse.check], ids=["encoder", "head"])
def test_an_example_passes_every_check_of_its_contract(check):
    """`mmfuse check` passes on both files, the checks that train heads included."""
    name = "my_encoder.py" if check is mmfuse.check_encoder else "my_head.py"
    assert [f"{c.text}: {c.detail}" for c in check(str(EXAMPLES / name)) if not c.passed] == []


def test_a_head_of_ones_own_is_short():
    """The example head is one short file: at most 35 lines."""
    assert len((EXAMPLES / "my_head.py").read_text(encoding="utf-8").splitlines()) <= 35
