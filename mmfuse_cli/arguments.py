"""Arguments of commands: parsing, checks, and defaults remembered from the last commands."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, cast

import typer

import mmfuse
from mmfuse_cli import console
from mmfuse_cli.memory import encoder_name, remembered

_OPTIONS = {"monitor": "select_metric"}  # settings whose option has another name
_ANYWHERE = {"--home": 1, "--data": 1, "--json": 0}  # global options → number of values

# Options that several commands have, with one help text each.
Dataset = Annotated[str | None, typer.Option(help="Dataset; default: that of the last extract.")]
Named = Annotated[
    str | None, typer.Argument(metavar="DATASET", help="The dataset; the same as --dataset.")
]
NewDataset = Annotated[
    str | None, typer.Option(help="NAME, NAME/TASK, a table's file, or a folder of classes.")
]
Features = Annotated[
    list[str] | None,
    typer.Option(help="Streams such as clip/image,mfcc; repeatable; default: all."),
]
Runs = Annotated[
    list[str] | None,
    typer.Option(help="Run id or prefix; repeatable; default: runs of the last train."),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Local weights: folder, or .safetensors or .pth of the named model."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Modality = Annotated[
    list[str] | None,
    typer.Option(help="Own data: NAME=KIND or NAME=KIND:COLUMN,…; repeatable."),
]
Target = Annotated[str | None, typer.Option(help="Own data: column to predict.")]
TaskKind = Annotated[
    str | None,
    typer.Option(help="Own data: classes, labels or value; default: from the target."),
]
Ids = Annotated[str | None, typer.Option("--id", help="Own data: column of ids.")]
Split = Annotated[
    str | None, typer.Option(help="Own data: column of splits, or shares such as 0.8/0.1/0.1.")
]
Group = Annotated[
    str | None,
    typer.Option(help="Own data: column of groups; rows of a group stay in one split."),
]
Decimal = Annotated[
    str | None,
    typer.Option(help="Own data: decimal mark of numbers, . or ,; default: by all cells."),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="Own data: encoding of the text file, such as cp1252; default: by its bytes."
    ),
]
Sheet = Annotated[
    str | None, typer.Option(help="Own data: sheet of a workbook; default: the first with a table.")
]
Root = Annotated[
    str | None,
    typer.Option(help="Own data: folder that paths are relative to; default: the table's."),
]
Name = Annotated[str | None, typer.Option(help="Own data: name of the dataset.")]


@dataclass(frozen=True)
class Settings:
    """Global options.

    Attributes:
        home: folder of features and runs.
        roots: folders that are searched for raw data, in order.
        json: results as one JSON document instead of tables.
    """

    home: Path
    roots: tuple[Path, ...]
    json: bool

    @property
    def layout(self) -> "mmfuse.Home":
        """The home as the library's type."""
        return mmfuse.Home(self.home)


def settings(context: typer.Context) -> Settings:
    """Global options of this call, stored by the app's callback."""
    return cast("Settings", context.find_root().obj)


def data_roots(data: Path | None) -> tuple[Path, ...]:
    """Folders of raw data: --data, then $MMFUSE_DATA, then ./data, without duplicates."""
    words = [data, os.environ.get("MMFUSE_DATA"), "data"]
    return tuple(dict.fromkeys(Path(word) for word in words if word))


def either(named: str | None, typed: str | None) -> str | None:
    """The dataset given as an argument or by --dataset; None where neither is.

    Raises:
        MmfuseError: where they differ.
    """
    if named is not None and typed not in (None, named):
        raise mmfuse.MmfuseError(f"two datasets: {named} and --dataset {typed}; give one of them")
    return typed if named is None else named


def dataset(asked: Settings, typed: str | None) -> str:
    """The dataset given, or that of the last successful extract.

    Raises:
        MmfuseError: where none is given and none is remembered.
    """
    if typed is not None:
        return typed
    word = remembered(asked.home, "extract").get("dataset")
    if not isinstance(word, str):
        raise mmfuse.MmfuseError(
            f"say which: --dataset NAME (no extract is remembered in {asked.home})"
        )
    console.note(f"no --dataset: {word}, as the last extract")
    return word


def stored(asked: Settings, typed: str | None) -> list[str]:
    """Names of the datasets with features that a word means: one, or those of a group.

    Raises:
        MmfuseError: where there are none, with the extract command.
    """
    word = dataset(asked, typed)
    there = asked.layout.datasets()
    names = [name for name in there if name == word or name.startswith(f"{word}/")]
    if names:
        return names
    if remembered(asked.home, "extract").get("dataset") == word:
        last = remembered(asked.home, "extract").get("names")
        names = [name for name in last if name in there] if isinstance(last, list) else []
    names = names or [name for name in there if name == mmfuse.store_name(Path(word))]
    known = {*there, *mmfuse.catalog.entries("datasets")}
    if not names and word.partition("/")[0] not in known and "." not in word:
        raise mmfuse.unknown("dataset", word, known)
    if not names:
        command = f"mmfuse extract --dataset {word} --encoder ENCODER"
        raise mmfuse.MmfuseError(f"no features of {word} in {asked.home}; run: {command}")
    return names


