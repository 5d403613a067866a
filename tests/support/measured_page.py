"""docs/measured.md from docs/measured.json, which tests/benchmarks/measured.py writes."""

import json
from typing import Any

from project import ROOT

RECORD = ROOT / "docs" / "measured.json"
GPU_RECORD = ROOT / "docs" / "measured-gpu.json"
PAGE = ROOT / "docs" / "measured.md"

# Why a figure misses its goal and what was tried; shown where it does.
_STEP = (
    "matrix products take half of a step, and in a step run at half of the peak that the same "
    "products reach when nothing else is between them. The rest is small "
    "operations: random numbers of dropout and modality dropout, which are hashes of 64 bits so "
    "that every device and number of replicas draws the same; masks that keep what is absent from "
    "the sums; z-scores; the optimiser; and Python between them. In: gradients laid out as the "
    "weights, which saved a sixth of a step, and an optimiser that takes them where they are. "
    "Tried without gain: settings of the allocator, two threads for steps of this size. Not "
    "tried: features normalised once, which would double the memory of float16 features."
)
WHY = {
    "peak_concat": _STEP,
    "peak_clarga": "as for `concat`.",
    "replicas_clarga": "two runs before this one gave 1.48 and 1.50 ×; the machine is shared.",
    "demo": (
        "of 29 s of CPU time, 17 are training steps (four methods and three single streams, five "
        "seeds, up to 100 epochs), 2.5 scores, 2 making the data, 1.7 features and 1.7 importing "
        "torch. A run before this one took 29.8 s."
    ),
    "clip": (
        "the model alone takes 14.5 of our 15.3 seconds, and uses both cores, so that decoding "
        "beside it gains nothing. With no, one and automatic workers a run took 16.5, 17.1 and "
        "16.3 s, the second that timing single samples takes included."
    ),
    "minilm": (
        "both sort texts by length and spend nearly all of the time in the same forward; digests, "
        "shards and records are what is left. Earlier runs gave 0.94 to 1.06 ×. A quantised or "
        "compiled forward would be another encoder."
    ),
    "whole": (
        "`np.load` compares no checksum. Chunks are copied and compared by a few threads; runs on "
        "an idle machine and on a busy one gave 1.0 to 1.6 ×."
    ),
    "mfcc": (
        "on an idle machine the median is 0.2 ms; most of it are the Fourier transforms in double "
        "precision, which 0.001 dB needs."
    ),
    "suite": "more tests; the slowest train heads or run every command of the pages.",
}
_TOP = """# Measured speed and memory

Written by `python tests/benchmarks/measured.py --write` from [measured.json](measured.json). Each
part runs in a process of its own. Ratios are of times taken in turns in that process, so they hold
better than seconds, which another machine or a busy one changes. Commands that take less than ten
seconds are the best of two or three, on an idle machine. A figure that misses its goal is bold,
with the reason below the table.

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
GPU = (
    ("five replicas of dense heads against five plain loops, on a GPU", "≥ 5 ×"),
    ("extraction against the bare encoder's loop, on a GPU", "told"),
    ("encoders in half precision against the CPU's, least cosine", "≥ 0.999"),
)
_NO_CARD = """
No card was at hand: `python tests/benchmarks/gpu.py` measures on one, in at most eight minutes, and
needs nothing but this project's test install. It was tried on a CPU in small (`--tiny`).
"""


def page_of(record: dict[str, Any]) -> str:
    """The page."""
    parts = record["parts"]
    rows = {name: part for name, part in parts.items() if "figure" in part}
    missed = [name for name, part in rows.items() if not part["met"]]
    misses = "".join(
        f"\n- {rows[name]['what']}: {WHY.get(name, 'reason unknown')}" for name in missed
    )
    machine = record["machine"]
    return _TOP.format(
        machine=(
            f"{machine['cores']} shared, noisy CPU cores ({machine['processor']}), Python "
            f"{machine['python']}, torch {machine['torch']}."
        ),
        rows="\n".join([*map(_row, rows.values()), *_gpu_rows()]),
        gpu="" if GPU_RECORD.exists() else _NO_CARD,
        misses=f"## What misses its goal\n{misses}\n" if missed else "",
        profile=_profile({n: p["top"] for n, p in parts.items() if "top" in p}),
    )


def _gpu_rows() -> list[str]:
    """Of measured-gpu.json, which tests/benchmarks/gpu.py writes on a card; else what lacks."""
    if not GPU_RECORD.exists():
        return [f"| {what} | not measured | {goal} | |" for what, goal in GPU]
    found = json.loads(GPU_RECORD.read_text(encoding="utf-8"))
    told = f"{found['card']}, torch {found['torch']}"
    return [
        f"| {row['what']} | {row['figure']} | | {told}; {row['how']} |" for row in found["rows"]
    ]


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
