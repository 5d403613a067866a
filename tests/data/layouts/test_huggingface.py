"""Datasets of the Hugging Face hub, as the package `datasets` reads them."""

import sys

import datasets
import pytest
from PIL import Image

from cache.errors import MmfuseError
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.media import cells


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What the package keeps lies in the test's own folder, where the test also runs."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    """`hf:org/name` needs `datasets`, which mmfuse does not install by itself."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MmfuseError, match="pip install datasets"):
        open_dataset("hf:org/name", table=TableOptions())


def test_a_dataset_that_cannot_be_had_is_one_error():
    """No such name, or no network: the name is in the message, and nothing is raised but this."""
    with pytest.raises(MmfuseError, match="hf:org/nowhere cannot be loaded"):
        open_dataset("hf:org/nowhere", table=TableOptions())


def test_pictures_and_class_names_are_kept(tmp_path):
    """A folder of images that the package reads as it would read the hub's; split anew."""
    for row in range(40):
        place = tmp_path / "org" / "pets" / "train" / ("cat", "dog")[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (row, 0, 0)).save(place / f"{row}.png")
    (dataset,) = open_dataset("hf:org/pets", table=TableOptions())
    assert (dataset.name, dataset.task.names) == ("org-pets", ("cat", "dog"))
    seen = {cells.read("image", cell, None).getpixel((0, 0))[0] for cell in dataset.table["image"]}
    assert seen == set(range(40))
    assert set(dataset.table["split"]) == {"train", "val", "test"}
