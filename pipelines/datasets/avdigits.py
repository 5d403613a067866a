"""Spoken digits paired with handwritten digits of the same class; splits by speaker.

Recordings: Free Spoken Digit Dataset, six speakers, 8 kHz; images: MNIST test set. The pairing is
artificial, so the modalities are independent given the class, as in AV-MNIST. No speaker is in two
splits; `--split split_official` is the recordings' own, easier split, with speakers shared.
"""

from pathlib import Path

import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import Modality, Task
from pipelines.data import splits
from pipelines.data.dataset import Dataset

NEEDS_DATA = True
SOURCE = (
    "github.com/Jakobovski/free-spoken-digit-dataset paired with MNIST: a folder with "
    "manifest.csv (id, image, audio, label, split, speaker), images.zip and audio.zip"
)
LOOKS_FOR = ("manifest.csv",)
LICENCE = "recordings CC BY-SA 4.0 (Free Spoken Digit Dataset), pictures CC BY-SA 3.0 (MNIST)"

COLUMNS = ("id", "image", "audio", "label", "speaker")


def build(root: Path, *, split: str = "split") -> Dataset:
    """The rows of `manifest.csv`, in its order.

    Args:
        root: folder of the manifest, the images and the recordings.
        split: column of the manifest to split by.

    Raises:
        MmfuseError: for a column that the manifest lacks.
    """
    path = root / "manifest.csv"
    cells = pl.read_csv(path, infer_schema=False)
    lacking = [column for column in COLUMNS if column not in cells.columns]
    if lacking:
        raise MmfuseError(f"{path} lacks the columns {', '.join(lacking)}")
    if split not in cells.columns:
        raise unknown(f"column in {path}", split, cells.columns)
    names = tuple("0123456789")
    strange = sorted(set(cells["label"].fill_null("").unique()) - set(names))
    if strange:
        raise MmfuseError(f"{path}: label {strange[0]!r} is not a digit")
    table = pl.DataFrame(
        {
            "id": cells["id"],
            "split": splits.parse_split_words(cells[split], str(path)),
            "target": cells["label"].cast(pl.Int64),
            "group": cells["speaker"],
            "image": cells["image"],
            "audio": cells["audio"],
        }
    )
    return Dataset(
        name="avdigits",
        table=table,
        modalities=(Modality("image", "image"), Modality("audio", "audio")),
        task=Task("classes", names),
        root=root,
        licence=LICENCE,
    )
