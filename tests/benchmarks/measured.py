"""Every figure of docs/measured.md in one run, each in a process of its own.

Run: python tests/benchmarks/measured.py [--only NAME …] [--write]

Ratios are of times taken in turns in one process. `--write` puts what was measured into
docs/measured.json, the rest of which stays, and writes docs/measured.md from it.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from measured_page import GPU, GPU_RECORD, PAGE, RECORD, page_of
from project import ROOT

HERE = Path(__file__).parent
HEAD = ROOT / "docs" / "examples" / "my_head.py"
MMFUSE = [sys.executable, "-m", "mmfuse_cli"]
LOAD = 13  # processes beside ours on a busy machine


@dataclass(frozen=True)
class Part:
    """Something measured.

    Attributes:
        what: in words.
        goal: what the figure should be, such as ≤ 10 s.
        measure: from an empty folder the figure, and details in words.
    """

    what: str
    goal: str
    measure: Callable[[Path], tuple[float, str]]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that never rest, meanwhile."""
    code = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def ran(command: list[str], folder: Path) -> tuple[float, float, int]:
    """Wall-clock and CPU seconds of a command and its children, and its peak memory in bytes."""
    start = time.perf_counter()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "output").read_text())
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def mmfuse(words: str, folder: Path) -> tuple[float, float, int]:
    """The same of `mmfuse WORDS`."""
    return ran([*MMFUSE, *words.split()], folder)


def digits(folder: Path) -> None:
    """Features of `digits`, a head, and the linear baseline."""
    mmfuse("extract digits --encoder pixels --encoder mfcc --encoder hashing", folder)
    (folder / "my_head.py").write_text(HEAD.read_text(encoding="utf-8"))
    mmfuse("train digits --method mean --seeds 1 --epochs 1", folder)


def loop_idle(folder: Path) -> tuple[float, str]:
    """The loop of thought: a head edited, the table of five seeds."""
    digits(folder)
    wall, cpu, _ = min(mmfuse("train digits --method ./my_head.py", folder) for _ in range(3))
    return wall, f"{cpu:.1f} s of CPU time"


def slower(command: list[str], folder: Path) -> tuple[float, str]:
    """CPU time of a command on a busy machine, in units of that on an idle one."""
    alone = min(ran(command, folder)[1] for _ in range(2))
    with busy(LOAD):
        wall, beside, _ = ran(command, folder)
    return beside / alone, (
        f"{beside:.1f} s of CPU time beside {LOAD} processes that never rest, {alone:.1f} s alone; "
        f"{wall:.0f} s on the clock"
    )


def loop_busy(folder: Path) -> tuple[float, str]:
    """The same where others want the cores."""
    digits(folder)
    return slower([*MMFUSE, *["train", "digits", "--method", "./my_head.py"]], folder)


def script_busy(folder: Path) -> tuple[float, str]:
    """The same from Python, torch imported before mmfuse."""
    digits(folder)
    code = 'import torch, mmfuse; mmfuse.train("./my_head.py", "digits")'
    return slower([sys.executable, "-c", code], folder)


def eval_known(folder: Path) -> tuple[float, str]:
    """Scores of a run under a pattern, as they were found before."""
    digits(folder)
    mmfuse("train digits --method concat", folder)
    first = mmfuse("eval --missing text", folder)[0]
    more = mmfuse("eval --missing audio", folder)[0]
    wall, cpu, _ = min(mmfuse("eval --missing audio", folder) for _ in range(3))
    return wall, (
        f"{cpu:.1f} s of CPU time; {first:.1f} s the first time, which fits the single modalities, "
        f"{more:.1f} s for another pattern"
    )


def demo(folder: Path) -> tuple[float, str]:
    """Everything once."""
    wall, cpu, _ = mmfuse("demo", folder)
    return wall, f"{cpu:.1f} s of CPU time"


def of_heads(name: str, *about: Any) -> Any:
    """A function of train.py called; torch is imported in the process that needs it alone."""
    return getattr(importlib.import_module("train"), name)(*about)


