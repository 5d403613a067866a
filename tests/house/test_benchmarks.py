"""Benchmarks still run: the one for a card on a CPU in small, and one of the measured figures."""

import json
import re
import subprocess
import sys

import measured_page
import pytest
from project import ROOT

BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.mark.slow
def test_the_benchmark_for_a_card_runs_on_a_cpu_in_small(tmp_path):
    """Every part gives rows, and the record says that they are of a CPU and small."""
    command = [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--device", "cpu"]
    subprocess.run([*command, "--out", tmp_path / "found.json"], check=True, capture_output=True)
    record = json.loads((tmp_path / "found.json").read_text())
    assert (record["card"], record["tiny"]) == ("CPU", True)
    told = " ".join(row["what"] for row in record["rows"])
    for word in ("cosine", "logits", "rows encoded", "replicas of mla", "ResNet-18", "MiniLM"):
        assert word in told
    assert not any(row["figure"] == "not measured" for row in record["rows"])


def test_a_part_of_the_measured_figures_runs():
    """It prints a figure beside its goal, and what only a card can measure unless it was."""
    command = [sys.executable, BENCHMARKS / "measured.py", "--only", "mfcc"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"clip of half a second: [\d.]+ ms; ≤ 0.3 ms.*dB of librosa's", said)
    assert measured_page.GPU_RECORD.exists() or "on a GPU: not measured" in said
