"""CLIP: which checkpoints it takes and refuses, what it counts, and what happens without any."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_makers import make_clip
from PIL import Image
from waiting import HANG

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from pipelines.encoding.encoder import build_encoder
from pipelines.media.payloads import Unreadable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP in open_clip's hub format."""
    place = tmp_path_factory.mktemp("clip") / "tiny"
    make_clip(place)
    return place


def test_weights_of_the_other_gelu_are_refused():
    """OpenAI's weights in a model built without QuickGELU would be plausible but wrong vectors."""
    with pytest.raises(MmfuseError, match="use clip:ViT-B-32-quickgelu/openai"):
        build_encoder("clip:ViT-B-32/openai")
    with pytest.raises(MmfuseError, match="use clip:ViT-B-32/laion2b_s34b_b79k"):
        build_encoder("clip:ViT-B-32-quickgelu/laion2b_s34b_b79k")
    assert build_encoder("clip:ViT-B-32/laion2b_s34b_b79k").kinds["image"] == 512


def test_unknown_models_tags_and_options_name_the_nearest():
    """A word that open_clip does not know is an error with the nearest one it does."""
    with pytest.raises(MmfuseError, match="nearest: ViT-B-32"):
        build_encoder("clip:ViT-B-33/openai")
    with pytest.raises(MmfuseError, match="did you mean openai"):
        build_encoder("clip:ViT-B-32-quickgelu/opnai")
    with pytest.raises(MmfuseError, match="compute dtype"):
        build_encoder("clip", dtype="fp16")
    with pytest.raises(MmfuseError, match="no option weights"):
        build_encoder("pixels", weights="x.pt")


_OFFLINE = """
import os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = sys.argv[1]
from cache.errors import MmfuseError
from pipelines.encoding.encoder import build_encoder
encoder = build_encoder("clip")
try:
    encoder.fields("image")
except MmfuseError as error:
    print(error)
print("torch" in sys.modules)
"""


def test_offline_without_weights_is_an_error_at_once(tmp_path):
    """It says where it looked, --weights and what needs no download, and torch is not imported."""
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG,
    )
    message, torch = done.stdout.splitlines()
    assert "no weights of timm/vit_base_patch32_clip_224.openai" in message
    assert f"not in {tmp_path}" in message
    assert "--weights PATH" in message
    assert "pixels (image)" in message
    assert "hashing (text, code)" in message
    assert "clip" not in message.partition("no download:")[2]
    assert torch == "False"


def test_random_weights_are_the_same_every_time_and_tagged(tmp_path):
    """The tag `random` is seeded, says so in its fingerprint, and never passes for pretrained."""
    one, two = (build_encoder("clip:RN50/random") for _ in range(2))
    assert one.weights == "random"
    assert one.fields("image")["weights"] == {"random": 0}
    picture = Image.fromarray(np.full((30, 30, 3), 90, np.uint8))
    a, b = (e.encode("image", [e.prepare("image", picture)[0]])[0] for e in (one, two))
    assert np.array_equal(a, b)
    with pytest.raises(MmfuseError, match="leave --weights"):
        build_encoder("clip:RN50/random", weights=str(tmp_path))


