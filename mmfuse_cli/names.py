"""mmfuse list: what there is on each shelf, whether it is ready, and how to get it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from mmfuse_cli import words

if TYPE_CHECKING:
    from pipelines.reports.table import Table

SHELVES = ("datasets", "encoders", "methods", "features")


def list_names(
    context: typer.Context,
    shelf: Annotated[
        str | None, typer.Argument(help="datasets, encoders, methods or features; all without.")
    ] = None,
) -> None:
    """What there is, whether it is ready, and how to get it."""
    from cache.errors import unknown

    if shelf is not None and shelf not in SHELVES:
        raise unknown("list", shelf, SHELVES)
    from mmfuse_cli import console
    from pipelines.reports import listing

    asked = words.settings(context)
    tables: dict[str, Callable[[], Table]] = {
        "datasets": lambda: listing.datasets(asked.roots),
        "encoders": listing.encoders,
        "methods": listing.methods,
        "features": lambda: listing.features(asked.layout),
    }
    shown = [tables[name]() for name in ([shelf] if shelf else SHELVES)]
    ends = ["next: mmfuse extract --dataset DATASET --encoder ENCODER (or mmfuse demo)"]
    console.show(shown, as_json=asked.json, ends=ends)