def runs(
    asked: Settings, typed: Sequence[str] | None, dataset: str | None = None
) -> "list[mmfuse.RunRecord]":
    """The runs given, or those of the last train, or the best of the last sweep.

    Args:
        asked: the global options.
        typed: words of `--run`: ids, or prefixes of ids.
        dataset: whose runs are meant where none is given.

    Raises:
        MmfuseError: for a run that is unknown or of another dataset.
    """
    if typed:
        found = [mmfuse.load_run(asked.layout, word) for word in words(typed)]
        for run in found:
            if dataset is not None and not is_of(run, dataset):
                raise mmfuse.MmfuseError(f"the run {run.id} is of {run.dataset}, not of {dataset}")
        return found
    names = None if dataset is None else datasets_with_runs(asked, dataset)
    found = mmfuse.latest_group(asked.layout, names)
    source, swept = "train", remembered(asked.home, "sweep")
    best = swept.get("runs")
    if swept.get("group") == found[0].group and isinstance(best, list):
        chosen = [run for run in found if run.id in best]
        source, found = ("sweep's best", chosen) if chosen else (source, found)
    console.note(f"no --run: {', '.join(run.id for run in found)}, as the last {source}")
    return found


def is_of(run: "mmfuse.RunRecord", dataset: str) -> bool:
    """Whether a run is of a dataset, or of one of a group."""
    return run.dataset == dataset or run.dataset.startswith(f"{dataset}/")


def datasets_with_runs(asked: Settings, dataset: str) -> list[str]:
    """Names of the datasets with runs that a word means: one, or those of a group.

    Raises:
        MmfuseError: where there are none.
    """
    found = mmfuse.list_runs(asked.layout)
    names = sorted({run.dataset for run in found if is_of(run, dataset)})
    if not names:
        raise mmfuse.unknown("dataset with runs", dataset, {run.dataset for run in found})
    return names


def features(
    asked: Settings, names: Sequence[str], typed: Sequence[str] | None
) -> list[str] | None:
    """The words of `--features`; None where none is given.

    Raises:
        MmfuseError: for a word that begins with no encoder and with no stream of the datasets.
    """
    if not typed:
        return None
    found = words(typed)
    known = set(mmfuse.catalog.entries("encoders"))
    for name in names:
        for info in mmfuse.FeatureStore(asked.layout, name).streams():
            known |= {info.key.encoder, info.key.label.partition("/")[0]}
    for word in found:
        if word.partition("/")[0] not in known:
            raise mmfuse.unknown("encoder", word.partition("/")[0], known)
    return found


def one(names: Sequence[str]) -> str:
    """The only one of some dataset names.

    Raises:
        MmfuseError: where there are several.
    """
    if len(names) > 1:
        raise mmfuse.MmfuseError(f"name one of them: --dataset {' or '.join(names)}")
    return names[0]


def own_data(context: typer.Context) -> "mmfuse.TableOptions":
    """The options of a command on how to read own data.

    Raises:
        MmfuseError: for a modality, task or decimal mark that is none.
    """
    typed = dict(context.params)
    modalities = tuple(mmfuse.parse_modality(word) for word in typed.pop("modality", None) or ())
    one_of("task", typed.get("task"), ("classes", "labels", "value"))
    one_of("decimal mark", typed.get("decimal"), (".", ","))
    known = {field.name for field in fields(mmfuse.TableOptions)}
    given = {name.rstrip("_"): value for name, value in typed.items()}
    own = {name: value for name, value in given.items() if name in known}
    return mmfuse.TableOptions(modalities=modalities, **own)


def rows_of(
    asked: Settings, word: str, options: "mmfuse.TableOptions"
) -> "tuple[str, mmfuse.Samples]":
    """Name and rows of a dataset, from its features or else from its raw data."""
    if word in asked.layout.datasets():
        store = mmfuse.FeatureStore(asked.layout, word)
        streams = [info for info in store.streams() if info.complete]
        if streams:
            return word, store.samples(streams[0])
    opened = mmfuse.open_dataset(word, roots=asked.roots, table=options, home=asked.layout)
    name = one([dataset.name for dataset in opened])
    return name, opened[0].samples()


def done(
    asked: Settings, streams: Sequence[tuple[str, str, int]], where: object, then: str
) -> None:
    """Show a table of streams, where they are, and the next command."""
    columns = ("dataset", "stream", "rows")
    table = mmfuse.Table("streams", columns, tuple(streams), name="streams")
    console.show([table], as_json=asked.json, ends=[f"in {where}", f"next: {then}"])


