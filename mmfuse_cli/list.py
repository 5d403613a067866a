"""mmfuse list: datasets, encoders, methods and cached features."""

from collections.abc import Callable
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

LISTS = ("datasets", "encoders", "methods", "features")


def list_names(
    context: typer.Context,
    what: Annotated[
        str | None, typer.Argument(help="datasets, encoders, methods or features; default: all.")
    ] = None,
) -> None:
    """List datasets, encoders, methods and features. With what is ready, and how to get it."""
    if what is not None and what not in LISTS:
        raise mmfuse.unknown("list", what, LISTS)
    from mmfuse_cli import console

    asked = arguments.settings(context)
    tables: dict[str, Callable[[], mmfuse.Table]] = {
        "datasets": lambda: mmfuse.listing.datasets(asked.roots),
        "encoders": mmfuse.listing.encoders,
        "methods": mmfuse.listing.methods,
        "features": lambda: mmfuse.listing.features(asked.layout),
    }
    shown = [tables[name]() for name in ([what] if what else LISTS)]
    ends = ["next: mmfuse extract --dataset DATASET --encoder ENCODER (or mmfuse demo)"]
    console.show(shown, as_json=asked.json, ends=ends)