def test_untrained_checkpoints_are_distinguished_from_trained_ones(folder, tmp_path):
    """A checkpoint whose normalisations are exactly 1 and 0 counts as random, also in a .bin."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = json.loads((folder / "open_clip_config.json").read_text())
    fresh = open_clip.CLIP(**config["model_cfg"]).state_dict()
    for place, save in (("safe", save_file), ("bin", torch.save)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "open_clip_config.json").write_text(json.dumps(config))
        name = "open_clip_model.safetensors" if place == "safe" else "open_clip_pytorch_model.bin"
        save({key: v.contiguous() for key, v in fresh.items()}, tmp_path / place / name)
        assert build_encoder("clip", weights=str(tmp_path / place)).weights == "random"
    assert build_encoder("clip", weights=str(folder)).weights == "pretrained"


def test_a_file_that_holds_more_than_tensors_is_refused(folder, tmp_path):
    """A pickle of any class is an error and its code does not run."""
    import torch

    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (marker,))

    place = tmp_path / "trap"
    place.mkdir()
    (place / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    torch.save({"weights": Trap()}, place / "open_clip_pytorch_model.bin")
    encoder = build_encoder("clip", weights=str(place))
    with pytest.raises(MmfuseError, match="more than plain tensors"):
        encoder.encode("text", [encoder.prepare("text", "words")[0]])
    assert not marker.exists()


def test_weights_that_do_not_fit_or_do_not_exist_are_an_error(folder, tmp_path):
    """A missing path, an empty folder, and weights of another model each say what to do."""
    with pytest.raises(MmfuseError, match="no such file or folder"):
        build_encoder("clip", weights=str(tmp_path / "nowhere"))
    with pytest.raises(MmfuseError, match="open_clip_config"):
        build_encoder("clip", weights=str(tmp_path))
    encoder = build_encoder("clip:RN50", weights=str(folder / "open_clip_model.safetensors"))
    with pytest.raises(MmfuseError, match="--encoder clip:MODEL/TAG"):
        encoder.encode("text", [encoder.prepare("text", "words")[0]])


def test_text_that_is_too_long_is_cut_and_said_to_be(folder):
    """Texts beyond 77 tokens are cut where open_clip cuts them, and said to be cut."""
    import open_clip

    encoder = build_encoder("clip", weights=str(folder))
    texts = ["short", "word " * 75, "word " * 76, "word " * 300]
    items = [encoder.prepare("text", text)[0] for text in texts]
    assert [encoder.truncated(item) for item in items] == [False, False, True, True]
    expected = open_clip.get_tokenizer(f"local-dir:{folder}")(texts).numpy()
    for row, (tokens, _) in zip(expected, items, strict=True):
        assert np.array_equal(row[: len(tokens)], tokens)
        assert not row[len(tokens) :].any()


def test_blank_text_is_unreadable(folder):
    """A text of blanks has no vector."""
    with pytest.raises(Unreadable, match="empty"):
        build_encoder("clip", weights=str(folder)).prepare("text", " \n")


def test_how_pictures_are_cut_makes_no_other_text(folder, tmp_path):
    """Preprocessing of images is in the fingerprint of images and not in that of texts."""
    make_clip(tmp_path / "squash", resize_mode="squash")
    one = build_encoder("clip", weights=str(folder))
    two = build_encoder("clip", weights=str(tmp_path / "squash"))
    assert fingerprint(one.fields("text")) == fingerprint(two.fields("text"))
    assert fingerprint(one.fields("image")) != fingerprint(two.fields("image"))


def test_a_golden_probe_is_recorded_and_compared_ever_after(folder, tmp_path):
    """The first use records a fixed input's vector; a later one that differs is refused."""
    memory = tmp_path / "weights.json"
    for _ in range(2):
        encoder = build_encoder("clip", weights=str(folder), memory=memory)
        encoder.encode("text", [encoder.prepare("text", "words")[0]])
    kept = json.loads(memory.read_text())
    assert len(kept["probes"]) == 1
    ((key, vector),) = kept["probes"].items()
    kept["probes"][key] = vector[::-1]
    memory.write_text(json.dumps(kept))
    encoder = build_encoder("clip", weights=str(folder), memory=memory)
    with pytest.raises(MmfuseError, match="another vector"):
        encoder.encode("text", [encoder.prepare("text", "words")[0]])


def test_a_digest_is_reused_until_the_file_changes(folder, tmp_path):
    """A remembered sha256 counts while size, time and inode are the same, and not longer."""
    import os

    from cache.storage import weight_digests

    memory, file = weight_digests.WeightsMemory(tmp_path / "weights.json"), tmp_path / "a.bin"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    first = memory.sha256(file)
    weight_digests._PROCESS.clear()
    kept = json.loads(memory.path.read_text())
    kept["files"][str(file)][3] = "remembered"
    memory.path.write_text(json.dumps(kept))
    assert memory.sha256(file) == "remembered"
    file.write_bytes(b"two")
    assert memory.sha256(file) not in (first, "remembered")


def test_pictures_and_texts_that_overflow_in_half_precision_are_encoded_in_float32(
    folder, tmp_path
):
    """Both encoders give what float32 gives, where float16 alone would give NaN or infinity."""
    import shutil

    from safetensors.numpy import load_file, save_file

    place = tmp_path / "big"
    shutil.copytree(folder, place)
    tensors = load_file(place / "open_clip_model.safetensors")
    for name in tensors:
        if "resblocks.0.mlp.c_fc.weight" in name:
            tensors[name] = tensors[name] * 1e4
        if "resblocks.0.mlp.c_proj.weight" in name:
            tensors[name] = tensors[name] * 1e3
    save_file(tensors, place / "open_clip_model.safetensors")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    half, whole = (
        build_encoder("clip", weights=str(place), dtype=word) for word in ("float16", "float32")
    )
    for kind, payload in (("image", picture), ("text", "a quick fox")):
        a, b = (e.encode(kind, [e.prepare(kind, payload)[0]])[0] for e in (half, whole))
        assert "_exact" in half.__dict__
        assert np.isfinite(a).all()
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999
        del half.__dict__["_exact"]
