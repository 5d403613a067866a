"""Streams of a plain weights file and of random weights, from extract to predict."""

import pytest
import torch
from checkpoint_makers import make_bert, trained
from PIL import Image
from typer.testing import CliRunner

from mmfuse_cli.main import app

SPLITS = ("train", "train", "train", "train", "val", "test")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run a command in a folder with shop.csv, a weights file and a model of text."""
    import timm

    monkeypatch.chdir(tmp_path)
    for name in ("MMFUSE_HOME", "MMFUSE_DATA", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = ["id,note,photo,verdict,split"]
    for row in range(24):
        Image.new("RGB", (8, 8), (row * 9, 0, 0)).save(tmp_path / f"{row}.png")
        word = "the quick fox" if row % 2 else "a dog"
        lines.append(f"r{row},{word} {row},{row}.png,{row % 2},{SPLITS[row // 2 % 6]}")
    (tmp_path / "shop.csv").write_text("\n".join(lines))
    model = trained(timm.create_model("test_resnet"), 0)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "run.pth")
    make_bert(tmp_path / "bert")

    def run(words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, words.split())
        return done.exit_code, done.output

    return run


def test_a_run_on_plain_and_random_weights_is_tagged_and_predicts_with_the_same_file(call):
    """The notes say what was assumed; predict needs the file and names it where it is not given."""
    extract = "extract --dataset shop.csv --name shop --target verdict --split split --workers 0"
    code, said = call(f"{extract} --encoder timm:test_resnet --weights run.pth")
    assert code == 0, said
    assert "timm: run.pth read as test_resnet, with the preprocessing of test_resnet." in said
    assert "; tensors under state_dict, left out: fc" in said
    code, said = call(f"{extract} --encoder hf:./bert/random")
    assert code == 0, said
    assert "hf: random weights: fit for timing, not for accuracy" in said
    code, said = call("train --dataset shop --method concat --epochs 1 --seeds 1")
    assert code == 0, said
    assert "real × pretrained+random" in said
    assert "random weights: fit for timing, not for accuracy" in said
    code, said = call("predict --input shop.csv")
    assert code == 2
    assert "add a tag" in said
    assert "or --weights FILE (timm/photo was made from the weights file run.pth)" in said
    code, said = call("predict --input shop.csv --weights run.pth --output out.csv")
    assert code == 0, said
    assert "24 predictions in out.csv" in said


def test_weights_that_do_not_fit_end_the_extract_with_one_error(call, tmp_path):
    """Exit code 2, and what to do."""
    torch.save({"fc.bias": torch.ones(3)}, tmp_path / "head.pth")
    extract = "extract --dataset shop.csv --name shop --target verdict --split split --workers 0"
    code, said = call(f"{extract} --encoder timm:test_resnet --weights head.pth")
    assert code == 2
    assert "error: timm: " in said
    assert "does not fit test_resnet: none of its tensors is known" in said
