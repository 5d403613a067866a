"""Notes below tables: those that repeat are one line, and how training ended is another."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from cache.runs import RunRecord
from pipelines.metrics.metrics import PRIMARY
from pipelines.reports.table import count_of

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


@dataclass(frozen=True)
class _Ending:
    """How one replica ended a stage."""

    epochs: int
    of: int
    reason: str


def training_ends(runs: Sequence[RunRecord]) -> list[str]:
    """One line for each method, over its datasets, settings, folds and seeds.

    `concat on digits: stopped after 34 of 100 epochs: no lower validation loss for 15 epochs`, or
    `concat on digits: used all 100 epochs`. Stages are named where a method has several.
    """
    lines = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        stages: dict[str, list[_Ending]] = {}
        for run in own:
            for stage, found in _endings(run).items():
                stages.setdefault(stage, []).extend(found)
        if stages:
            lines.append(f"{method} on {listed(run.dataset for run in own)}: {_describe(stages)}")
    return lines


def _endings(run: RunRecord) -> dict[str, list[_Ending]]:
    """By stage, how each replica ended it."""
    history = run.history()
    if "of" not in history.columns:  # written before the maximum of a stage was
        history = history.with_columns(
            of=pl.lit(run.plan["epochs"]),
            monitor=pl.lit(run.plan["monitor"]),
            patience=pl.lit(run.plan["patience"]),
        )
    last = history.group_by("stage", "seed", maintain_order=True).last()
    stages: dict[str, list[_Ending]] = {}
    for row in last.iter_rows(named=True):
        waited = count_of(row["patience"] or 0, "epoch")
        reason = f"{_improvement(row['monitor'], run)} for {waited}"
        stages.setdefault(row["stage"], []).append(_Ending(row["epoch"], row["of"], reason))
    return stages


def _improvement(monitor: str, run: RunRecord) -> str:
    if monitor in ("task", "loss"):
        return "no lower validation loss"
    metric = PRIMARY[run.task.kind] if monitor == "score" else monitor
    return f"no better validation {metric.replace('_', ' ')}"


def _describe(stages: dict[str, list[_Ending]]) -> str:
    if len(stages) == 1:
        return _describe_stage(next(iter(stages.values())))
    return ", then ".join(f"{name} {_describe_stage(found)}" for name, found in stages.items())


def _describe_stage(found: Sequence[_Ending]) -> str:
    of = _span([ending.of for ending in found])
    early = [ending for ending in found if ending.epochs < ending.of]
    if not early:
        return f"used all {of} epochs" if of != "1" else "used its only epoch"
    reasons = " or ".join(dict.fromkeys(ending.reason for ending in early))
    sentence = (
        f"stopped after {_span([ending.epochs for ending in early])} of {of} epochs: {reasons}"
    )
    if len(early) < len(found):
        return f"{len(early)} of {len(found)} replicas {sentence}; the others used all"
    return sentence


def _span(values: Sequence[int]) -> str:
    """`34`, or `30–41`."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"
