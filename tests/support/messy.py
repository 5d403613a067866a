"""Data as people have it, small: a spreadsheet's export, a phone's photos, a hub's Parquet."""

import io
import random
from pathlib import Path

import datasets
import openpyxl
import pillow_heif
import polars as pl
from PIL import Image, ImageDraw

GOOD = ("schnell geliefert", "sehr zufrieden", "gerne wieder", "alles bestens")
BAD = ("kam beschädigt an", "nie wieder", "viel zu teuer", "niemand antwortet")


def spreadsheet(folder: Path) -> None:
    """`Umfrage.xlsx` with a title above its header, and `neu.xlsx` with two rows to predict."""
    chance = random.Random(0)
    (folder / "fotos").mkdir()
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Antworten"
    sheet.append(["Kundenumfrage 2024, Export vom 01.05.2024"])
    sheet.append([])
    header = ["Nr.", "Alter", "Umsatz", "Kunde seit", "Foto", "Kommentar / Notiz", "Urteil"]
    sheet.append(header)
    for number in range(1, 81):
        good = number % 2 == 0
        colour = (
            (60, 140 + chance.randrange(60), 60) if good else (170, 60 + chance.randrange(60), 60)
        )
        Image.new("RGB", (24, 24), colour).save(folder / "fotos" / f"{number:03d}.jpg")
        age = "k. A." if number % 13 == 0 else 20 + chance.randrange(50)
        spent = (
            f"{chance.randrange(1, 4)}.{chance.randrange(1000):03d},{chance.randrange(100):02d} €"
        )
        since = f"{chance.randrange(1, 28):02d}.{chance.randrange(1, 13):02d}.{2015 + number % 9}"
        photo = None if number % 10 == 7 else f"fotos\\{number:03d}.jpg"
        words = f"{chance.choice(GOOD if good else BAD)}, Bestellung {chance.randrange(10**6)}"
        sheet.append([number, age, spent, since, photo, words, "gut" if good else "schlecht"])
    sheet.append([])
    sheet.append(["Summe", None, "161.234,50 €"])
    book.create_sheet("Hinweise").append(["vertraulich"])
    book.save(folder / "Umfrage.xlsx")
    new = openpyxl.Workbook()
    new.active.append(header[:-1])
    new.active.append([81, 33, "2.100,00 €", "01.04.2024", None, "gerne wieder, Bestellung 7"])
    new.active.append([82, "?", "1.900,00 €", "02.04.2024", None, "nie wieder, Bestellung 8"])
    new.save(folder / "neu.xlsx")


def photo(shape: str, chance: random.Random) -> Image.Image:
    """A dark disc or a dark bar on a light ground, higher than wide."""
    image = Image.new("RGB", (48, 64), (200 + chance.randrange(50),) * 3)
    x, y = 12 + chance.randrange(12), 16 + chance.randrange(20)
    box = (x, y, x + 18, y + 18) if shape == "disc" else (x + 6, y - 14, x + 12, y + 26)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "disc" else draw.rectangle)(box, fill=(chance.randrange(80),) * 3)
    return image


def phone(folder: Path) -> None:
    """`photos/disc`, `photos/bar`: HEIC, JPEG, some lying on their side, and other files."""
    chance = random.Random(1)
    pillow_heif.register_heif_opener()
    for number in range(60):
        shape = ("disc", "bar")[number % 2]
        place = folder / "photos" / shape
        place.mkdir(parents=True, exist_ok=True)
        image, name = photo(shape, chance), f"IMG_{number:04d}"
        if number % 3 == 0:
            image.save(place / f"{name}.HEIC", quality=90)
            continue
        exif = Image.Exif()
        if number % 3 == 1:  # held upright: stored lying, turned by the viewer
            image = image.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6
        image.save(place / f"{name}.JPG", exif=exif)
    (folder / "photos" / "disc" / "IMG_0003.AAE").write_text("<plist/>")
    (folder / "photos" / "bar" / ".DS_Store").write_bytes(b"\0")
    (folder / "photos" / "Thumbs.db").write_bytes(b"\0")
    photo("disc", chance).save(folder / "new.heic")


def hub(folder: Path) -> None:
    """`captions/data/*.parquet` as `datasets` uploads them, and `new.jsonl` to predict."""
    chance = random.Random(2)
    (folder / "captions" / "data").mkdir(parents=True)
    (folder / "captions" / "README.md").write_text("---\nlicense: mit\n---\n")
    number, rows_of = 0, {"train-00000-of-00002": 30, "train-00001-of-00002": 30}
    for shard, rows in (rows_of | {"validation-0-of-1": 10, "test-0-of-1": 20}).items():
        samples: dict[str, list[object]] = {"image": [], "caption": [], "label": []}
        for _ in range(rows):
            shape, buffer = ("disc", "bar")[number % 2], io.BytesIO()
            photo(shape, chance).save(buffer, ("PNG", "JPEG", "WEBP")[number % 3])
            samples["image"].append({"bytes": buffer.getvalue(), "path": f"{number}"})
            words = {"disc": ("a round spot", "one dot"), "bar": ("a long stroke", "one line")}[
                shape
            ]
            samples["caption"].append(
                f"{chance.choice(words)} on paper, no. {chance.randrange(10**6)}"
            )
            samples["label"].append(number % 2)
            number += 1
        made = datasets.Dataset.from_dict(samples)
        made = made.cast_column("image", datasets.Image(decode=False))
        made = made.cast_column("label", datasets.ClassLabel(names=["disc", "bar"]))
        made.to_parquet(folder / "captions" / "data" / f"{shard}.parquet")
    pl.DataFrame({"caption": ["one dot on paper", "one line on paper"]}).write_ndjson(
        folder / "new.jsonl"
    )


def make(folder: Path) -> None:
    """All of them, in one folder."""
    spreadsheet(folder)
    phone(folder)
    hub(folder)
