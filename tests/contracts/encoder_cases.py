"""What the encoder contract runs on: inputs of every kind, tiny checkpoints, bare library calls."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_makers import MAKERS
from PIL import Image

from pipelines.encoding import Waveform, build_encoder

Vector = np.ndarray


@dataclass(frozen=True)
class Case:
    """One way to build an encoder.

    Attributes:
        word: as the command line has it.
        options: of `build_encoder`; `weights` names a checkpoint that `checkpoint` makes.
        reference: (kind, payload) → the vector by the bare library, or None where the encoder is
            a formula of ours that has its own test.
        others: options that must change the fingerprint of the first kind.
    """

    word: str
    options: dict[str, Any] = field(default_factory=dict)
    reference: Callable[[str, Any], Vector] | None = None
    others: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The module's name."""
        return self.word.partition(":")[0]

    @property
    def label(self) -> str:
        """A name for the report."""
        words = [f"{k}={v}" for k, v in self.options.items()]
        return ",".join([self.word, *words])


def built(case: Case, top: Path, **more: Any) -> Any:
    """The encoder of a case, its checkpoint below `top`."""
    options = {**case.options, **more}
    word = options.pop("word", case.word)
    if "weights" in options:
        options["weights"] = str(checkpoint(options["weights"], top))
    return build_encoder(word, **options)


def checkpoint(name: str, top: Path) -> Path:
    """A tiny checkpoint in its real format on disk, made once a test session."""
    place = top / name
    if not place.exists():
        MAKERS[name](place)
    return place


def payloads(kind: str) -> list[Any]:
    """Inputs of a kind that differ in size, length and content."""
    return {
        "image": _images, "text": _texts, "code": _texts, "audio": _sounds, "tabular": _records,
    }[kind]()  # fmt: skip


def _images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(40, 56), (56, 40), (32, 32), (1, 1), (7, 300), (33, 47), (128, 96)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), np.uint8)) for s in sizes]


def _texts() -> list[str]:
    words = ["the", "quick", "fox,", "JUMPED", "over", "def", "lazy(dog):", "return", "42", "猫"]
    random = np.random.default_rng(1)
    return [" ".join(random.choice(words, length)) for length in (3, 1, 40, 7, 200, 12)]


def _sounds() -> list[Waveform]:
    random = np.random.default_rng(2)
    shapes = [(16000, 16000), (8000, 4100), (22050, 22050), (16000, 300), (44100, 30000)]
    return [
        Waveform(random.normal(0, 0.1, length).astype(np.float32), rate) for rate, length in shapes
    ]


def _records() -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    return [
        {
            "height": None if i % 5 == 0 else float(random.normal(170, 10)),
            "colour": str(random.choice(["red", "green", "blue"])),
            "born": f"{1950 + i}-0{1 + i % 9}-11",
        }
        for i in range(12)
    ]


# Bare library calls -----------------------------------------------------------------------------


def _bare_pixels(kind: str, picture: Image.Image) -> Vector:
    grey = np.asarray(picture.convert("L").resize((16, 16), Image.Resampling.BICUBIC), float)
    return ((grey - grey.mean()) / max(grey.std(), 1)).ravel()


def _bare_hog(kind: str, picture: Image.Image) -> Vector:
    from skimage.feature import hog

    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BICUBIC))
    return hog(grey, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys")


def _bare_hashing(kind: str, text: str) -> Vector:
    from sklearn.feature_extraction.text import HashingVectorizer

    halves = []
    for options in (
        {"analyzer": "char_wb", "ngram_range": (2, 4)},
        {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    ):
        counts = HashingVectorizer(n_features=512, norm=None, **options).transform([text])
        damped = np.sign(counts.toarray()[0]) * np.log1p(abs(counts.toarray()[0]))
        halves.append(damped / np.linalg.norm(damped) / np.sqrt(2))
    return np.concatenate(halves)


def _bare_log_mel(kind: str, sound: Waveform) -> Vector:
    import librosa

    y = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=16000)
    y = np.pad(y, (0, max(512 - len(y), 0)))
    options = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 64}
    mel = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=16000, **options), top_db=80)
    return np.concatenate([mel, librosa.feature.mfcc(S=mel, n_mfcc=20)]).T


def _bare_mfcc(kind: str, sound: Waveform) -> Vector:
    frames = _bare_log_mel(kind, sound)  # (T, 84)
    cepstrum, count = frames[:, 64:], len(frames)
    change = np.mean([abs(b - a) for a, b in pairwise(cepstrum)], axis=0)
    edges = [round(count * part / 3) for part in range(4)]
    parts = [cepstrum[a : max(b, a + 1)].mean(0) for a, b in pairwise(edges)]
    return np.concatenate([frames.mean(0), frames.std(0), change, *parts])


@cache
def _open_clip(folder: str) -> tuple[Any, Any, Any]:
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


@cache
def _transformers(folder: str) -> tuple[Any, Any]:
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    if any(word in str(type(model)) for word in ("Wav2Vec2", "Whisper")):
        return model, transformers.AutoFeatureExtractor.from_pretrained(folder)
    if (Path(folder) / "tokenizer.json").is_file():
        return model, transformers.AutoTokenizer.from_pretrained(folder)
    return model, None


