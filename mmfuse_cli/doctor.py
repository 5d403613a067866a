"""mmfuse doctor: device, versions, disk, and the weights found."""

import os
from pathlib import Path

import typer

import mmfuse
from mmfuse_cli import arguments


def doctor(context: typer.Context) -> None:
    """Device, versions, disk, weights found."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    tables = [
        mmfuse.doctor.versions(),
        mmfuse.doctor.devices(),
        mmfuse.doctor.places(asked.home, asked.roots, [_hub()]),
    ]
    console.show(tables, as_json=asked.json, ends=["next: mmfuse list, or mmfuse demo"])


def _hub() -> Path:
    """Where the Hugging Face hub keeps what it fetched; its own rule for its own variables."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    top = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME', '~/.cache')}/huggingface"
    return Path(top).expanduser() / "hub"
