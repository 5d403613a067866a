"""The contract of a user's own encoder: a good one passes, each fault is named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from own_encoder import LETTERS

from cache.errors import MmfuseError
from pipelines.contracts.encoder import check_encoder, is_encoder
from pipelines.encoding.encoder import build_encoder


@pytest.fixture
def written(tmp_path):
    """A function from replacements to the path of a file with that encoder."""

    def write(**changes):
        text = LETTERS
        for old, new in changes.get("pairs", ()):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mine.py"
        path.write_text(text)
        return str(path)

    return write


def test_a_good_encoder_passes_every_check(written):
    """Each check says what was seen."""
    found = check_encoder(written())
    assert [check.text for check in found if not check.passed] == []
    assert all(check.detail for check in found)


@pytest.mark.parametrize(
    ("old", "new", "check", "seen"),
    [
        ('KINDS = {"text": 27}', 'KINDS = dict([("text", 27)])', "Its kinds", "no literal KINDS"),
        ("kinds = KINDS", 'kinds = {"text": 27, "code": 27}', "Its kinds", "serves code"),
        ("kinds = KINDS", 'kinds = {"text": 26}', "finite vector", r"shape \(27,\), not \(26\)"),
        ("len(text)]", "np.nan]", "finite vector", "NaN"),
        ("len(text)]", "1e6]", "finite vector", "above float16"),
        ("[*map(text.count, letters), len(text)]", "[1] * 27", "Different inputs", "0 and 1"),
        ("len(text)]", "np.random.random()]", "same bits", "a second time"),
        ("len(text)]", "max(map(len, batch))]", "alone", "cosine"),
        ("len(payload)\n", "0\n", "survive pickling", "cost is 0"),
        ("payload.lower()", "type('T', (str,), {})(payload)", "survive pickling", "pickle"),
        ('{"version": 1}', '{"version": id(self)}', "is JSON", "built anew"),
        ('{"version": 1}', '{"version": {1, 2}}', "is JSON", "not JSON serializable"),
        ("def build():", "def build():\n    import torch\n", "no torch", "torch is imported"),
        ("for text in batch]", "for text in batch[1:]]", "finite vector", "5 vectors for 6"),
    ],
)
def test_a_fault_is_named(written, old, new, check, seen):
    """The check that fails is named, with what was seen instead."""
    pairs = [(old, new)]
    if "float16" in seen:
        pairs.append(('storage: str = "float32"', 'storage: str = "float16"'))
    failed = [one for one in check_encoder(written(pairs=pairs)) if not one.passed]
    assert any(check in one.text and re.search(seen, one.detail) for one in failed), failed


def test_the_error_of_a_file_that_builds_no_encoder_names_what_it_lacks(written):
    """One line with the parts of an encoder that are not there."""
    path = written(pairs=[("return Letters()", "return 5")])
    with pytest.raises(
        MmfuseError, match="returned int, which is not an encoder: it has no name, kinds"
    ):
        build_encoder(path)
    path = written(pairs=[("def provenance", "def origin")])
    with pytest.raises(MmfuseError, match=r"Letters, .*: it has no provenance$"):
        check_encoder(path)


def test_heads_and_encoders_are_told_apart(written, tmp_path):
    """A file with KINDS is an encoder; names are looked up among the plug-ins."""
    head = tmp_path / "head.py"
    head.write_text("def build(inputs): ...\n")
    assert is_encoder(written())
    assert is_encoder("pixels")
    assert is_encoder("hf:org/model")
    assert not is_encoder(str(head))
    assert not is_encoder("clarga")
    with pytest.raises(MmfuseError, match=r"^no such file: .*nowhere.py$"):
        is_encoder(str(tmp_path / "nowhere.py"))
    head.write_text("def build(:\n")
    with pytest.raises(MmfuseError, match="line 1"):
        is_encoder(str(head))


@pytest.mark.parametrize(
    ("cost", "code", "last"), [("len(payload)\n", 0, "8 of"), ("0\n", 1, "7 of")]
)
def test_the_command_says_what_passed(written, cost, code, last):
    """`mmfuse check ./mine.py` ends with 0, or with 1 where a check fails."""
    path = Path(written(pairs=[("len(payload)\n", cost)]))
    command = [sys.executable, "-m", "mmfuse_cli", "check", "./mine.py"]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert f"{last} 8 checks passed" in done.stderr
    assert ("FAILED" in done.stdout) == bool(code)
