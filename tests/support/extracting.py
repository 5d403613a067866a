"""A process that extracts, for the tests that kill it: python extracting.py HOME WHAT [WORKERS].

It prints `ready` after its imports and, where WHAT is the seconds of a batch, `encoding` in the
third batch. With GO in the environment it waits for that file before it begins. No lease
expires by age, so that a test in which somebody waits for that hangs.
"""

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
from small_encoders import Announced, texts
from waiting import wait_until

from cache.format import grid
from cache.layout import Home
from cache.storage import leases
from pipelines.data.sources import open_dataset
from pipelines.encoding.encoder import build_encoder
from pipelines.extract.engine import batches
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions

WEIGHT_FREE = {"digits": ["pixels", "mfcc", "hashing"], "avdigits": ["pixels", "mfcc"]}


def many_texts():
    """3,000 texts of log-normal length, in shards of 128 rows."""
    grid.CHUNK_BYTES, grid.CHUNKS_PER_SHARD = 1024, 4
    batches.WINDOWS["text"] = 50
    sizes = np.random.default_rng(5).lognormal(3, 1, 3000).astype(int)
    return texts({"m": [f"{row}:{'x' * size}" for row, size in enumerate(sizes)]}, name="crowd")


def main(home, what, workers="0"):
    """Extract, and print what was encoded and what the reports say."""
    if what in WEIGHT_FREE:
        roots = [Path(root) for root in sys.argv[4:]]
        (dataset,) = open_dataset(what, roots=roots)
        encoders = [build_encoder(word) for word in WEIGHT_FREE[what]]
    else:
        dataset, encoders = many_texts(), [Announced(company=True, delay=float(what))]
    leases.EXPIRY = float("inf")
    options = ExtractOptions(workers=int(workers), batch_rows=16, checkpoint=0.02, latency=False)
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    if "GO" in os.environ:
        wait_until(Path(os.environ["GO"]).exists)
    reports = extract(dataset, encoders, home=Home(Path(home)), options=options)
    output = {
        "reports": [report.record() for report in reports],
        "encoded": [text for one in encoders for text in getattr(one, "encoded", [])],
        "heavy": sorted({"torch", "zarr", "transformers"} & set(sys.modules)),
        "threads": [t.name for t in threading.enumerate() if not t.daemon],
    }
    print(json.dumps(output), flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(*sys.argv[1:4])
