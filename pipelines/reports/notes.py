"""Notes that repeat are one line that names every stream or dataset."""

import re
from collections.abc import Iterable, Sequence

_NAMED = 6  # names that a note lists
_SHARE = re.compile(r"(\d+)%")


def merged_notes(notes: Iterable[tuple[str, str, str]]) -> list[str]:
    """One line for each distinct sentence: `a/image, b/text of digits: SENTENCE`.

    Sentences that differ only in a percentage are one, with the range: `took 35–55% of the time`.

    Args:
        notes: stream (or ""), dataset and sentence of each.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for stream, dataset, sentence in notes:
        groups.setdefault(_SHARE.sub("%", sentence), []).append((stream, dataset, sentence))
    return [
        f"{_subjects([(stream, dataset) for stream, dataset, _ in found])}: "
        f"{_with_range([sentence for *_, sentence in found])}"
        for found in groups.values()
    ]


def merged_over(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Each distinct note once; those that differ only in their dataset's name list all of them.

    Args:
        notes: the dataset of each, and the note, with or without that name in it.
    """
    groups: dict[str, list[str]] = {}
    for dataset, note in notes:
        groups.setdefault(note.replace(dataset, "\0"), []).append(dataset)
    return [key.replace("\0", listed(names)) for key, names in groups.items()]


def listed(names: Iterable[str]) -> str:
    """Distinct names joined by commas, the first few of many: `a, b and 3 more`."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) <= _NAMED + 1:
        return ", ".join(distinct)
    return f"{', '.join(distinct[:_NAMED])} and {len(distinct) - _NAMED} more"


def _subjects(found: Sequence[tuple[str, str]]) -> str:
    """`a/image, b/text of digits`; streams of the same datasets stand together."""
    datasets: dict[str, list[str]] = {}
    for stream, dataset in found:
        datasets.setdefault(stream, []).append(dataset)
    streams: dict[tuple[str, ...], list[str]] = {}
    for stream, names in datasets.items():
        streams.setdefault(tuple(names), []).append(stream)
    return "; ".join(
        f"{listed(own)} of {listed(names)}" if any(own) else listed(names)
        for names, own in streams.items()
    )


def _with_range(sentences: Sequence[str]) -> str:
    shares = [int(share) for sentence in sentences for share in _SHARE.findall(sentence)]
    if not shares or min(shares) == max(shares):
        return sentences[0]
    return _SHARE.sub(f"{min(shares)}–{max(shares)}%", sentences[0])
