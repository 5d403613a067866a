"""What was typed and what was left out: home, data folders, and what the last commands named."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import typer

import mmfuse

_ANYWHERE = {"--home": 1, "--data": 1, "--json": 0}  # how many words follow each


@dataclass(frozen=True)
class Settings:
    """The words that every command understands.

    Attributes:
        home: where features and runs are kept.
        roots: folders that raw data is looked for in, first to last.
        json: results as one JSON document instead of tables.
    """

    home: Path
    roots: tuple[Path, ...]
    json: bool

    @property
    def layout(self) -> "mmfuse.Home":
        """The home as the library wants it."""
        return mmfuse.Home(self.home)


def settings(context: typer.Context) -> Settings:
    """The settings of this call, put there by the app's callback."""
    return cast("Settings", context.find_root().obj)


def data_roots(data: Path | None) -> tuple[Path, ...]:
    """Folders of raw data: --data, then $MMFUSE_DATA, then ./data, each once."""
    words = [data, os.environ.get("MMFUSE_DATA"), "data"]
    return tuple(dict.fromkeys(Path(word) for word in words if word))


def dataset(asked: Settings, typed: str | None) -> str:
    """The dataset that was typed, else the one the last successful extract named.

    Raises:
        MmfuseError: where none was named and none is remembered.
    """
    if typed is not None:
        return typed
    word = remembered(asked.home, "extract").get("dataset")
    if not isinstance(word, str):
        raise mmfuse.MmfuseError(
            f"say which: --dataset NAME (no extract is remembered in {asked.home})"
        )
    typer.echo(f"no --dataset: {word}, as the last extract", err=True)
    return word


def stored(asked: Settings, typed: str | None) -> list[str]:
    """Names of the datasets with features here that a word means: one, or a group's.

    Raises:
        MmfuseError: where there are none; it names the command that makes them.
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


def runs(asked: Settings, typed: Sequence[str] | None) -> "list[mmfuse.RunRecord]":
    """The runs that were typed, else those of the last train, or the best of the last sweep."""
    if typed:
        return [mmfuse.load_run(asked.layout, word) for word in typed]
    found: list[mmfuse.RunRecord] = mmfuse.latest_group(asked.layout)
    told, swept = "train", remembered(asked.home, "sweep")
    if swept.get("group") == found[0].group and isinstance(swept["runs"], list):
        told, found = "sweep's best", [mmfuse.load_run(asked.layout, i) for i in swept["runs"]]
    typer.echo(f"no --run: {', '.join(run.id for run in found)}, as the last {told}", err=True)
    return found


def one(names: Sequence[str]) -> str:
    """The only name of a group of one.

    Raises:
        MmfuseError: where there are several.
    """
    if len(names) > 1:
        raise mmfuse.MmfuseError(f"name one of them: --dataset {' or '.join(names)}")
    return names[0]


def rows_of(
    asked: Settings, word: str, options: "mmfuse.TableOptions"
) -> "tuple[str, mmfuse.Samples]":
    """A dataset's name and rows: from its features, or else from its raw data."""
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
    """Show streams that went somewhere, where, and what to type next."""
    from mmfuse_cli import console

    table = mmfuse.Table("streams", ("dataset", "stream", "rows"), tuple(streams))
    console.show([table], as_json=asked.json, ends=[f"in {where}", f"next: {then}"])


def pairs(option: str, typed: Sequence[str] | None) -> dict[str, str]:
    """`name=value` words as a dict.

    Raises:
        MmfuseError: for a word that is not so written, or a name that comes twice.
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
    """What options of their own and `--set` words set; what neither names is left to `defaults`.

    Args:
        flags: by name; None was not typed.
        typed: words of `--set`.
        defaults: what is set where neither names it.

    Raises:
        MmfuseError: for what is set both ways, or twice.
    """
    said = {name: value for name, value in flags.items() if value is not None}
    named = pairs("--set", typed)
    for name, value in named.items():
        if name in said:
            own = f"--{name.replace('_', '-')}"
            raise mmfuse.MmfuseError(
                f"{own} and --set {name}={value} set the same; give one of them"
            )
    return {**defaults, **said, **named}


def numbers(option: str, typed: str | None) -> list[float]:
    """`0.1,0.3` as numbers.

    Raises:
        MmfuseError: for a word that is none.
    """
    try:
        return [float(word) for word in typed.split(",")] if typed else []
    except ValueError:
        raise mmfuse.MmfuseError(f"{option} {typed!r} must be numbers such as 0.1,0.3") from None


def numbered_pairs(option: str, typed: Sequence[str] | None) -> dict[str, float]:
    """`name=number` words as a dict.

    Raises:
        MmfuseError: for a word that is not so written.
    """
    found = {}
    for name, value in pairs(option, typed).items():
        try:
            found[name] = float(value)
        except ValueError:
            raise mmfuse.MmfuseError(
                f"{option} {name}={value} must be NAME=CHANCE, as {name}=0.5"
            ) from None
    return found


def one_of(what: str, typed: str | None, known: Sequence[str]) -> Any:  # noqa: ANN401 - a Literal
    """The word that was typed, if it is known.

    Raises:
        MmfuseError: with the nearest known one.
    """
    if typed is not None and typed not in known:
        raise mmfuse.unknown(what, typed, known)
    return typed


def check_output(what: str, file: Path, endings: Sequence[str] = ()) -> None:
    """Refuse a file that cannot be made where it was asked for, before any work.

    Args:
        what: the option or what is written, as the message names it.
        file: the file to make.
        endings: those that it may have; any, if there are none.

    Raises:
        MmfuseError: for a folder, a folder that is not there, or another ending.
    """
    if file.is_dir():
        raise mmfuse.MmfuseError(f"{what} {file}: this is a folder; name a file")
    if endings and file.suffix not in endings:
        raise mmfuse.MmfuseError(f"{what} {file}: it must end in {' or '.join(endings)}")
    if not file.parent.is_dir():
        raise mmfuse.MmfuseError(f"{what} {file}: no such folder: {file.parent}")


def remember(home: Path, command: str, words: Mapping[str, object]) -> None:
    """Keep what a command named, for the next one that leaves a word out; replaced whole.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours.
    """
    text = json.dumps({**_last(home), command: dict(words)}, indent=1)
    mmfuse.put(home / "last.json", text.encode())


def remembered(home: Path, command: str) -> dict[str, object]:
    """What the last successful `command` named here; empty when there was none."""
    words = _last(home).get(command)
    return dict(words) if isinstance(words, dict) else {}


def to_the_front(typed: Sequence[str]) -> list[str]:
    """The same words with the global options first, where the app itself reads them."""
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


def _last(home: Path) -> dict[str, object]:
    try:
        found = json.loads((home / "last.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # never written, or not ours: omitted words then have no meaning
    return found if isinstance(found, dict) else {}
