"""mmfuse list: what there is on each shelf, whether it is ready, and how to get it."""

from collections.abc import Callable
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

SHELVES = ("datasets", "encoders", "methods", "features")


def list_names(
    context: typer.Context,
    shelf: Annotated[
        str | None, typer.Argument(help="datasets, encoders, methods or features; all without.")
    ] = None,
) -> None:
    """What there is, whether it is ready, and how to get it."""
    if shelf is not None and shelf not in SHELVES:
        raise mmfuse.unknown("list", shelf, SHELVES)
    from mmfuse_cli import console

    asked = arguments.settings(context)
    tables: dict[str, Callable[[], mmfuse.Table]] = {
        "datasets": lambda: mmfuse.listing.datasets(asked.roots),
        "encoders": mmfuse.listing.encoders,
        "methods": mmfuse.listing.methods,
        "features": lambda: mmfuse.listing.features(asked.layout),
    }
    shown = [tables[name]() for name in ([shelf] if shelf else SHELVES)]
    ends = ["next: mmfuse extract --dataset DATASET --encoder ENCODER (or mmfuse demo)"]
    console.show(shown, as_json=asked.json, ends=ends)
