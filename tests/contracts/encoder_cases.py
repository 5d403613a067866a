"""What the encoder contract runs on: inputs of every kind, tiny checkpoints, bare library calls."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
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
        MAKERS[name.partition("-")[0]](place)
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


# Checkpoints --------------------------------------------------------------------------------------


def _trained(model: Any, seed: int) -> Any:
    """Move every parameter a little, as training would: no normalisation stays at 1 and 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in model.parameters():
            values.add_(0.02 * torch.randn(values.shape, generator=generator))
    return model.eval()


def make_clip(place: Path, *, seed: int = 0, **preprocess: Any) -> None:
    """open_clip's hub folder with a model of two layers."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    torch.manual_seed(seed)
    model = _trained(open_clip.CLIP(**config), seed)
    own = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    whole = {"model_cfg": config, "preprocess_cfg": {**own, **preprocess}}
    place.mkdir(parents=True)
    (place / "open_clip_config.json").write_text(json.dumps(whole))
    tensors = {name: values.contiguous() for name, values in model.state_dict().items()}
    save_file(tensors, place / "open_clip_model.safetensors")


MAKERS: dict[str, Callable[[Path], None]] = {
    "clip": make_clip,
    "clip2": lambda place: make_clip(place, seed=1),
    "clipsquash": lambda place: make_clip(place, resize_mode="squash", interpolation="bilinear"),
    "cliplongest": lambda place: make_clip(place, resize_mode="longest"),
}

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
]


def reference(case: Case, top: Path) -> Callable[[str, Any], Vector] | None:
    """The bare library call of a case."""
    if case.name == "clip":
        return bare_clip(checkpoint(case.options["weights"], top))
    return case.reference
