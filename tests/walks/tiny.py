"""Small real inputs made on the spot: a task in MuG's layout, a CLIP checkpoint, bad files."""

import csv
import io
import json
import random
import zipfile
from pathlib import Path

KINDS = ("Fire", "Water", "None")  # None is a word, as in the second types of MuG
COLUMNS = ("id", "Image Path", "name", "description", "hp", "size", "secondary_type")


def mug_task(folder: Path, *, rows: tuple[int, int, int] = (24, 9, 12), seed: int = 0) -> Path:
    """A task as MuG lays it out: three tables, three zips of pictures, info.json.

    Args:
        folder: of the task, made with its parents.
        rows: of train, dev and test.
        seed: of everything in it.
    """
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    info = {
        "task": "multiclass",
        "label": "secondary_type",
        "id_col": "id",
        "image_col": "Image Path",
        "text_cols": ["name", "description"],
        "categorical_cols": ["size"],
        "numerical_cols": ["hp"],
        "classes": list(KINDS),
    }
    (folder / "info.json").write_text(json.dumps(info))
    for split, count in zip(("train", "dev", "test"), rows, strict=True):
        with (
            zipfile.ZipFile(folder / f"{split}_images.zip", "w") as pictures,
            (folder / f"{split}.csv").open("w", newline="") as file,
        ):
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for number in range(count):
                kind = number % len(KINDS)
                path = f"{split}_images/{number}.png"
                pictures.writestr(path, picture(kind, chance))
                table.writerow(_row(f"{split}{number}", path, kind, chance))
    return folder


def picture(kind: int, chance: random.Random) -> bytes:
    """A PNG of 24 × 24 noisy pixels that lean towards one colour."""
    from PIL import Image

    pixels = bytes(
        min(255, chance.randrange(160) + (95 if channel == kind else 0))
        for _ in range(24 * 24)
        for channel in range(3)
    )
    encoded = io.BytesIO()
    Image.frombytes("RGB", (24, 24), pixels).save(encoded, "PNG")
    return encoded.getvalue()


def clip_checkpoint(folder: Path) -> Path:
    """A CLIP of two small layers a tower, as open_clip's hub format has it; random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**config)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    stated = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    return folder


def _row(name: str, path: str, kind: int, chance: random.Random) -> list[object]:
    size = chance.choice(("large", "small"))
    words = chance.sample(("old", "calm", "quick", "loud", "odd"), 2)
    hint = chance.choice(("burning", "wet", "plain")) if chance.random() < 0.3 else ""
    told = " ".join([*words, hint or ("burning", "wet", "plain")[kind]])
    hp = chance.randrange(20, 60) + 20 * kind if chance.random() < 0.9 else ""
    return [name, path, f"creature {name}", told, hp, size, KINDS[kind]]
