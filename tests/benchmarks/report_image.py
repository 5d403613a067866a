"""The image of a report that the README shows: `mmfuse demo`, then its page in Chromium, headless.

Run: python tests/benchmarks/report_image.py [--report FILE.html]; needs Chromium, writes
docs/images/report.png. Without --report it runs `mmfuse demo` first (about a minute).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "images" / "report.png"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic",
    "--hide-scrollbars", "--force-device-scale-factor=1",
)  # fmt: skip


def take(report: Path, folder: Path, *, width: int, height: int) -> None:
    """Write the top of a report as a PNG of 256 colours, which keeps the file small.

    Args:
        report: the HTML file.
        folder: for Chromium's profile and the raw image.
        width: of the window, in pixels.
        height: of the window, in pixels.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no chromium here; on Debian: apt-get install chromium")
    raw = folder / "raw.png"
    flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
    target = report.resolve().as_uri()
    subprocess.run([browser, *flags, f"--screenshot={raw}", target], check=True, timeout=120)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(method=Image.Quantize.FASTOCTREE).save(IMAGE, optimize=True)
    print(f"{IMAGE}: {IMAGE.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Make the report unless one is named, and take its image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="an HTML report; without: that of the demo")
    parser.add_argument("--width", type=int, default=1060)
    parser.add_argument("--height", type=int, default=1920)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = asked.report
        if report is None:
            mmfuse = Path(sys.executable).with_name("mmfuse")
            subprocess.run([mmfuse, "demo"], cwd=folder, check=True)
            report = folder / "artifacts" / "demo.html"
        take(report, folder, width=asked.width, height=asked.height)


if __name__ == "__main__":
    main()
