"""What the encoder contract runs on: inputs of every kind, tiny checkpoints, bare library calls."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bare_calls import (
    Bare,
    bare_clip,
    bare_hashing,
    bare_hog,
    bare_log_mel,
    bare_mfcc,
    bare_pixels,
    bare_sentence,
    bare_sight,
    bare_sound,
    bare_timm,
    bare_words,
)
from checkpoint_makers import MAKERS

from pipelines.encoding.encoder import build_encoder

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
    reference: Bare | None = None
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


CASES = [
    Case("pixels", reference=bare_pixels, others=({"size": 12}, {"word": "pixels:hog"})),
    Case("pixels:hog", reference=bare_hog, others=({"size": 24},)),
    Case("hashing", reference=bare_hashing, others=({"width": 512},)),
    Case("mfcc", reference=bare_mfcc, others=({"rate": 8000}, {"sequence": True})),
    Case("mfcc", {"sequence": True}, reference=bare_log_mel),
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
    Case("clip", {"weights": "clip", "sequence": True}),
    Case("sentence", {"weights": "sentence"}, others=({"weights": "sentencedense"},)),
    Case("sentence", {"weights": "sentencedense"}),
    Case("resnet", {"weights": "resnet"}, others=({"sequence": True}, {"dtype": "bfloat16"})),
    Case("timm", {"weights": "timmsquash"}, others=({"weights": "resnet"},)),
    Case("timm", {"weights": "timmborder"}),
    Case("timm", {"weights": "timmhead"}),
    Case("series", others=({"windows": 4}, {"sequence": True})),
    Case("series", {"sequence": True}),
]

_POOLS = {"codebert": "cls", "bert": "mean", "sharded": "none"}
_LOOKS = {"vit": "cls", "dino": "cls", "siglip": "pooler", "convnext": "map"}


def reference(case: Case, top: Path) -> Bare | None:
    """The bare library call of a case."""
    if "weights" not in case.options:
        return case.reference
    weights = case.options["weights"]
    place = checkpoint(weights, top)
    match case.name:
        case "clip":
            bare = bare_clip(place)
        case "resnet" | "timm":
            bare = bare_timm(place)
        case "sentence":
            bare = bare_sentence(place, dense=weights == "sentencedense")
        case _ if weights in ("wav2vec", "wav2vecgroup", "whisper"):
            bare = bare_sound(place)
        case _:
            words = bare_words(place, _POOLS.get(weights) or _POOLS.get(case.name, "mean"))
            sight = bare_sight(place, _LOOKS.get(weights, ""))
            bare = lambda kind, one: (sight if kind == "image" else words)(kind, one)  # noqa: E731
    if case.name == "clip" and case.options.get("sequence"):
        return lambda kind, payload: bare(kind, payload)[None]
    return bare
