"""mmfuse cache export, import, pack, unpack: features to and from files."""

from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments, console, memory

Words = list[str] | None
HDF5 = (".h5", ".hdf5")


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The .h5 file to write.")],
    dataset: arguments.Dataset = None,
    features: arguments.Features = None,
) -> None:
    """Write streams into one HDF5 file. With ids, splits and targets."""
    asked = arguments.settings(context)
    arguments.check_output("export to", file, HDF5)
    name = arguments.one(arguments.stored(asked, dataset))
    streams = arguments.features(asked, [name], features)
    store = mmfuse.FeatureStore(asked.layout, name)
    found = mmfuse.export_hdf5(store, file, streams, track=console.track)
    arguments.done(asked, [(name, i.key.label, i.rows) for i in found], file, "mmfuse cache import")


def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(help=".h5 file of export, or .npy .npz .parquet .safetensors .pkl .h5."),
    ],
    stream: Annotated[
        str | None,
        typer.Option(help="Name of the stream, ENCODER/MODALITY; not for files of export."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the rows; default: that of the last extract.")
    ] = None,
    target: arguments.Target = None,
    id_: arguments.Ids = None,
    split: arguments.Split = None,
    name: arguments.Name = None,
    kind: Annotated[str | None, typer.Option(help="Kind of a new modality: image, text, …")] = None,
    array: Annotated[str | None, typer.Option(help="Name of the array in the file.")] = None,
    weights: Annotated[
        str, typer.Option(help="Weights of its encoder: pretrained, weight-free or random.")
    ] = "pretrained",
) -> None:
    """Import vectors from a file as a stream. Rows are aligned by id."""
    asked = arguments.settings(context)
    if stream is None:
        if file.suffix not in HDF5:
            raise mmfuse.MmfuseError(f"say what {file} holds: --stream ENCODER/MODALITY")
        own, infos = mmfuse.import_hdf5(asked.layout, file, dataset, track=console.track)
        memory.remember(asked.home, "extract", {"dataset": own, "names": [own]})
        rows = [(own, i.key.label, i.rows) for i in infos]
        arguments.done(asked, rows, asked.home, "mmfuse train --method concat")
        return
    options = arguments.own_data(context)
    own, samples = arguments.rows_of(asked, arguments.dataset(asked, dataset), options)
    encoder, _, modality = stream.partition("/")
    if not (encoder and modality):
        raise mmfuse.MmfuseError(
            f"--stream {stream} must be ENCODER/MODALITY: what made the vectors, and of what"
        )
    known = arguments.one_of("kind", kind, mmfuse.KINDS)
    made = arguments.one_of("weights", weights, ("pretrained", "weight-free", "random"))
    source = mmfuse.ImportSource(file, encoder, modality, known, array, made, id=options.id)
    store = mmfuse.FeatureStore(asked.layout, own)
    found = mmfuse.import_arrays(store, samples, source, track=console.track)
    memory.remember(asked.home, "extract", {"dataset": own, "names": [own]})
    rows = [(own, found.info.key.label, found.info.rows)]
    arguments.done(asked, rows, asked.home, f"mmfuse train --method concat ({found.summary})")
    if found.failed:
        raise typer.Exit(1)


def pack(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    dataset: Annotated[
        str | None, typer.Option(help="Dataset or group; default: that of the last extract.")
    ] = None,
    features: arguments.Features = None,
    licence: Annotated[str, typer.Option(help="Licence note to store in the file.")] = "",
) -> None:
    """Write features into one file to share. With ids, splits and targets, without raw data."""
    asked = arguments.settings(context)
    arguments.check_output("pack to", file)
    names = arguments.stored(asked, dataset)
    notes = dict.fromkeys(names, licence)
    streams = arguments.features(asked, names, features)
    done = mmfuse.pack(
        asked.layout, file, names, licences=notes, words=streams, track=console.track
    )
    rows = [(name, i.key.label, i.rows) for name, found in done.streams.items() for i in found]
    arguments.done(asked, rows, file, f"mmfuse cache unpack {file.name}, on the other machine")


def unpack(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A file made by pack.")]
) -> None:
    """Import every stream of a pack. It is checked before anything is written."""
    asked = arguments.settings(context)
    done = mmfuse.unpack(asked.layout, file, track=console.track)
    rows = [(name, i.key.label, i.rows) for name, found in done.streams.items() for i in found]
    names = list(done.streams)
    memory.remember(asked.home, "extract", {"dataset": names[0], "names": names[:1]})
    arguments.done(asked, rows, asked.home, "mmfuse train --method clarga")
