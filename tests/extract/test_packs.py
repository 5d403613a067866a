"""Every encoder on the real data packs that have its kinds; weights are tiny ones."""

import pytest
from checkpoint_makers import MAKERS

from cache.layout import Home
from pipelines import catalog
from pipelines.data.columns import parse_modality
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions
from pipelines.encoding.encoder import build_encoder
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions

INPUTS = 16  # of each stream
PLAIN = ("pixels", "pixels:hog", "hashing", "mfcc", "tabular")
WEIGHTS = {  # encoder → checkpoints in their real format, of random weights
    "clip": ("clip",),
    "codebert": ("roberta",),
    "hf": ("bert", "vit", "siglip", "whisper"),
    "resnet": ("resnet",),
    "sentence": ("sentence",),
    "timm": ("timmsquash",),
    "wav2vec": ("wav2vec", "wav2vecgroup"),
}


def avdigits(pack):
    """Images and audio in zips."""
    return open_dataset("avdigits", roots=(pack("avdigits").parent,))


def monsters(pack, tmp_path):
    """Two tasks in MuG's layout: image, text, table."""
    place = tmp_path / "data"
    place.mkdir()
    (place / "mug").symlink_to(pack("monsters"))
    return open_dataset("mug", roots=(place,))


def algorithms(pack):
    """Code, text and counts in a parquet file."""
    words = ("code=code", "text=text", "counts=tabular:n_lines,n_calls")
    own = TableOptions(
        modalities=tuple(parse_modality(word) for word in words),
        target="label",
        split="split",
        name="topics",
    )
    return open_dataset(str(pack("algorithms") / "algos.parquet"), roots=(), table=own)


def transcripts(pack):
    """What people said, in a CSV."""
    own = TableOptions(
        modalities=(parse_modality("text=text"),), target="label", task="classes", split="split",
        group="video_id", name="mosi",
    )  # fmt: skip
    return open_dataset(str(pack("mosi_features") / "utterances.csv"), roots=(), table=own)


def encoders(place):
    """Word and encoder, one of each plain one and one a checkpoint."""
    for word in PLAIN:
        yield word, build_encoder(word)
    for name, checkpoints in WEIGHTS.items():
        for checkpoint in checkpoints:
            MAKERS[checkpoint](place / checkpoint)
            yield (
                f"{name} {checkpoint}",
                build_encoder(name, weights=str(place / checkpoint), device="cpu"),
            )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")  # making checkpoints warns of their odd sizes
@pytest.mark.parametrize("opened", [avdigits, monsters, algorithms, transcripts])
def test_every_encoder_that_serves_a_packs_kinds_runs_on_it(opened, pack, tmp_path):
    """No input fails, every stream has vectors, and each kind's encoders all ran."""
    datasets = opened(pack, tmp_path) if opened is monsters else opened(pack)
    home, options = Home(tmp_path / "artifacts"), ExtractOptions(workers=0, limit=INPUTS)
    ran, kinds = set(), {m.kind for dataset in datasets for m in dataset.modalities}
    for word, encoder in encoders(tmp_path / "checkpoints"):
        if not kinds & set(encoder.kinds):
            continue
        for dataset in datasets:
            for report in extract(dataset, [encoder], home=home, options=options):
                assert report.failed == {}, (word, report.key.label)
                assert report.new == INPUTS, (word, report.key.label)
                ran.add(word.partition(" ")[0].partition(":")[0])
    entries = catalog.entries("encoders")
    assert ran >= {name for name, entry in entries.items() if kinds & set(entry.constants["KINDS"])}
