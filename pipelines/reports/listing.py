"""Tables of datasets, encoders, methods and cached features."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cache.layout import Home
from pipelines import catalog
from pipelines.data import sources
from pipelines.reports.table import Cell, Table


def datasets(roots: Sequence[Path]) -> Table:
    """Table of datasets, and where their raw data was found below the roots."""
    rows = tuple(
        (offer.name, offer.summary, "yes" if offer.ready else "no", offer.where)
        for offer in sources.list_datasets(roots)
    )
    searched = f"raw data is searched for in {', '.join(f'{root}/NAME' for root in roots)}"
    own = "your own: --dataset FILE.csv --modality poster=image --target COLUMN"
    return Table("datasets", ("name", "what it is", "ready", "where"), rows, (searched, own))


def encoders() -> Table:
    """Table of encoders: kinds they serve, widths, and whether weights must be downloaded."""
    rows = []
    for name, entry in catalog.entries("encoders").items():
        kinds = entry.constants.get("KINDS")
        served = kinds if isinstance(kinds, dict) else {}
        widths = ", ".join(f"{kind} {width or '?'}" for kind, width in served.items())
        package = entry.constants.get("PACKAGE")
        if isinstance(package, str) and find_spec(package) is None:
            ready = f"no; pip install {package}"
        else:
            ready = "downloaded when first used" if entry.constants.get("NEEDS_WEIGHTS") else "yes"
        rows.append((name, widths, entry.summary, ready))
    return Table("encoders", ("name", "kinds and widths", "what it is", "ready"), tuple(rows))


def methods() -> Table:
    """Table of methods."""
    rows = tuple((name, entry.summary) for name, entry in catalog.entries("methods").items())
    return Table("methods", ("name", "what it is"), rows, ("your own: --method ./my_head.py",))


def features(home: Home) -> Table:
    """Table of the streams in the cache, complete or not."""
    from cache.feature_store import FeatureStore

    rows: list[tuple[Cell, ...]] = []
    for dataset in home.datasets():
        for info in FeatureStore(home, dataset).streams():
            lacking = [f"{n:,} {state}" for state, n in info.counts.items() if n and state != "ok"]
            width = f"{info.width} {info.dtype}{' a frame' if info.sequence else ''}"
            weights = str(info.provenance.get("weights", "?"))
            state = "complete" if info.complete else "unfinished"
            row = (
                dataset,
                info.key.label,
                info.rows,
                ", ".join(lacking) or None,
                width,
                weights,
                state,
            )
            rows.append(row)
    columns = ("dataset", "stream", "rows", "not present", "width", "weights", "state")
    return Table("features", columns, tuple(rows), () if rows else (f"none in {home.root} yet",))
