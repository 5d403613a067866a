"""mmfuse doctor: versions, devices, disk space and weights found."""

import os
from pathlib import Path

import typer

import mmfuse
from mmfuse_cli import arguments


def doctor(context: typer.Context) -> None:
    """Show versions, devices, disk space and weights."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    tables = [
        mmfuse.doctor.versions(),
        mmfuse.doctor.devices(),
        mmfuse.doctor.places(asked.home, asked.roots, [_hub()]),
    ]
    console.show(tables, as_json=asked.json, ends=["next: mmfuse list, or mmfuse demo"])


def _hub() -> Path:
    """Cache folder of the Hugging Face hub, by the hub's own environment variables."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    top = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME', '~/.cache')}/huggingface"
    return Path(top).expanduser() / "hub"
