"""All methods on all data at hand: complete, and each modality missing in turn, five seeds.

Run: python tests/benchmarks/methods.py --packs DIR [--folder DIR] [--only digits] [--seeds 5]
     [--epochs N]

Types what a user would: `mmfuse extract` or `mmfuse cache import`, `mmfuse train`, `mmfuse eval`,
with every setting as it comes but `--drop-rate 0.3`, and prints what `eval` says as one table.
Vectors are weight-free or imported; nothing here was chosen by looking at a test score.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

METHODS = (
    "clarga", "ef_cl", "mla", "trml", "concat", "sum_logits", "sum_features", "late", "mean",
    "gated", "film",
)  # fmt: skip
COLUMNS = (*METHODS, "best single", "logistic", "majority")
Mmfuse = Callable[[str], str]


def digits(run: Mmfuse, packs: Path, folder: Path) -> None:
    """Built in: picture, dial tone, word."""
    run("extract --dataset digits --encoder pixels --encoder mfcc --encoder hashing")


def avdigits(run: Mmfuse, packs: Path, folder: Path) -> None:
    """Spoken and handwritten digits, by speaker."""
    run(f"extract --data {packs} --dataset avdigits --encoder pixels --encoder mfcc")


def monsters(run: Mmfuse, packs: Path, folder: Path) -> None:
    """Two tasks in MuG's layout."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "mug").symlink_to(packs / "monsters")
    run("extract --dataset mug --encoder pixels --encoder hashing --encoder tabular")


def emoji(run: Mmfuse, packs: Path, folder: Path) -> None:
    """MuG's layout, picture and keywords."""
    run(f"extract --dataset {packs / 'emoji'} --name emoji --encoder pixels --encoder hashing")


def algorithms(run: Mmfuse, packs: Path, folder: Path) -> None:
    """Python files by topic: code, docstring, counts."""
    table = packs / "algorithms" / "algos.parquet"
    counts = ",".join(name for name in pl.read_parquet_schema(table) if name.startswith("n_"))
    run(
        f"extract --dataset {table} --name algorithms --target label --split split --id id "
        f"--modality code=code --modality text=text --modality counts=tabular:{counts} "
        "--encoder hashing --encoder tabular"
    )


def cremad_votes(run: Mmfuse, packs: Path, folder: Path) -> None:
    """What a crowd heard and saw, as vote counts; the columns of both together stay out."""
    table = packs / "cremad_votes" / "votes.parquet"
    votes = pl.read_parquet(table)
    found = {
        kind: votes.select(f"{kind}_{emotion}" for emotion in "ADFHNS").to_numpy()
        for kind in ("voice", "face")
    }
    file = folder / "votes.npz"
    np.savez(file, id=np.array(votes["id"].to_list()), **found)
    own = f"--dataset {table} --target label --id id --split split --name cremad_votes"
    for name, kind in (("voice", "audio"), ("face", "image")):
        run(
            f"cache import {file} --stream votes/{name} --array {name} --kind {kind} "
            f"--weights weight-free {own}"
        )
        own = "--dataset cremad_votes"


def mosi_features(run: Mmfuse, packs: Path, folder: Path) -> None:
    """CMU-MOSI vectors of supervised extractors; the given split alone is sound."""
    pack = packs / "mosi_features"
    own = f"--dataset {pack / 'utterances.csv'} --target label --id id --split split --name mosi"
    for name in ("text", "audio", "video"):
        run(
            f"cache import {pack / 'features.npz'} --stream bclstm/{name} --array {name} "
            f"--kind {name} {own}"
        )
        own = "--dataset mosi"


DATA = (digits, avdigits, monsters, emoji, algorithms, cremad_votes, mosi_features)


def main() -> None:
    """Fill, train, score, print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[make.__name__ for make in DATA])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    asked = parser.parse_args()
    top = asked.folder or Path(tempfile.mkdtemp())
    words = f"--seeds {asked.seeds}" + (f" --epochs {asked.epochs}" if asked.epochs else "")
    print("| data | missing |", *(f"{name} |" for name in COLUMNS), "data × weights |")
    print("|---|---|", *("---|" for _ in COLUMNS), "---|")
    for make in DATA:
        if make.__name__ in asked.only:
            folder = top / make.__name__
            folder.mkdir(parents=True)
            began = time.perf_counter()
            for line in lines(scored(make, asked.packs.resolve(), folder, words)):
                print("|", *(f"{cell} |" for cell in line), flush=True)
            print(f"{make.__name__}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def scored(
    make: Callable[[Mmfuse, Path, Path], None], packs: Path, folder: Path, words: str
) -> list[dict[str, Any]]:
    """What `eval` says of every method under every pattern."""

    def run(line: str) -> str:
        command = [sys.executable, "-m", "mmfuse_cli", *line.split()]
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"exit code {done.returncode}: mmfuse {line}")
        return done.stdout

    make(run, packs, folder)
    methods = " ".join(f"--method {name}" for name in METHODS)
    run(f"train {methods} --drop-rate 0.3 {words}")
    rows: list[dict[str, Any]] = json.loads(run("eval --json"))["tables"][0]["rows"]
    return rows


def lines(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """A line a dataset and pattern; what stands beside every method is the same for all."""
    for key in dict.fromkeys((row["dataset"], row["missing"]) for row in rows):
        alike = [row for row in rows if (row["dataset"], row["missing"]) == key]
        first = alike[0]
        beside = [f"{first['single']} {told(first, 'single')}"]
        beside += [told(first, name) for name in ("linear", "majority")]
        scores = [*(told(row, "score") for row in alike), *beside]
        evidence = f"{first['data']} × {first['weights']}"
        yield [key[0], key[1].removeprefix("without "), *scores, evidence]


def told(row: dict[str, Any], name: str) -> str:
    """A score in words: mean ± standard deviation where there are several seeds."""
    mean, std = (row[f"{name}_{part}"] for part in ("mean", "std"))
    shown = [f"{value:.3f}".removeprefix("0") for value in ([mean, std] if std else [mean])]
    return " ± ".join(shown)


if __name__ == "__main__":
    main()
