"""What earlier commands were given: defaults of later ones, and streams still to be made."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import mmfuse


def remember(home: Path, command: str, words: Mapping[str, object]) -> None:
    """Store what a command was given in last.json, as defaults of the next commands.

    Raises:
        MmfuseError: when the disk is full, read-only or not ours.
    """
    text = json.dumps({**_last(home), command: dict(words)}, indent=1)
    mmfuse.put(home / "last.json", text.encode())


def remembered(home: Path, command: str) -> dict[str, object]:
    """What the last successful `command` was given; empty where there was none."""
    words = _last(home).get(command)
    return dict(words) if isinstance(words, dict) else {}


def request_streams(
    home: Path,
    opened: "Sequence[mmfuse.Dataset]",
    encoders: Sequence[str],
    built: "Sequence[mmfuse.Encoder]" = (),
) -> None:
    """Remember the streams that an extract is to make of each dataset, until they are complete.

    Args:
        home: where they are remembered.
        opened: the datasets.
        encoders: words of the encoders.
        built: the encoders; before they are built, all kinds that their plug-ins may serve count.
    """
    known, kinds = remembered(home, "requested"), {each.name: each.kinds for each in built}
    for each in opened:
        wanted = {*_names(known, each.name)}
        for word in encoders:
            entry = mmfuse.catalog.read_source(encoder_name(word))
            constant = entry.constants.get("KINDS")
            serves = kinds.get(entry.name, constant if isinstance(constant, dict) else {})
            wanted -= {f"{entry.name}/{m.name}" for m in each.modalities}
            wanted |= {f"{entry.name}/{m.name}" for m in each.modalities if m.kind in serves}
        known[each.name] = sorted(wanted)
    remember(home, "requested", known)


def settle_requests(home: Path, complete: Mapping[str, Sequence[str]]) -> None:
    """Forget requested streams that are complete, or whose modality has other features now."""
    known = remembered(home, "requested")
    for name, streams in complete.items():
        done = {stream.partition("/")[2] for stream in streams}
        known[name] = [one for one in _names(known, name) if one.partition("/")[2] not in done]
    remember(home, "requested", {name: left for name, left in known.items() if left})


def absent_streams(home: Path, names: Sequence[str]) -> list[str]:
    """Warnings on streams that an extract was to make and did not complete; one for all alike."""
    found: dict[tuple[str, ...], list[str]] = {}  # streams → datasets that lack them
    for name in names:
        streams = mmfuse.FeatureStore(mmfuse.Home(home), name).streams()
        complete = {info.key.name for info in streams if info.complete}
        wanted = {*_names(remembered(home, "requested"), name)}
        wanted |= {info.key.name for info in streams}
        if lacking := sorted(wanted - complete):
            found.setdefault(tuple(lacking), []).append(name)
    warnings = []
    for absent, own in found.items():
        words = dict.fromkeys(stream.partition("/")[0] for stream in absent)
        encoders = " ".join(f"--encoder {word}" for word in words)
        group = own[0].partition("/")[0]
        whole = len(own) > 1 and all(name.startswith(f"{group}/") for name in own)
        commands = [group] if whole else own
        run = " and ".join(f"mmfuse extract --dataset {one} {encoders}" for one in commands)
        warnings.append(
            f"warning: trained without {', '.join(absent)}, which an extract of {', '.join(own)} "
            f"did not complete; run: {run}"
        )
    return warnings


def encoder_name(word: str) -> str:
    """Name or file of an encoder, without its model."""
    return mmfuse.catalog.split_encoder_word(word)[0]


def _names(by_dataset: Mapping[str, object], dataset: str) -> list[str]:
    names = by_dataset.get(dataset)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _last(home: Path) -> dict[str, object]:
    try:
        found = json.loads((home / "last.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # never written, or not readable: there are no defaults
    return found if isinstance(found, dict) else {}
