"""What was typed and what was left out: home, data folders, and what the last commands named."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

if TYPE_CHECKING:
    from cache.layout import Home

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
    def layout(self) -> "Home":
        """The home as the library wants it."""
        from cache.layout import Home

        return Home(self.home)


def settings(context: typer.Context) -> Settings:
    """The settings of this call, put there by the app's callback."""
    return cast("Settings", context.find_root().obj)


def data_roots(data: Path | None) -> tuple[Path, ...]:
    """Folders of raw data: --data, then $MMFUSE_DATA, then ./data, each once."""
    words = [data, os.environ.get("MMFUSE_DATA"), "data"]
    return tuple(dict.fromkeys(Path(word) for word in words if word))


def remember(home: Path, command: str, words: Mapping[str, object]) -> None:
    """Keep what a command named, for the next one that leaves a word out; replaced whole."""
    path = home / "last.json"
    home.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"last.json.{os.getpid()}")
    fresh.write_text(json.dumps({**_last(home), command: dict(words)}, indent=1), encoding="utf-8")
    fresh.replace(path)


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
