"""Data as people have it: the same twelve samples in every format and habit of paths.

Whatever the file, each sample has the same picture, the same text, the same numbers, the same
class; what cannot be had is refused with a reason.
"""

import gzip
import io
import json
import shutil

import datasets
import numpy as np
import openpyxl
import polars as pl
import pytest
import soundfile
from PIL import Image

from cache.errors import MmfuseError
from pipelines.data.columns import parse_modality
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.media import cells

COUNT = 24
ENDINGS = ("png", "jpg", "webp", "gif", "bmp", "tiff")  # as a collection from the web has them
TEXTS = [f"à la carte n° {row}, très bon goût" for row in range(COUNT)]
LABELS = [("gut", "schlecht")[row % 2] for row in range(COUNT)]
AGES = [20 + row / 4 for row in range(COUNT)]
NAMES = [f"img/{row:02d}.{ENDINGS[row % 6]}" for row in range(COUNT)]


def grey(row):
    """The grey value of a sample's picture."""
    return 10 * row


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder `img` of one-coloured pictures in six formats."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "img").mkdir()
    for row, name in enumerate(NAMES):
        Image.new("L", (16, 16), grey(row)).convert("RGB").save(folder / name)
    return folder


def table(names=NAMES, **columns):
    """The samples, with paths of pictures."""
    return {"id": [f"s{row}" for row in range(COUNT)], "image": list(names), "text": TEXTS,
            "age": AGES, "label": LABELS, **columns}  # fmt: skip


def as_rows(columns):
    """One object a sample."""
    return pl.DataFrame(columns).to_dicts()


def csv_of(columns, **options):
    """The text of a CSV."""
    return pl.DataFrame(columns).write_csv(**options)


def comma(columns):
    """Ages with a decimal comma."""
    return {**columns, "age": [str(age).replace(".", ",") for age in columns["age"]]}


def workbook(columns, above=()):
    """The bytes of an Excel workbook, with some lines above the header."""
    book = openpyxl.Workbook()
    for line in (*above, list(columns), *zip(*columns.values(), strict=True)):
        book.active.append(line)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def nested(columns):
    """Picture and text inside objects, as interfaces of the web answer."""
    return [
        {"id": row["id"], "media": {"image": {"path": row["image"]}},
         "content": {"text": row["text"]}, "age": row["age"], "label": row["label"]}
        for row in as_rows(columns)
    ]  # fmt: skip


def parquet(columns):
    """The bytes of a Parquet file."""
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def feather(columns):
    """The bytes of an Arrow file."""
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_ipc(buffer)
    return buffer.getvalue()


def inline(folder):
    """Pictures as the bytes of their files, of six formats mixed."""
    return [(folder / name).read_bytes() for name in NAMES]


def hub(folder, **features):
    """The bytes of a Parquet file that `datasets` writes: media inline, classes as numbers."""
    media = [
        {"bytes": data, "path": name} for data, name in zip(inline(folder), NAMES, strict=True)
    ]
    made = datasets.Dataset.from_dict({**table(), "image": media})
    made = made.cast_column("image", datasets.Image(decode=False)).class_encode_column("label")
    buffer = io.BytesIO()
    made.to_parquet(buffer)
    return buffer.getvalue()


