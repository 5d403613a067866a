"""docs/measured.md from docs/measured.json, which tests/benchmarks/measured.py writes."""

from typing import Any

from project import ROOT

RECORD = ROOT / "docs" / "measured.json"
GPU_RECORD = ROOT / "docs" / "measured-gpu.json"
PAGE = ROOT / "docs" / "measured.md"

# Why a figure misses its goal and what was tried; shown where it does.
WHY = {}
_TOP = """# Measured speed and memory

Written by `python tests/benchmarks/measured.py --write` from [measured.json](measured.json). Each
part runs in a process of its own. Ratios are of times taken in turns in that process, so they hold
better than seconds, which another machine or a busy one changes. A figure that misses its goal is
bold, with the reason below the table.

{machine}

| what | figure | goal | how |
|---|---|---|---|
{rows}
{gpu}
{misses}
## Where a step goes

The ten operations that take most of a training step of five replicas at the size of MuG (719 rows,
two streams of 512, 18 classes, batches of 64) on one thread, as shares of all operations:

{profile}
"""
_GPU = """
On a GPU: not measured; no card was at hand. `python tests/benchmarks/gpu.py` measures there, in at
most eight minutes, and needs nothing but this project's test install.
"""


def page_of(record: dict[str, Any]) -> str:
    """The page."""
    parts = record["parts"]
    rows = {name: part for name, part in parts.items() if "figure" in part}
    missed = [name for name, part in rows.items() if not part["met"]]
    misses = "".join(f"\n- {rows[name]['what']}: {WHY[name]}" for name in missed)
    machine = record["machine"]
    return _TOP.format(
        machine=(
            f"{machine['cores']} shared, noisy CPU cores ({machine['processor']}), Python "
            f"{machine['python']}, torch {machine['torch']}."
        ),
        rows="\n".join(_row(part) for part in rows.values()),
        gpu=_GPU,
        misses=f"## What misses its goal\n{misses}\n" if missed else "",
        profile=_profile({n: p["top"] for n, p in parts.items() if "top" in p}),
    )


def _row(part: dict[str, Any]) -> str:
    figure = part["figure"] if part["met"] else f"**{part['figure']}**"
    return f"| {part['what']} | {figure} | {part['goal']} | {part['details']} |"


def _profile(tops: dict[str, list[list[Any]]]) -> str:
    names = [name.removeprefix("profile_") for name in tops]
    head = "|" + "|".join(f" `{name}` | share " for name in names) + "|"
    rows = [
        "|" + "|".join(f" `{op}` | {share:.1%} " for op, share in each) + "|"
        for each in zip(*tops.values(), strict=True)
    ]
    return "\n".join([head, "|---" * 2 * len(names) + "|", *rows])
