"""mmfuse cache export, import, pack, unpack: features in and out as files."""

from pathlib import Path
from typing import Annotated

import typer

from mmfuse_cli import words

Words = list[str] | None
HDF5 = (".h5", ".hdf5")


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The .h5 file to make.")],
    dataset: Annotated[str | None, typer.Option(help="Which dataset.")] = None,
    features: Annotated[Words, typer.Option(help="Streams; all, if left out.")] = None,
) -> None:
    """Write a dataset's streams into one HDF5 file, with ids, splits and targets."""
    import mmfuse
    from cache.exchange.hdf5 import export_hdf5

    asked = words.settings(context)
    words.check_output("export to", file, HDF5)
    name = words.one(words.stored(asked, dataset))
    found = export_hdf5(mmfuse.FeatureStore(asked.layout, name), file, features or None)
    words.done(asked, [(name, i.key.label, i.rows) for i in found], file, "mmfuse cache import")


def import_(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help=".h5 of export, or .npy .npz .parquet .safetensors .pkl .h5.")
    ],
    stream: Annotated[
        str | None, typer.Option(help="ENCODER/MODALITY to call it; left out for export's files.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Whose rows the vectors are.")] = None,
    target: Annotated[str | None, typer.Option(help="Own data: the column to predict.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Own data: the column of ids.")] = None,
    split: Annotated[str | None, typer.Option(help="Own data: a column, or shares.")] = None,
    name: Annotated[str | None, typer.Option(help="Own data: what to call it.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of a modality that is new: image, …")] = None,
    array: Annotated[str | None, typer.Option(help="Name of the array in the file.")] = None,
    weights: Annotated[
        str, typer.Option(help="What made it: pretrained, weight-free or random.")
    ] = "pretrained",
) -> None:
    """Take up vectors from a file as a stream, aligned by id."""
    import mmfuse
    from cache.exchange import import_arrays
    from cache.exchange.hdf5 import import_hdf5
    from cache.samples import KINDS

    asked = words.settings(context)
    if stream is None:
        if file.suffix not in HDF5:
            raise mmfuse.MmfuseError(f"say what {file} holds: --stream ENCODER/MODALITY")
        own, infos = import_hdf5(asked.layout, file, dataset)
        words.remember(asked.home, "extract", {"dataset": own, "names": [own]})
        rows = [(own, i.key.label, i.rows) for i in infos]
        words.done(asked, rows, asked.home, "mmfuse train --method concat")
        return
    options = mmfuse.TableOptions(target=target, id=id_, split=split, name=name)
    own, samples = words.rows_of(asked, words.dataset(asked, dataset), options)
    encoder, _, modality = stream.partition("/")
    if not (encoder and modality):
        raise mmfuse.MmfuseError(
            f"--stream {stream} must be ENCODER/MODALITY: who made the vectors, and of what"
        )
    known = words.one_of("kind", kind, KINDS)
    made = words.one_of("weights", weights, ("pretrained", "weight-free", "random"))
    source = import_arrays.Source(file, encoder, modality, known, array, made)
    store = mmfuse.FeatureStore(asked.layout, own)
    found = import_arrays.import_arrays(store, samples, source)
    words.remember(asked.home, "extract", {"dataset": own, "names": [own]})
    rows = [(own, found.info.key.label, found.info.rows)]
    words.done(asked, rows, asked.home, f"mmfuse train --method concat ({found.told})")
    if found.failed:
        raise typer.Exit(1)


def pack(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    dataset: Annotated[str | None, typer.Option(help="Which dataset or group.")] = None,
    features: Annotated[Words, typer.Option(help="Streams; all, if left out.")] = None,
    licence: Annotated[str, typer.Option(help="A note that goes with it.")] = "",
) -> None:
    """Put features, ids, splits and targets into one file for a colleague; no raw data."""
    from cache.exchange.pack import pack as write

    asked = words.settings(context)
    words.check_output("pack to", file)
    names = words.stored(asked, dataset)
    notes = dict.fromkeys(names, licence)
    done = write(asked.layout, file, names, licences=notes, words=features or None)
    rows = [(name, i.key.label, i.rows) for name, found in done.streams.items() for i in found]
    words.done(asked, rows, file, f"mmfuse cache unpack {file.name}, where it is wanted")


def unpack(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A file made by pack.")]
) -> None:
    """Take up every stream of a pack, checked before anything is written."""
    from cache.exchange.unpack import unpack as read

    asked = words.settings(context)
    done = read(asked.layout, file)
    rows = [(name, i.key.label, i.rows) for name, found in done.streams.items() for i in found]
    names = list(done.streams)
    words.remember(asked.home, "extract", {"dataset": names[0], "names": names[:1]})
    words.done(asked, rows, asked.home, "mmfuse train --method clarga")