FORMATS = {
    "a.csv": lambda _: csv_of(table()).encode(),
    "cp1252.csv": lambda _: csv_of(table()).encode("cp1252"),
    "utf-16.csv": lambda _: csv_of(table()).encode("utf-16"),
    "semicolons.csv": lambda _: csv_of(comma(table()), separator=";").encode("utf-8-sig"),
    "excel-semicolons.csv": lambda _: (
        "sep=;\r\n" + csv_of(comma(table()), separator=";")
    ).encode(),
    "a.tsv": lambda _: csv_of(table(), separator="\t").encode(),
    "a.csv.gz": lambda _: gzip.compress(csv_of(table()).encode()),
    "a.xlsx": lambda _: workbook(table()),
    "titled.xlsx": lambda _: workbook(table(), above=[["Export, 1 May"], []]),
    "a.jsonl": lambda _: pl.DataFrame(table()).write_ndjson().encode(),
    "array.json": lambda _: json.dumps(as_rows(table())).encode(),
    "inside.json": lambda _: json.dumps({"version": 1, "items": as_rows(table())}).encode(),
    "columns.json": lambda _: json.dumps(table()).encode(),
    "nested.json": lambda _: json.dumps(nested(table())).encode(),
    "a.parquet": lambda _: parquet(table()),
    "bytes.parquet": lambda folder: parquet(table(inline(folder))),
    "hub.parquet": hub,
    "a.feather": lambda _: feather(table()),
    "windows.csv": lambda _: csv_of(table([n.replace("/", "\\") for n in NAMES])).encode(),
    "dotted.csv": lambda _: csv_of(table([f".\\{n}".replace("/", "\\") for n in NAMES])).encode(),
    "url.csv": lambda folder: csv_of(table([(folder / n).as_uri() for n in NAMES])).encode(),
    "absolute.csv": lambda folder: csv_of(table([str(folder / n) for n in NAMES])).encode(),
}


def opened(path, **options):
    """The dataset of a file, and what was told."""
    notes = []
    given = {"target": "label", **options}
    (found,) = open_dataset(str(path), table=TableOptions(**given), note=notes.append)
    return found, notes


def check(found):
    """Every sample has its own picture, text, age and class."""
    by_kind = {modality.kind: modality.name for modality in found.modalities}
    assert set(by_kind) == {"image", "text", "tabular"}
    rows = found.table.sort(pl.col("id").str.slice(1).cast(pl.Int64))
    images = [cells.read("image", cell, found.root) for cell in rows[by_kind["image"]]]
    levels = [np.asarray(image).mean() for image in images]
    assert levels == pytest.approx([grey(row) for row in range(COUNT)], abs=2)
    assert rows[by_kind["text"]].to_list() == TEXTS
    assert [record["age"] for record in rows[by_kind["tabular"]]] == AGES
    assert [found.task.names[number] for number in rows["target"]] == LABELS


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_samples(pictures, name):
    """Nothing but the file is given."""
    path = pictures / name
    path.write_bytes(FORMATS[name](pictures))
    check(opened(path)[0])


@pytest.mark.parametrize("style", ["relative", "absolute", "url", "windows"])
def test_paths_may_lie_below_another_folder(pictures, tmp_path, style):
    """A table that was moved away from its pictures, with --root; without it, a reason."""
    names = {
        "relative": NAMES,
        "absolute": [str(pictures / name) for name in NAMES],
        "url": [(pictures / name).as_uri() for name in NAMES],
        "windows": [name.replace("/", "\\") for name in NAMES],
    }[style]
    path = tmp_path / "moved.csv"
    path.write_text(csv_of(table(names)))
    check(opened(path, root=str(pictures))[0])
    with pytest.raises(MmfuseError, match="--root"):
        opened(path)
    if style in ("absolute", "url"):
        check(opened(path, root="/")[0])


def test_a_root_that_is_no_folder_is_refused(pictures):
    """One line, before anything is read."""
    with pytest.raises(MmfuseError, match=r"--root .*nowhere: no such folder"):
        opened(pictures / "a.csv", root=str(pictures / "nowhere"))


def test_urls_of_other_machines_are_not_fetched(tmp_path):
    """Guessed or named, they are refused or left out with the reason; nothing goes out."""
    urls = [f"https://example.org/{name}" for name in NAMES]
    path = tmp_path / "urls.csv"
    path.write_text(csv_of(table(urls)))
    found, notes = opened(path)
    assert {modality.kind for modality in found.modalities} == {"text", "tabular"}
    assert any("image: left out" in note and "download the files first" in note for note in notes)
    with pytest.raises(MmfuseError, match=r"are URLs, such as 'https://example\.org/img/00\.png'"):
        opened(path, modalities=(parse_modality("image=image"),))


