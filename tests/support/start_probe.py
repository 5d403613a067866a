"""mmfuse with a report of which heavy libraries are loaded at its end: start_probe.py WORD...

The last two lines of stdout are `exit CODE` and `loaded NAME...`.
"""

import sys

HEAVY = ("torch", "numpy", "polars", "zarr", "sklearn", "rich", "scipy", "safetensors")
HEAVIER = (  # seconds each, or of no use to a small head
    "torch._dynamo", "torch._inductor", "sympy", "onnx", "transformers", "open_clip", "timm",
    "torchvision", "matplotlib", "pandas", "skimage", "librosa", "datasets", "jinja2",
)  # fmt: skip


def main() -> None:
    """Run the command line, then tell."""
    from mmfuse_cli.main import main as mmfuse

    sys.argv[0] = "mmfuse"
    try:
        mmfuse()
    except SystemExit as stop:
        print("exit", stop.code)  # noqa: T201 - what the test reads
    print("loaded", *(name for name in HEAVY + HEAVIER if name in sys.modules))  # noqa: T201


if __name__ == "__main__":
    main()