def mfcc(folder: Path) -> tuple[float, str]:
    """A clip of half a second, prepared as extraction does in its own process."""
    import librosa
    import soundfile

    from cache.fingerprints import digest
    from pipelines.encoders.mfcc import BANDS, FLOOR, HOP, WINDOW
    from pipelines.encoding.encoder import build_encoder
    from pipelines.extract.engine.prepare import Cell, InlinePreparer, Recipe
    from pipelines.media.mel import MelSpec
    from pipelines.media.payloads import Waveform

    encoder, frames = build_encoder("mfcc"), build_encoder("mfcc", sequence=True)
    spec = MelSpec(encoder.rate, round(WINDOW * encoder.rate), round(HOP * encoder.rate), BANDS)
    wave = np.random.default_rng(0).normal(size=encoder.rate // 2).astype(np.float32) * 0.1
    sound = Waveform(wave, encoder.rate)
    soundfile.write(folder / "a.wav", wave, spec.rate, "FLOAT")
    recipe, data = Recipe(encoder, "audio", None), (folder / "a.wav").read_bytes()
    cells = [Cell(row, data, digest("audio", data)) for row in range(1000)]
    found = InlinePreparer().submit(recipe, cells).result()
    assert not any(one.failure for one in found)
    seconds = sorted(one.prepare for one in found)
    power = librosa.feature.melspectrogram(
        y=wave, sr=spec.rate, n_fft=spec.points, win_length=spec.window, hop_length=spec.hop,
        n_mels=BANDS,
    )  # fmt: skip
    theirs = librosa.power_to_db(power, top_db=FLOOR, amin=1e-10)
    apart = float(np.abs(theirs - frames.prepare("audio", sound)[0][:BANDS]).max())
    return seconds[500] * 1e3, f"median of 1,000; bands within {apart:.0e} dB of librosa's"


def clip(folder: Path) -> tuple[float, str]:
    """300 JPEG files with ViT-B-32, against open_clip's own preprocessing in a DataLoader."""
    import polars as pl
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader

    from cache.layout import Home
    from cache.samples import Modality, Task
    from pipelines.data.dataset import Dataset
    from pipelines.encoding.encoder import build_encoder
    from pipelines.extract.extract import extract
    from pipelines.extract.options import ExtractOptions

    chance = np.random.default_rng(0)
    names = [f"{row}.jpg" for row in range(300)]
    for name in names:
        rough = Image.fromarray(chance.integers(0, 256, (24, 32, 3), np.uint8))
        rough.resize((500, 375), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    encoder = build_encoder("clip:ViT-B-32-quickgelu/random", device="cpu")
    encoder.encode("image", [encoder.prepare("image", _decoded(folder / names[0]))[0]])
    model, preprocess = encoder._model, _open_clip_preprocess()
    splits, targets = ["train"] * 298 + ["val", "test"], [0, 1] * 150
    table = pl.DataFrame({"id": names, "split": splits, "target": targets, "image": names})
    dataset = Dataset(
        "clip", table, (Modality("image", "image"),), Task("classes", ("a", "b")), root=folder
    )
    ours, theirs = [], []
    for turn in range(3):
        start = time.perf_counter()
        options = ExtractOptions(latency=False)  # a second more, whatever the number of rows
        extract(dataset, [encoder], home=Home(folder / f"home {turn}"), options=options)
        ours.append(time.perf_counter() - start)
        files = [folder / name for name in names]
        for workers in (0, 1, 2):
            start = time.perf_counter()
            loader = DataLoader(_Files(files, preprocess), 32, num_workers=workers)
            with torch.inference_mode():
                np.concatenate([model.encode_image(batch).numpy() for batch in loader])
            theirs.append(time.perf_counter() - start)
    a, b = min(ours), min(theirs)
    return a / b, (
        f"{a:.1f} s against {b:.1f} s, best of three and of nine with 0, 1 and 2 workers; without "
        "the second that timing single samples takes"
    )


class _Files:
    """Preprocessed pictures."""

    def __init__(self, files: list[Path], preprocess: Callable[[Any], Any]) -> None:
        self.files, self.preprocess = files, preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        from PIL import Image

        return self.preprocess(Image.open(self.files[row]))


def _open_clip_preprocess() -> Callable[[Any], Any]:
    import open_clip

    return open_clip.create_model_and_transforms("ViT-B-32-quickgelu", pretrained=None)[2]


def _decoded(file: Path) -> Any:
    from pipelines.media.cells import decode

    return decode("image", file.read_bytes())


def minilm(folder: Path) -> tuple[float, str]:
    """600 texts."""
    from extract import sentence_seconds

    ours, bare, apart = sentence_seconds(folder)
    return ours / bare, f"{ours:.1f} s against {bare:.1f} s, best of three; within {apart:.0e}"


def write_large(folder: str) -> None:
    """A million vectors of 512 float16 by id, and the table they belong to."""
    import polars as pl

    rows, chance = 1_000_000, np.random.default_rng(0)
    values = np.empty((rows, 512), np.float16)
    for start in range(0, rows, 100_000):
        values[start : start + 100_000] = chance.standard_normal((100_000, 512), np.float32)
    ids = np.array([f"s{row}" for row in range(rows)])
    np.savez(Path(folder) / "vectors.npz", id=ids, x=values)
    splits = np.array(["train", "train", "train", "val", "test"] * (rows // 5))
    targets = np.where(values[:, 0] > 0, "a", "b")
    table = pl.DataFrame({"id": ids, "split": splits, "y": targets, "text": ids})
    table.write_parquet(Path(folder) / "table.parquet")


def large(folder: Path, words: str = "") -> float:
    """Peak memory of importing them, or of training on them, by their size."""
    # Another process makes them: a child's peak counts what its parent had when it began.
    code = f"import measured; measured.write_large({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True)
    used = mmfuse(
        "cache import vectors.npz --stream own/text --array x --kind text --weights weight-free "
        "--dataset table.parquet --target y --split split --id id --name large",
        folder,
    )[2]
    return (mmfuse(words, folder)[2] if words else used) / (1_000_000 * 512 * 2)


def memory_train(folder: Path) -> tuple[float, str]:
    """Peak memory of training."""
    found = large(folder, "train large --method concat --epochs 1")
    return found, "five seeds; resident pages of the process, 1.02 GB of float16"


def memory_import(folder: Path) -> tuple[float, str]:
    """Peak memory of an import."""
    return large(folder), "resident pages of the process, torch not imported"


def reading(which: str, folder: Path) -> tuple[float, str]:
    """Reading 200,000 × 512 float16, ours by numpy's."""
    from store import read_seconds

    from cache.layout import Home

    ours, theirs = read_seconds(Home(folder / "home"), folder, 4096)[which]
    return ours / theirs, f"{ours * 1e3:.1f} ms against {theirs * 1e3:.1f} ms, medians"


def suite(folder: Path) -> tuple[float, str]:
    """CPU time of `pytest`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, _, _ = ran([sys.executable, "-m", "pytest", "-q", str(ROOT), "-c",
                      str(ROOT / "pyproject.toml")], folder)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / 60, f"{wall / 60:.1f} min on the clock"


PARTS = {
    "loop_idle": Part(
        "`train digits --method ./my_head.py`, five seeds, the whole command", "≤ 10 s", loop_idle
    ),
    "loop_busy": Part(
        "the same on a busy machine, CPU time against an idle one", "≤ 1.5 ×", loop_busy
    ),
    "script_busy": Part(
        "the same by `mmfuse.train` in a script that imported torch first", "≤ 1.5 ×", script_busy
    ),
    "eval_known": Part("`eval --missing audio` of a run, both known", "≤ 2.5 s", eval_known),
    "demo": Part("`demo`", "≤ 30 s", demo),
    "logistic_wide": Part(
        "logistic baseline against scikit-learn, five penalties, 1,500 × 1,200, 10 classes",
        "≤ 1.2 ×",
        lambda _: of_heads("logistic", 1500, 1200, 10),
    ),
    "logistic_long": Part(
        "the same, 8,000 × 256, 4 classes", "≤ 1.2 ×", lambda _: of_heads("logistic", 8000, 256, 4)
    ),
    "replicas_concat": Part(
        "five replicas of `concat` against five plain loops, one thread",
        "≥ 1.3 ×",
        lambda _: of_heads("against_loops", "concat"),
    ),
    "replicas_clarga": Part(
        "the same, `clarga`", "≥ 1.3 ×", lambda _: of_heads("against_loops", "clarga")
    ),
    "peak_concat": Part(
        "share of the core's matrix-product peak in a step, `concat`",
        "≥ 50 %",
        lambda _: of_heads("share_of_peak", "concat"),
    ),
    "peak_clarga": Part(
        "the same, `clarga`", "≥ 50 %", lambda _: of_heads("share_of_peak", "clarga")
    ),
    "mfcc": Part("`mfcc`, a clip of half a second", "≤ 0.3 ms", mfcc),
    "clip": Part("`clip`, 300 JPEG files, against a DataLoader and open_clip", "≤ 1 ×", clip),
    "minilm": Part(
        "MiniLM, 600 texts, against sentence-transformers' `encode`", "≤ 0.85 ×", minilm
    ),
    "memory_train": Part(
        "peak memory of `train` on 10^6 × 512, against the data", "≤ 2.5 ×", memory_train
    ),
    "memory_import": Part(
        "peak memory of `cache import` of 10^6 × 512 float16, against the data",
        "≤ 1.3 ×",
        memory_import,
    ),
    "whole": Part(
        "a whole stream, every checksum compared, against `np.load`",
        "≤ 1.4 ×",
        lambda folder: reading("whole", folder),
    ),
    "gather": Part(
        "4,096 random rows of 200,000 × 512 against `np.memmap`",
        "≤ 2 ×",
        lambda folder: reading("gather", folder),
    ),
    "suite": Part("the default tests, CPU time", "≤ 6 min", suite),
}


def measured(name: str) -> dict[str, Any]:
    """A part in a process of its own."""
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, __file__, "--part", name], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"date": time.strftime("%Y-%m-%d"), "load": round(load, 1)}


def one(name: str) -> dict[str, Any]:
    """The same in this process."""
    if name.startswith("profile_"):
        return {"top": of_heads("profile", name.removeprefix("profile_"))}
    part = PARTS[name]
    with tempfile.TemporaryDirectory() as folder:
        figure, details = part.measure(Path(folder))
    sign, goal, unit = part.goal.split()
    met = figure <= float(goal) if sign == "≤" else figure >= float(goal)
    shown = f"{float(f'{figure:.3g}'):g} {unit}"
    return {
        "what": part.what, "figure": shown, "goal": part.goal, "met": bool(met), "details": details,
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*PARTS, "profile_concat", "profile_clarga"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--part", choices=names, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(one(asked.part)))
        return
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    record["machine"] = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
    }
    parts = record.setdefault("parts", {})
    for name in asked.only:
        parts[name] = found = measured(name)
        if "figure" in found:
            told = "" if found["met"] else " (missed)"
            about = f"{found['goal']}{told}; {found['details']}"
            print(f"{found['what']}: {found['figure']}; {about}", flush=True)
        else:
            print(name, *(f"{op} {share:.1%}" for op, share in found["top"]), sep="\n  ")
        if asked.write:
            record["parts"] = {each: parts[each] for each in names if each in parts}
            text = json.dumps(record, indent=1, ensure_ascii=False)
            RECORD.write_text(f"{text}\n", encoding="utf-8")
            PAGE.write_text(page_of(record), encoding="utf-8")
    for what, goal in () if GPU_RECORD.exists() else GPU:
        print(f"{what}: not measured; {goal}")


if __name__ == "__main__":
    main()
