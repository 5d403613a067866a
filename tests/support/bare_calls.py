"""What the libraries themselves give for one input: the references of the encoder contract."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.media.payloads import Waveform

Vector = np.ndarray
Bare = Callable[[str, Any], Vector]


def bare_pixels(kind: str, picture: Image.Image) -> Vector:
    """Pillow's grey and resize, and a plain formula."""
    grey = np.asarray(picture.convert("L").resize((16, 16), Image.Resampling.BICUBIC), float)
    return ((grey - grey.mean()) / max(grey.std(), 1)).ravel()


def bare_hog(kind: str, picture: Image.Image) -> Vector:
    """scikit-image's own HOG."""
    from skimage.feature import hog

    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BICUBIC))
    return hog(grey, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys")


def bare_hashing(kind: str, text: str) -> Vector:
    """scikit-learn's own counts, damped and brought to length √½ each."""
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


def bare_log_mel(kind: str, sound: Waveform) -> Vector:
    """Librosa's log-mel bands and coefficients, (T, 84)."""
    import librosa

    y = librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=16000)
    y = np.pad(y, (0, max(512 - len(y), 0)))
    options = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 64}
    mel = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=16000, **options), top_db=80)
    return np.concatenate([mel, librosa.feature.mfcc(S=mel, n_mfcc=20)]).T


def bare_mfcc(kind: str, sound: Waveform) -> Vector:
    """Statistics of `bare_log_mel` by plain loops."""
    frames = bare_log_mel(kind, sound)  # (T, 84)
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


def bare_words(folder: Path, pool: str) -> Bare:
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


def bare_sound(folder: Path) -> Bare:
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


def bare_sight(folder: Path, pool: str) -> Bare:
    """Transformers' own way from an image to its vector."""

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


def bare_sentence(folder: Path, *, dense: bool) -> Bare:
    """The modules of a sentence-transformers folder, one after the other, by plain torch."""

    def encode(kind: str, text: str) -> Vector:
        import torch
        from safetensors.torch import load_file

        place = folder / "0_Transformer" if dense else folder
        model, tokenizer = _transformers(str(place))
        words = ("find: " if dense else "") + text
        given = tokenizer(words.strip(), truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            states = model(**given).last_hidden_state[0]
        vector = states.mean(0)
        if dense:
            layer = load_file(folder / "2_Dense" / "model.safetensors")
            vector = torch.cat([states[0], vector])
            vector = torch.tanh(layer["linear.weight"] @ vector + layer["linear.bias"])
        return (vector / vector.norm()).numpy()

    return encode


def bare_timm(folder: Path) -> Bare:
    """Timm's own way from an image to its vector."""

    def encode(kind: str, picture: Image.Image) -> Vector:
        import torch

        model, transform = _timm(str(folder))
        with torch.inference_mode():
            if "mobilenet" in str(type(model)).lower():  # before the hidden layer of its head
                return model.forward_features(transform(picture)[None])[0].mean((1, 2)).numpy()
            return model(transform(picture)[None])[0].numpy()

    return encode


@cache
def _timm(folder: str) -> tuple[Any, Any]:
    import timm
    from timm.data import create_transform, resolve_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    return model, create_transform(**resolve_data_config({}, model=model), is_training=False)


def bare_clip(folder: Path) -> Bare:
    """open_clip's own way from an image or a text to its vector."""

    def encode(kind: str, payload: Any) -> Vector:
        import torch

        model, preprocess, tokenize = _open_clip(str(folder))
        with torch.inference_mode():
            if kind == "text":
                return model.encode_text(tokenize([payload]))[0].numpy()
            return model.encode_image(preprocess(payload)[None])[0].numpy()

    return encode
