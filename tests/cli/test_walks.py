"""Golden transcripts: the real command line in an empty folder, word for word, exit codes too.

`pytest tests/cli --rewrite-walks` writes them anew; read what changed before it is kept.
"""

from pathlib import Path

import pytest
import tiny
from walking import Walk


def nothing_yet(folder: Path) -> None:
    """Nothing was extracted, nothing trained, no data anywhere."""


def new_samples(folder: Path) -> None:
    """Three new texts to answer, one of them absent."""
    (folder / "new.csv").write_text("id,text\na,dial sevn now\nb,the number is thrre\nc,\n")


def own_data(folder: Path) -> None:
    """Tables that each have one thing wrong, and one that is right."""
    tiny.own_table(folder, "good.csv")
    tiny.own_table(folder, "no_target.csv", verdict=None)
    tiny.own_table(folder, "twice.csv", id=lambda row, cell: "s1" if row == 2 else cell)
    tiny.own_table(folder, "one_class.csv", verdict=lambda row, cell: "good")
    tiny.own_table(folder, "no_test.csv", split=lambda row, cell: cell.replace("test", "train"))
    tiny.own_table(folder, "odd_split.csv", split=lambda row, cell: "dev?" if row == 3 else cell)
    tiny.own_table(folder, "outside.csv", review=lambda row, cell: "../secret.png")


def bad_samples(folder: Path) -> None:
    """Pictures and sounds that are truncated, empty, of another type, a bomb, NaN, a directory."""
    tiny.bad_samples(folder)


def mug(folder: Path) -> None:
    """Two tasks in MuG's layout and a tiny CLIP checkpoint of random weights."""
    tiny.mug_task(folder / "data" / "mug" / "Pokemon-secondary_type")
    tiny.mug_task(folder / "data" / "mug" / "Pokemon-primary_type", seed=1)
    tiny.clip_checkpoint(folder / "checkpoint")


WALKS = [
    ("nothing_yet", nothing_yet),
    ("own_data", own_data),
    ("bad_samples", bad_samples),
    ("mug", mug),
    ("digits", new_samples),
]


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "prepare"), WALKS)
def test_a_walk_reads_as_its_transcript(name, prepare, fresh, tmp_path, request):
    """The same commands in the same folder say the same words and end with the same codes.

    Slow: once more with every command as a process of its own.
    """
    prepare(tmp_path)
    transcript = Path(__file__).parent / "walks" / f"{name}.txt"
    said, now = Walk(tmp_path, fresh=fresh).replay(transcript)
    if request.config.getoption("--rewrite-walks"):
        transcript.write_text(now, encoding="utf-8")
    else:
        assert now == said
