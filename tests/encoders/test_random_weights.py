"""Random weights, `NAME/random`: built without a network, the same every time, never pretrained."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from project import with_project

import mmfuse
from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from pipelines.contracts.sample_payloads import sample_payloads
from pipelines.encoders import codebert, wav2vec
from pipelines.encoding.encoder import build_encoder, notes_of
from pipelines.encoding.processors import HashTokenizer
from pipelines.media.payloads import Waveform

# Words, with the tiny checkpoint whose folder takes the place of {}.
TINY = {
    "timm:test_resnet/random": "",
    "timm:{}/random": "timmsquash",
    "hf:{}/random": "bert",
    "wav2vec:{}/random": "wav2vecgroup",
    "sentence:{}/random": "sentencedense",
}


@pytest.fixture(params=TINY)
def word(request, place):
    """The word of a small encoder with random weights."""
    return (
        request.param.format(place(TINY[request.param])) if TINY[request.param] else request.param
    )


def _vectors(encoder):
    kind = next(iter(encoder.kinds))
    return encoder.encode(kind, [encoder.prepare(kind, one)[0] for one in sample_payloads(kind)])


def test_random_weights_are_the_same_whatever_global_random_state_is_and_leave_it(word):
    """Built twice with other seeds around it: the same bits, and the state goes on as before."""
    import torch

    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        legacy = np.random.mtrand._rand
        legacy.seed(seed)
        before = torch.get_rng_state(), random.getstate(), legacy.get_state()[1]
        found.append(_vectors(build_encoder(word, device="cpu")))
        after = torch.get_rng_state(), random.getstate(), legacy.get_state()[1]
        assert torch.equal(before[0], after[0])
        assert before[1] == after[1]
        assert np.array_equal(before[2], after[2])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    assert len({one.tobytes() for one in found[0]}) == len(found[0])


def test_random_weights_are_tagged_and_have_a_fingerprint_of_their_own(place):
    """The tag is random and the seed is in the fingerprint, unlike the same folder's weights."""
    for name, folder in (("hf", "bert"), ("sentence", "sentencedense"), ("timm", "timmsquash")):
        chance = build_encoder(f"{name}:{place(folder)}/random")
        real = build_encoder(name, weights=str(place(folder)))
        kind = next(iter(real.kinds))
        assert (chance.weights, real.weights) == ("random", "pretrained")
        assert chance.kinds == real.kinds
        assert chance.fields(kind)["weights"] == {"random": 0}
        assert fingerprint(chance.fields(kind)) != fingerprint(real.fields(kind))
        assert notes_of(chance) == (f"{name}: random weights: fit for timing, not for accuracy",)
        assert notes_of(real) == ()
        a, b = (_vectors(encoder)[0] for encoder in (chance, real))
        assert a.shape == b.shape
        assert not np.allclose(a, b, atol=1e-3)


def test_random_weights_pass_the_checks_of_an_encoder():
    """`mmfuse check` passes, its fresh process without torch included."""
    found = mmfuse.check_encoder("timm:test_resnet/random")
    assert [one.detail for one in found if not one.passed] == []


def test_the_architectures_that_are_stated_here_are_the_published_ones():
    """They have as many parameters as CodeBERT and the wav2vec 2.0 models are known to have."""
    import torch
    from transformers import AutoConfig, AutoModel

    large, base = (wav2vec.ARCHITECTURES[name] for name in
                   (wav2vec.REPOSITORY, "facebook/wav2vec2-base-960h"))  # fmt: skip
    counts = {124_645_632: codebert.ARCHITECTURE, 315_438_720: large, 94_371_712: base}
    for count, architecture in counts.items():
        with torch.device("meta"):
            model = AutoModel.from_config(AutoConfig.for_model(**architecture))
        assert sum(values.numel() for values in model.parameters()) == count


def test_named_models_need_no_folder_and_no_hub():
    """codebert, wav2vec and resnet give vectors of their models' widths, without a network."""
    encoder = build_encoder("codebert/random", device="cpu")
    assert encoder.kinds == {"code": 768, "text": 768}
    assert encoder.fields("code")["length"] == 512
    long = encoder.prepare("code", "x = 1\n" * 1000)[0]
    assert (long.real, encoder.truncated(long)) == (512, True)
    (vector,) = encoder.encode("code", [encoder.prepare("code", "return 42")[0]])
    assert vector.shape == (768,)
    assert build_encoder("wav2vec/random").kinds == {"audio": 1024}
    sound = build_encoder("wav2vec:facebook/wav2vec2-base/random", device="cpu")
    clip = Waveform(np.sin(np.arange(8000) / 9).astype(np.float32), 8000)
    item, cost = sound.prepare("audio", clip)
    assert cost == 16000  # a second at the model's rate
    assert np.allclose([item.values.mean(), item.values.std()], [0, 1], atol=1e-3)
    assert sound.encode("audio", [item])[0].shape == (768,)
    assert build_encoder("resnet/random").kinds["image"] == 512
    assert build_encoder("resnet:50/random").kinds["image"] == 2048
    assert build_encoder("clip/random").kinds["image"] == 512


