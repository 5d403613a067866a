"""The contract of a dataset: every module in pipelines/datasets keeps it."""

import inspect
import subprocess
import sys

import pytest

from cache.errors import MmfuseError
from cache.samples import KINDS
from pipelines import catalog
from pipelines.data import sources
from pipelines.media import cells

NAMES = sorted(catalog.entries("datasets"))
WITH_DATA = [n for n in NAMES if catalog.entries("datasets")[n].constants["NEEDS_DATA"]]
PACKS = {"mug": "monsters"}  # where a pack is not called as the dataset
HEAVY = {"torch", "sklearn", "PIL", "soundfile", "librosa", "transformers"}


@pytest.fixture(params=NAMES)
def name(request):
    """Each dataset's name in turn."""
    return request.param


@pytest.fixture
def built(name, pack):
    """What the module builds, from the built-in data or from the pack."""
    module = catalog.find("datasets", name)
    built = module.build(pack(PACKS.get(name, name)) if module.NEEDS_DATA else None)
    return built if isinstance(built, list) else [built]


def test_a_dataset_introduces_itself_unimported(name):
    """A summary, whether data is needed, its source and what to look for stand in the source."""
    entry = catalog.entries("datasets")[name]
    assert len(entry.summary) > 20
    assert isinstance(entry.constants["NEEDS_DATA"], bool)
    assert entry.constants["SOURCE"]
    if entry.constants["NEEDS_DATA"]:
        assert entry.constants["LOOKS_FOR"]


def test_importing_a_dataset_loads_nothing_heavy(name):
    """The module alone brings in neither torch nor a decoder."""
    code = f"import sys, pipelines.datasets.{name}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_build_takes_a_root_and_options_with_defaults(name):
    """`build(root, *, option=default)`: everything but the root may be left out."""
    root, *options = inspect.signature(catalog.find("datasets", name).build).parameters.values()
    assert root.name == "root"
    assert all(o.kind is o.KEYWORD_ONLY and o.default is not o.empty for o in options)


def test_datasets_are_called_after_their_module(name, built):
    """A dataset is called `name`, the members of a group `name/member`."""
    assert built
    for dataset in built:
        assert dataset.name == name or dataset.name.startswith(f"{name}/")


def test_rows_are_whole_and_typed(built):
    """Kinds are known, targets fit the task, and a row has at least one modality."""
    for dataset in built:
        samples = dataset.samples()
        assert len(samples) == len(dataset.table)
        absent = [cells.absent(dataset.table[m.name], m.kind) for m in dataset.modalities]
        assert sum(absent).max() < len(absent)
        assert all(modality.kind in KINDS for modality in dataset.modalities)
        if dataset.task.kind == "classes":
            seen = set(samples.targets[samples.splits == "train"])
            assert seen == set(range(dataset.task.outputs))


def test_cells_can_be_read(built):
    """The first present cells of every modality and split decode."""
    for dataset in built:
        for split in ("train", "val", "test"):
            part = dataset.table.filter(dataset.table["split"] == split)
            for modality in dataset.modalities:
                for cell in part[modality.name].drop_nulls().head(3):
                    assert cells.read(modality.kind, cell, dataset.root) is not None


def test_building_twice_gives_the_same_rows(name, built, pack):
    """Nothing about a dataset depends on the moment or the order of a folder's listing."""
    module = catalog.find("datasets", name)
    again = module.build(pack(PACKS.get(name, name)) if module.NEEDS_DATA else None)
    again = again if isinstance(again, list) else [again]
    assert [d.name for d in built] == [d.name for d in again]
    assert all(a.table.equals(b.table) for a, b in zip(built, again, strict=True))


@pytest.mark.parametrize("name", WITH_DATA)
def test_absent_data_says_where_it_was_looked_for(name, tmp_path):
    """The error names every folder tried, the source, and what works without data."""
    roots = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(MmfuseError) as caught:
        sources.open_dataset(name, roots=roots)
    for words in (*(str(root / name) for root in roots), "source:", "mmfuse demo"):
        assert words in str(caught.value)
