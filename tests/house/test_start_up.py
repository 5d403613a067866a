"""The front door opens fast: help loads nothing heavy, no user error loads torch."""

from pathlib import Path

import pytest
import start_probe
from prestarted import WITHOUT_TORCH, prestarted
from waiting import HANG

from pipelines.methods import concat

ERRORS = (
    "extract --dataset mug --encoder pixels",
    "extract --dataset digit --encoder pixels",
    "extract --dataset digits --encoder pixel",
    "extract --dataset digits",
    "extract --encoder pixels",
    "extract --dataset digits --encoder pixels --dtype flaot16",
    "extract --dataset digits --encoder pixels --device gpu",
    "extract --dataset digits --encoder pixels --limit -1",
    "extract --dataset digits --encoder pixels --home /dev/null/home",
    "train --method clarga",
    "train --method clargo --dataset digits",
    "train",
    "eval --missing audio",
    "list encodrs",
    "nonsense",
)
WRONG_VALUES = {
    "--epochs 0": "epochs must be at least 1",
    "--batch-size 0": "batch_size must be at least 1",
    "--drop-rate 2": "drop_rate must be from 0 to below 1",
    "--missing-rate 1": "missing_rate must be from 0 to below 1",
    "--learning-rate 1e-3,foo": "learning_rate is a number",
    "--folds 1": "folds must be 0, or at least 3",
    "--set patience=-1": "patience must be at least 1, or none",
    "--set drop_rate=0.2 --drop-rate 0.3": "--drop-rate and --set drop_rate=0.2 set the same",
    "--set seeds=3 --seeds 2": "--seeds and --set seeds=3 set the same",
    "--set width=4 --set width=8": "--set names width twice: 4 and 8",
    "--set width=-4": "width must be at least 1",
    "--set dropout=1": "dropout must be from 0 to below 1",
    "--set epochs=abc": "epochs is a whole number",
    "--set width=wide": "width is a whole number",
    "--set optimizer=adma": "optimizer is one of adamw, sgd",
    "--device foo": "device",
}
SWEEP_VALUES = {
    "--epochs 5,0": "epochs must be at least 1",
    "--drop-rate 0.1,2": "drop_rate must be from 0 to below 1",
    "--missing-rate half": "missing_rate is a number",
    "--batch-size 0": "batch_size must be at least 1",
    "--learning-rate 1e-3,foo": "learning_rate is a number",
    "--folds 2": "folds must be 0, or at least 3",
    "--set epochs=3 --epochs 4": "--epochs and --set epochs=3 set the same",
}
PROBE = Path(start_probe.__file__)


def probe(folder: Path, words: str, libraries: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """(exit line, heavy modules loaded, everything said) of one call in a folder.

    Libraries imported in advance count as loaded; without any, none is.
    """
    process = prestarted(libraries).start([PROBE, *words.split()], folder=folder)
    output, errors = process.communicate(timeout=HANG)
    lines = output.splitlines()
    assert len(lines) > 1, errors
    return lines[-2], lines[-1].removeprefix("loaded").strip(), output + errors


@pytest.mark.parametrize("words", ["--help", "extract --help", "train --help", "demo --help"])
def test_help_loads_nothing_heavy(tmp_path, words):
    """Help is words only: neither torch, numpy, polars, zarr, scikit-learn nor rich is imported."""
    assert probe(tmp_path, words)[:2] == ("exit 0", "")


@pytest.mark.parametrize("words", ERRORS)
def test_a_user_error_is_exit_code_2_without_torch_or_traceback(tmp_path, words):
    """What the user can mend comes at once: one message, exit code 2, torch not imported."""
    code, loaded, said = probe(tmp_path, words, WITHOUT_TORCH)
    assert code == "exit 2", said
    assert "torch" not in loaded.split()
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def with_features(tmp_path_factory):
    """A folder where `digits` has features, so that only the training options can be wrong."""
    folder = tmp_path_factory.mktemp("features")
    code, _, said = probe(folder, "extract --dataset digits --encoder pixels", WITHOUT_TORCH)
    assert code == "exit 0", said
    return folder


@pytest.mark.parametrize("words", WRONG_VALUES)
def test_a_wrong_value_of_a_training_option_is_told_without_torch(with_features, words):
    """Values are read as what they set before anything heavy is loaded."""
    command = f"train --method concat --dataset digits {words}"
    code, loaded, said = probe(with_features, command, WITHOUT_TORCH)
    assert code == "exit 2", said
    assert WRONG_VALUES[words] in said
    assert "torch" not in loaded.split()
    assert "Traceback" not in said


@pytest.mark.parametrize("words", SWEEP_VALUES)
def test_a_sweep_takes_the_options_of_a_training(with_features, words):
    """They may have several values; a wrong one is told without torch."""
    command = f"sweep digits --method concat {words}"
    code, loaded, said = probe(with_features, command, WITHOUT_TORCH)
    assert code == "exit 2", said
    assert SWEEP_VALUES[words] in said
    assert "torch" not in loaded.split()


def test_training_imports_torch_the_store_and_what_prints(with_features):
    """No compiler of torch, no model library; scikit-learn once, until the baseline is known."""
    (with_features / "my_head.py").write_text(Path(concat.__file__).read_text(encoding="utf-8"))
    for method, fits in (("concat", {"sklearn", "pandas"}), ("./my_head.py", set())):
        words = f"train --method {method} --dataset digits --seeds 1 --epochs 1"
        code, loaded, said = probe(with_features, words, ("numpy",))
        assert code == "exit 0", said
        known = {"torch", "numpy", "polars", "rich", "scipy", "safetensors", "zarr"}
        assert set(loaded.split()) - fits <= known