_ELSEWHERE = """
import json, sys
from pathlib import Path
from cache.fingerprints import fingerprint
from pipelines.encoding.encoder import build_encoder
words, memory = json.loads(sys.argv[1]), Path(sys.argv[2])
found = []
for word in words:
    encoder = build_encoder(word, device="cpu", memory=memory)
    found.append({kind: fingerprint(encoder.fields(kind)) for kind in encoder.kinds})
heavy = [m for m in ("torch", "transformers", "timm", "open_clip") if m in sys.modules]
print(json.dumps([heavy, found]))
"""


def test_another_process_has_the_same_fingerprints_and_needs_no_torch(place, tmp_path):
    """Once a home knows an architecture of timm, telling whether a stream is good loads nothing."""
    words = ["resnet/random", "timm:test_vit/random", "codebert/random", "wav2vec/random",
             f"hf:{place('bert')}/random"]  # fmt: skip
    memory, expected = tmp_path / "weights.json", []
    for word in words:
        encoder = build_encoder(word, device="cpu", memory=memory)
        expected.append({kind: fingerprint(encoder.fields(kind)) for kind in encoder.kinds})
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, json.dumps(words), str(memory)],
        capture_output=True,
        text=True,
        check=True,
        env=with_project(PYTHONHASHSEED="7"),
    )
    heavy, found = json.loads(done.stdout)
    assert heavy == []
    assert found == expected
    assert len({json.dumps(one) for one in found}) == len(words)


def test_hashed_tokens_are_of_the_vocabulary_and_those_of_a_piece_are_always_the_same():
    """A text begins and ends as the model's texts do; what is cut keeps its end."""
    tokenizer = HashTokenizer(codebert.ARCHITECTURE)
    text = "def area(radius): return 3.14159 * radius ** 2"
    tokens = tokenizer(text)["input_ids"]
    assert (tokens[0], tokens[-1]) == (0, 2)
    assert all(2 < token < 50265 for token in tokens[1:-1])
    assert len(text) / 6 <= len(tokens) <= len(text)
    cut = tokenizer(text, truncation=True, max_length=8)["input_ids"]
    assert cut == [*tokens[:7], 2]
    assert tokenizer(" fox fox fox")["input_ids"][1:-1] == [tokenizer(" fox")["input_ids"][1]] * 3
    assert tokenizer("a b")["input_ids"] != tokenizer("b a")["input_ids"]


def test_a_folder_that_is_called_random_is_a_folder(place, tmp_path):
    """Its own weights are read, as the path says."""
    folder = tmp_path / "random"
    folder.mkdir()
    for path in place("bert").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert build_encoder(f"hf:{folder}").weights == "pretrained"
    assert build_encoder(f"hf:{folder}/random").weights == "random"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hf/random", "hf:FOLDER/random"),
        ("sentence/random", "sentence:FOLDER/random"),
        ("timm/random", "--encoder timm:NAME/random"),
        ("timm:resnt18/random", "timm cannot build resnt18: .* nearest: resnet18"),
        ("timm:resnet18.nobody/random", "Invalid pretrained tag"),
        ("codebert:large", "codebert/random"),
        ("hf:nobody/nothing/random", r"no config\.json of nobody/nothing: .* a local folder"),
        ("wav2vec:nobody/nothing/random", r"no config\.json of nobody/nothing: .* a local folder"),
        ("pixels/random", "no kind of pixels named 'random'"),
        ("nobody/random", "no encoder named 'nobody'"),
    ],
)
def test_what_cannot_be_random_says_what_can(word, said):
    """A model that nothing describes, or that does not exist, is one error."""
    with pytest.raises(MmfuseError, match=said):
        _ = build_encoder(word).kinds


def test_random_weights_and_given_ones_exclude_each_other(place):
    """Two answers to one question are an error."""
    for word in ("resnet/random", "codebert/random", "hf/random"):
        with pytest.raises(MmfuseError, match="leave one out"):
            build_encoder(word, weights=str(place("bert")))