def test_sound_of_a_hub_is_sound(tmp_path):
    """Encoded audio of two formats in one Parquet file, one cell empty."""
    buffers = []
    for row in range(COUNT):
        buffer = io.BytesIO()
        tone = np.sin(np.arange(800) * (row + 1) / 40).astype(np.float32)
        soundfile.write(buffer, tone, 8000, format=("WAV", "FLAC", "OGG", "MP3")[row % 4])
        buffers.append({"bytes": buffer.getvalue(), "path": f"{row}.x"})
    frame = pl.DataFrame({"audio": [*buffers[:-1], None], "label": LABELS})
    frame.write_parquet(tmp_path / "a.parquet")
    found, _ = opened(tmp_path / "a.parquet")
    assert [(m.name, m.kind) for m in found.modalities] == [("audio", "audio")]
    assert found.table["audio"].null_count() == 1
    sounds = [cells.read("audio", cell, None) for cell in found.table["audio"].drop_nulls()]
    assert {(len(sound.samples) > 700, sound.rate) for sound in sounds} == {(True, 8000)}


def test_media_that_a_hub_names_instead_of_holding_are_files(pictures):
    """Names and no bytes are paths, also beside cells with bytes; neither is absent."""
    media = [{"bytes": None, "path": name} for name in NAMES]
    path = pictures / "named.parquet"
    pl.DataFrame(table(media)).write_parquet(path)
    check(opened(path)[0])
    mixed = [{"bytes": data, "path": "x.png"} for data in inline(pictures)]
    mixed[3] = {"bytes": None, "path": NAMES[3]}
    mixed[5] = {"bytes": None, "path": None}
    mixed[7] = {"bytes": None, "path": "x.png"}
    pl.DataFrame(table(mixed)).write_parquet(path)
    found, _ = opened(path)
    column = found.table["image"]
    assert column.is_null().arg_true().to_list() == [5]
    for row in (2, 3):
        data = cells.raw("image", column[row], found.root)
        assert data == (pictures / NAMES[row]).read_bytes()
    with pytest.raises(cells.Unreadable, match="missing-file"):
        cells.read("image", column[7], found.root)


def test_a_file_that_has_the_name_of_a_windows_path_is_that_file(tmp_path):
    """On systems where a backslash may be part of a name, the file itself comes first."""
    (tmp_path / "img").mkdir()
    for name, level in (("img\\0.png", 200), ("img/0.png", 100)):
        Image.new("L", (4, 4), level).save(tmp_path / name)
    assert np.asarray(cells.read("image", "img\\0.png", tmp_path)).mean() == 200
    (tmp_path / "img\\0.png").unlink()
    assert np.asarray(cells.read("image", "img\\0.png", tmp_path)).mean() == 100
    for cell in ("..\\x.png", "file:///etc/hostname", "img\\..\\..\\x.png"):
        with pytest.raises(cells.Unreadable, match="outside-root"):
            cells.locate(cell, tmp_path)


def test_unlabelled_rows_get_features_if_asked(pictures):
    """In no split, with no target; every kind of task, and the rest is split as without them."""
    for labels, task in ((LABELS, "classes"), (AGES, "value")):
        given = [None if row % 6 == 5 else label for row, label in enumerate(labels)]
        path = pictures / "unlabelled.csv"
        path.write_text(csv_of(table(label=given)))
        without, notes = opened(path, task=task)
        assert any("4 of 24 rows have no 'label' and are left out" in note for note in notes)
        found, _ = opened(path, task=task, keep_unlabelled=True)
        kept = found.table.filter(pl.col("split") == "")
        assert kept["id"].to_list() == ["s5", "s11", "s17", "s23"]
        assert kept["target"].null_count() == 4
        rest = found.table.filter(pl.col("split") != "")
        assert rest.select("id", "split", "target").equals(
            without.table.select("id", "split", "target")
        )
        targets = found.samples().targets[found.samples().splits == ""]
        assert np.isnan(targets).all() if task == "value" else (targets == -1).all()


def test_the_same_pictures_are_not_encoded_again_under_another_path(pictures, tmp_path):
    """Rows are known by the bytes of their files, however the cell names them."""
    shutil.copytree(pictures / "img", tmp_path / "img")
    for cell in (NAMES[0], NAMES[0].replace("/", "\\"), str(tmp_path / NAMES[0]),
                 (tmp_path / NAMES[0]).as_uri()):  # fmt: skip
        assert cells.raw("image", cell, tmp_path) == (pictures / NAMES[0]).read_bytes()
