"""Inputs that fail are named by row id, file and reason, by every command that meets them."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

from mmfuse_cli.main import app

BAD = [("002", "pics/2.png", "truncated"), ("003", "pics/3.png", "wrong-type"),
       ("004", "pics/4.PNG", "missing-file")]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A table with five pictures: one truncated, one a text, one missing; a run on it."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "pics").mkdir()
    for number in range(3):
        picture = tiny.picture(number % 2, random.Random(number))
        (folder / "pics" / f"{number}.png").write_bytes(picture[: 60 if number == 2 else None])
    (folder / "pics" / "3.png").write_text("a text called .png")
    lines = ["id,photo,words,label,split"]
    for row in range(20):
        photo = f"pics/{row}.{'PNG' if row == 4 else 'png'}" if row < 5 else ""
        split = ("train", "train", "train", "val", "test")[row // 2 % 5]
        lines.append(f"{row:03},{photo},{('red', 'blue')[row % 2]} thing {row},{row % 2},{split}")
    (folder / "shop.csv").write_text("\n".join(lines))
    call(folder, "extract shop.csv --name shop --modality photo=image --modality words=text "
         "--target label --encoder pixels,hashing --workers 0", code=1)  # fmt: skip
    call(folder, "train shop --method concat --epochs 1 --seeds 1 --set width=4")
    return folder


def call(folder: Path, words: str, code: int = 0, *, as_json: bool = False) -> str:
    """What a command prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MMFUSE_HOME", "artifacts")
        patch.delenv("COLUMNS", raising=False)
        done = CliRunner().invoke(app, [*(["--json"] if as_json else []), *words.split()])
    assert done.exit_code == code, done.output
    return done.stdout if as_json else done.output


def failed(document: str) -> list[tuple[str, str, str]]:
    """Id, file and first word of the reason in the table of failures."""
    (table,) = (t for t in json.loads(document)["tables"] if t["name"].startswith("failed_"))
    return [(row["id"], row["file"], row["reason"].split(":")[0]) for row in table["rows"]]


def test_extract_and_predict_name_the_same_rows_and_files(shop):
    """Zero-padded ids stay what they are; the second extract, which tries nothing, names them."""
    words = "extract shop.csv --name shop --encoder pixels --target label"
    assert failed(call(shop, words, 1, as_json=True)) == BAD
    assert failed(call(shop, "predict --input shop.csv", 1, as_json=True)) == BAD
    assert re.search(r"002 +pics/2.png +truncated", call(shop, words, 1))


def test_other_data_with_the_same_files_names_its_own_rows(shop):
    """What failed under another name is not tried again, and the rows are those of this table."""
    lines = (shop / "shop.csv").read_text().splitlines()
    (shop / "other.csv").write_text("\n".join([lines[0], *(f"x{line}" for line in lines[1:])]))
    words = "extract other.csv --name other --encoder pixels --target label"
    ours = [(f"x{name}", file, reason) for name, file, reason in BAD]
    assert failed(call(shop, words, 1, as_json=True)) == ours


def test_retries_name_the_reasons_that_there_are(shop):
    """No row failed for a mistyped reason: the line says for which ones rows did."""
    words = "extract shop.csv --name shop --encoder pixels --target label --retry-failed --reason "
    line = "no row failed for trunkated; rows failed for: 1 missing-file, 1 truncated, 1 wrong-type"
    said = call(shop, f"{words}trunkated", 1)
    assert sorted(re.findall(r"\d [\w-]+", line)) == sorted(
        re.findall(r"\d [\w-]+", next(li for li in said.splitlines() if "nothing was tried" in li))
    )
    assert failed(call(shop, f"{words}truncated", 1, as_json=True)) == BAD
    strict = call(shop, f"{words}wrong-type --strict", 2)
    assert "photo of sample 003 (row 3, pics/3.png) cannot be encoded by pixels" in strict


def test_audit_and_report_name_them_too(shop):
    """They count as absent there, which is said with their ids and files."""
    found = json.loads(call(shop, "data audit shop", as_json=True))["tables"][0]["rows"]
    (row,) = [row for row in found if row["check"] == "failed"]
    assert row["about"] == "pixels/photo"
    assert row["finding"] == (
        "3 rows failed and count as absent: 002 (pics/2.png, truncated), "
        "003 (pics/3.png, wrong-type), 004 (pics/4.PNG, missing-file)"
    )
    call(shop, "report")
    page = (shop / "artifacts" / "report.html").read_text(encoding="utf-8")
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page.partition("failed samples of shop")[2])
    rows = [cells[start : start + 5] for start in range(0, 15, 5)]
    assert [tuple(row[1:4]) for row in rows] == BAD


def test_a_folder_of_classes_names_the_files(tmp_path):
    """The id of a row is its path without the ending; the file has it, in the counts as well."""
    for number in range(14):
        folder = tmp_path / "pets" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        picture = tiny.picture(number % 2, random.Random(number))
        (folder / f"{number}.png").write_bytes(picture[: 60 if number < 6 else None])
    shutil.copy(tmp_path / "pets/cats/1.png", tmp_path / "pets/cats/0.jpg")
    said = call(tmp_path, "extract pets --name pets --encoder pixels --workers 0", 1, as_json=True)
    assert failed(said)[:2] == [
        ("cats/0", "cats/0.jpg", "truncated"),
        ("cats/1", "cats/1.png", "truncated"),
    ]
    table = json.loads(said)["tables"][1]
    assert table["notes"] == ["5 of 7 shown; 6 .png, 1 .jpg"]