def bare_words(folder: Path, pool: str) -> Callable[[str, Any], Vector]:
    """Transformers' own way from a text to its vector, one text at a time."""

    def encode(kind: str, text: str) -> Vector:
        import torch

        model, tokenizer = _transformers(str(folder))
        given = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        part = getattr(model, "text_model", model)
        with torch.inference_mode():
            states = part(**given).last_hidden_state[0]
        return {"cls": states[0], "mean": states.mean(0), "none": states}[pool].numpy()

    return encode


def bare_sound(folder: Path) -> Callable[[str, Any], Vector]:
    """Transformers' own way from a clip to the mean of its states, one clip at a time."""

    def encode(kind: str, sound: Waveform) -> Vector:
        import soxr
        import torch

        model, extractor = _transformers(str(folder))
        samples = soxr.resample(sound.samples, sound.rate, 16000)
        if "Wav2Vec2" in str(type(model)):
            samples = np.pad(samples, (0, max(205 - len(samples), 0)))
        given = extractor(samples, sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            if hasattr(model, "encoder") and hasattr(model, "decoder"):
                states = model.encoder(given["input_features"]).last_hidden_state[0]
                states = states[: -(-len(samples[:32000]) // 320)]
            else:
                states = model(given["input_values"]).last_hidden_state[0]
        return states.mean(0).numpy()

    return encode


def bare_sight(folder: Path, pool: str) -> Callable[[str, Any], Vector]:
    """Transformers' own way from a picture to its vector."""

    def encode(kind: str, picture: Image.Image) -> Vector:
        import torch
        import transformers

        model, _ = _transformers(str(folder))
        processor = transformers.AutoImageProcessor.from_pretrained(str(folder))
        given = processor(images=picture, return_tensors="pt")
        with torch.inference_mode():
            out = getattr(model, "vision_model", model)(**given)
        if pool == "map":
            return out.last_hidden_state[0].mean(dim=(1, 2)).numpy()
        return (out.pooler_output if pool == "pooler" else out.last_hidden_state[:, 0])[0].numpy()

    return encode


def bare_clip(folder: Path) -> Callable[[str, Any], Vector]:
    """open_clip's own way from a picture or a text to its vector."""

    def encode(kind: str, payload: Any) -> Vector:
        import torch

        model, preprocess, tokenize = _open_clip(str(folder))
        with torch.inference_mode():
            if kind == "text":
                return model.encode_text(tokenize([payload]))[0].numpy()
            return model.encode_image(preprocess(payload)[None])[0].numpy()

    return encode


CASES = [
    Case("pixels", reference=_bare_pixels, others=({"size": 12}, {"word": "pixels:hog"})),
    Case("pixels:hog", reference=_bare_hog, others=({"size": 24},)),
    Case("hashing", reference=_bare_hashing, others=({"width": 512},)),
    Case("mfcc", reference=_bare_mfcc, others=({"rate": 8000}, {"sequence": True})),
    Case("mfcc", {"sequence": True}, reference=_bare_log_mel),
    Case("tabular", others=({"categories": 8}, {"rare": 0.2})),
    Case(
        "clip",
        {"weights": "clip"},
        others=({"weights": "clip2"}, {"weights": "clipsquash"}, {"dtype": "bfloat16"}),
    ),
    Case("clip", {"weights": "clipsquash"}),
    Case("clip", {"weights": "cliplongest"}),
    Case(
        "codebert",
        {"weights": "roberta"},
        others=({"weights": "roberta2"}, {"length": 32}, {"dtype": "bfloat16"}),
    ),
    Case("wav2vec", {"weights": "wav2vec"}, others=({"weights": "wav2vecgroup"},)),
    Case("wav2vec", {"weights": "wav2vecgroup"}),
    Case(
        "hf",
        {"weights": "bert"},
        others=({"pooling": "cls"}, {"pooling": "max"}, {"layer": 1}, {"sequence": True}),
    ),
    Case("hf", {"weights": "sharded", "sequence": True}),
    Case("hf", {"weights": "whisper"}),
    Case("hf", {"weights": "vit"}),
    Case("hf", {"weights": "dino"}),
    Case("hf", {"weights": "siglip"}),
    Case("hf", {"weights": "convnext"}),
]

_POOLS = {"codebert": "cls", "bert": "mean", "sharded": "none"}
_LOOKS = {"vit": "cls", "dino": "cls", "siglip": "pooler", "convnext": "map"}


def reference(case: Case, top: Path) -> Callable[[str, Any], Vector] | None:
    """The bare library call of a case."""
    if "weights" not in case.options:
        return case.reference
    weights = case.options["weights"]
    place = checkpoint(weights, top)
    if case.name == "clip":
        return bare_clip(place)
    if weights in ("wav2vec", "wav2vecgroup", "whisper"):
        return bare_sound(place)
    words = bare_words(place, _POOLS.get(weights) or _POOLS.get(case.name, "mean"))
    if weights not in _LOOKS:
        return words
    sight = bare_sight(place, _LOOKS[weights])
    return lambda kind, payload: (sight if kind == "image" else words)(kind, payload)
