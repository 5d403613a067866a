"""Streams that an extract was asked for and did not make: said by extract, train and eval."""

import pytest
from checkpoint_makers import make_bert
from PIL import Image
from typer.testing import CliRunner

from mmfuse_cli.main import app

SPLITS = ("train", "train", "train", "train", "val", "test")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run a command in a folder with shop.csv, whose rows have a note and a photo."""
    monkeypatch.chdir(tmp_path)
    for name in ("MMFUSE_HOME", "MMFUSE_DATA", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = ["id,note,photo,verdict,split"]
    for row in range(24):
        Image.new("RGB", (8, 8), (row * 9, 0, 0)).save(tmp_path / f"{row}.png")
        word = "good thing indeed" if row % 2 else "bad thing really"
        lines.append(f"r{row},{word} number {row},{row}.png,{row % 2},{SPLITS[row // 2 % 6]}")
    (tmp_path / "shop.csv").write_text("\n".join(lines))

    def run(words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, words.split())
        return done.exit_code, done.output

    return run


EXTRACT = "extract --dataset shop.csv --name shop --target verdict --workers 0 --encoder "
TRAIN = "train --dataset shop --method late --epochs 1 --seeds 1"


def test_an_encoder_that_nothing_can_use_is_an_error_beside_useful_ones(call):
    """The message names what it encodes and what the columns were taken for; nothing is encoded."""
    code, said = call(f"{EXTRACT}hashing --encoder mfcc")
    assert code == 2
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: mfcc serves no modality of shop: it encodes audio; ")
    assert "note (text) is served by " in line
    assert "photo (image) is served by clip, hf, pixels" in line
    assert line.endswith("; a column of another kind: --modality NAME=audio:COLUMN")
    assert call("list features")[1].startswith("features\n")
    assert "hashing" not in call("list features")[1]


def test_modalities_without_features_are_one_line_with_their_command(call):
    """It names an encoder that needs no weights, and is gone once the modality has features."""
    line = "without features: photo of shop; run: mmfuse extract --dataset shop --encoder pixels"
    assert line in call(f"{EXTRACT}hashing")[1].splitlines()
    code, said = call(line.partition("run: mmfuse ")[2])
    assert code == 0
    assert "without features" not in said


def test_a_failed_extract_is_told_by_train_until_the_modality_has_features(call):
    """Text alone trains, with a warning of what the failed extract was to make."""
    assert call(f"{EXTRACT}resnet")[0] == 2  # no weights on this machine
    assert call(f"{EXTRACT}hashing")[0] == 0
    code, said = call(TRAIN)
    assert code == 0
    assert (
        "warning: trained without resnet/photo, which an extract of shop did not complete; "
        "run: mmfuse extract --dataset shop --encoder resnet" in said.splitlines()
    )
    assert "warning: nothing was fused: late on one stream, hashing/note" in said.splitlines()
    assert "trained without" not in call(f"{TRAIN} --features hashing")[1]
    evaluated = call("eval")[1]
    assert "not in this run: photo of shop" in evaluated
    assert call(f"{EXTRACT}pixels")[0] == 0
    said = call(TRAIN)[1]
    assert "trained without" not in said
    assert "nothing was fused" not in said
    assert "not in this run" not in call("eval")[1]


def test_an_extract_with_a_limit_is_told_by_train(call):
    """A stream that is begun is named, though another one can be trained on."""
    assert call(f"{EXTRACT}hashing")[0] == 0
    assert call(f"{EXTRACT}pixels --limit 3")[0] == 0
    assert "warning: trained without pixels/photo, " in call(TRAIN)[1]


def test_a_model_of_one_kind_is_not_asked_for_others(call, tmp_path):
    """`hf:` may read texts and pictures; a text model was never to make features of photos."""
    folder = tmp_path / "bert"
    make_bert(folder)
    assert call(f"{EXTRACT}hf:{folder} --encoder pixels")[0] == 0
    code, said = call(TRAIN)
    assert code == 0
    assert "trained without" not in said
