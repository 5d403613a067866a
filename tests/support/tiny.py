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
    """A task as MuG lays it out: three tables, three zips of images, info.json.

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


def own_table(folder: Path, name: str, **changes: object) -> Path:
    """A good table of 30 short texts in three splits and two classes, with changes by column.

    Args:
        folder: where it goes.
        name: of the file.
        changes: column → function of (row number, good cell); None leaves the column out.
    """
    good = {
        "id": lambda row: f"s{row}",
        "review": lambda row: ("dull and slow", "bright and quick")[row % 2] + f" number {row}",
        "verdict": lambda row: ("bad", "good")[row % 2],
        "split": lambda row: ("train", "train", "train", "val", "test")[row // 2 % 5],
    }
    columns = [name for name in good if changes.get(name, "") is not None]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for row in range(30):
            cells = {column: good[column](row) for column in columns}
            for column, change in changes.items():
                if callable(change):
                    cells[column] = change(row, cells[column])
            table.writerow(cells.values())
    return folder / name


def bad_samples(folder: Path) -> Path:
    """A table of 24 images and audio clips; the first ten rows are each damaged in another way.

    Args:
        folder: where `media.csv` and its files go.
    """
    import struct
    import zlib

    import numpy as np
    import soundfile

    chance = random.Random(0)
    for name in ("pictures", "sounds"):
        (folder / name).mkdir(parents=True)
    for row in range(24):
        (folder / f"pictures/{row}.png").write_bytes(picture(row % 2, chance))
        tone = np.sin(np.arange(4000) * (0.2 + 0.3 * (row % 2)))
        # Float WAV files hold the second they were written in: equal clips are copies of one file.
        first = folder / f"sounds/{row % 2}.wav"
        if row < 2:
            soundfile.write(first, tone, 8000, subtype="FLOAT")
        else:
            (folder / f"sounds/{row}.wav").write_bytes(first.read_bytes())

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    whole = (folder / "pictures/0.png").read_bytes()
    (folder / "pictures/0.png").write_bytes(whole[: len(whole) // 2])  # truncated
    (folder / "pictures/1.png").write_text("not a picture\n")  # wrong type
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (folder / "pictures/2.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
    (folder / "pictures/3.png").unlink()  # missing
    (folder / "pictures/4.png").unlink()
    (folder / "pictures/4.png").mkdir()  # a directory
    (folder / "pictures/5.png").write_bytes(b"")  # an empty file
    (folder / "sounds/6.wav").write_bytes(b"")
    soundfile.write(folder / "sounds/7.wav", np.zeros(0), 8000)  # audio of no length
    spoilt = np.full(4000, np.nan, np.float32)
    soundfile.write(folder / "sounds/8.wav", spoilt, 8000, subtype="FLOAT")
    (folder / "sounds/9.wav").write_bytes((folder / "pictures/9.png").read_bytes())  # wrong type
    with (folder / "media.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "picture", "sound", "label", "split"])
        for row in range(24):
            split = ("train", "val", "test")[row // 2 % 3]
            label = ("low", "high")[row % 2]
            table.writerow([f"s{row}", f"pictures/{row}.png", f"sounds/{row}.wav", label, split])
    return folder / "media.csv"


def movies(folder: Path) -> Path:
    """A table of 40 posters and plots in two genres, as docs/own-data.md has it."""
    chance = random.Random(0)
    (folder / "posters").mkdir(parents=True)
    with (folder / "movies.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["title", "poster", "plot", "genre"])
        for row in range(40):
            (folder / f"posters/{row}.png").write_bytes(picture(row % 2, chance))
            plot = ("a storm, a ship and", "a joke, a cake and")[row % 2]
            plot += f" {chance.randrange(100)} people"
            poster = f"posters/{row}.png" if row % 9 else ""
            table.writerow(
                [f"film {row}", poster, f"{plot} {chance.randrange(100)} people", row % 2]
            )
    return folder / "movies.csv"