def pairs(option: str, typed: Sequence[str] | None) -> dict[str, str]:
    """Parse `name=value` words into a dict.

    Raises:
        MmfuseError: for a word of another form, or a repeated name.
    """
    found: dict[str, str] = {}
    for word in typed or ():
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise mmfuse.MmfuseError(f"{option} {word!r} must be name=value")
        if name in found:
            raise mmfuse.MmfuseError(f"{option} names {name} twice: {found[name]} and {value}")
        found[name] = value
    return found


def overlaid(
    flags: Mapping[str, object], typed: Sequence[str] | None, defaults: Mapping[str, object]
) -> dict[str, object]:
    """Merge options with `--set` words over defaults.

    Args:
        flags: options by name; None where not given.
        typed: words of `--set`.
        defaults: values for names that neither sets.

    Raises:
        MmfuseError: for a name that is set twice.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    named = pairs("--set", typed)
    for name, value in named.items():
        if name in given:
            own = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
            raise mmfuse.MmfuseError(
                f"{own} and --set {name}={value} set the same; give one of them"
            )
    return {**defaults, **given, **named}


def numbers(option: str, typed: str | None) -> list[float]:
    """Parse numbers joined by commas, such as `0.1,0.3`.

    Raises:
        MmfuseError: for a word that is not a number.
    """
    try:
        return [float(word) for word in typed.split(",")] if typed else []
    except ValueError:
        raise mmfuse.MmfuseError(f"{option} {typed!r} must be numbers such as 0.1,0.3") from None


def numbered_pairs(option: str, typed: Sequence[str] | None) -> dict[str, float]:
    """Parse `name=number` words into a dict.

    Raises:
        MmfuseError: for a word of another form.
    """
    found = {}
    for name, value in pairs(option, typed).items():
        try:
            found[name] = float(value)
        except ValueError:
            raise mmfuse.MmfuseError(
                f"{option} {name}={value} must be NAME=PROBABILITY, such as {name}=0.5"
            ) from None
    return found


def words(typed: Sequence[str] | None) -> list[str]:
    """The words of a repeatable option, those joined by commas taken apart.

    A word that is the path of a file stays whole.
    """
    found: list[str] = []
    for word in typed or ():
        whole = "," not in word or Path(word).is_file()
        found += [word] if whole else [part.strip() for part in word.split(",") if part.strip()]
    return found


def encoders(typed: Sequence[str] | None) -> list[str]:
    """The words of `--encoder`.

    Raises:
        MmfuseError: for an unknown name, or a file that is not there.
    """
    found = words(typed)
    for word in found:
        mmfuse.catalog.check("encoders", encoder_name(word))
    return found


def methods(typed: Sequence[str] | None) -> list[str]:
    """The words of `--method`, at least one.

    Raises:
        MmfuseError: for none, an unknown name, or a file that is not there.
    """
    found = words(typed)
    if not found:
        raise mmfuse.MmfuseError("say which: --method NAME (mmfuse list methods shows them)")
    for word in found:
        mmfuse.catalog.check("methods", word)
    return found


def one_method(typed: str | None) -> str:
    """The word of a `--method` that is given once.

    Raises:
        MmfuseError: for none, several, an unknown name, or a file that is not there.
    """
    found = methods([typed] if typed else None)
    if len(found) > 1:
        raise mmfuse.MmfuseError(f"--method {typed}: one method a sweep; run it for each")
    return found[0]


def one_of(what: str, typed: str | None, known: Sequence[str]) -> Any:  # noqa: ANN401 - a Literal
    """Check that a word is a known one.

    Raises:
        MmfuseError: for an unknown one, with the nearest known one.
    """
    if typed is not None and typed not in known:
        raise mmfuse.unknown(what, typed, known)
    return typed


def check_output(what: str, file: Path, endings: Sequence[str] = ()) -> None:
    """Check before any work that an output file can be written.

    Args:
        what: what the message calls it, such as the option.
        file: the file to write.
        endings: allowed suffixes; default: any.

    Raises:
        MmfuseError: for a folder, a missing parent folder, or another suffix.
    """
    if file.is_dir():
        raise mmfuse.MmfuseError(f"{what} {file}: this is a folder; name a file")
    if endings and file.suffix not in endings:
        raise mmfuse.MmfuseError(f"{what} {file}: it must end in {' or '.join(endings)}")
    if not file.parent.is_dir():
        raise mmfuse.MmfuseError(f"{what} {file}: no such folder: {file.parent}")


def to_the_front(typed: Sequence[str]) -> list[str]:
    """The same words with the global options first, where the app reads them."""
    front: list[str] = []
    rest: list[str] = []
    left = list(typed)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*front, *rest, word, *left]
        arity = _ANYWHERE.get(word.split("=", 1)[0])
        if arity is None:
            rest.append(word)
        elif arity and "=" not in word:
            front += [word, *left[:1]]
            left = left[1:]
        else:
            front.append(word)
    return [*front, *rest]
