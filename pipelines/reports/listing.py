"""Tables of datasets, encoders, methods and cached features."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from cache.layout import Home
from pipelines import catalog
from pipelines.data import sources
from pipelines.reports.table import Cell, Column, Table

SUMMARY = Column("what it is", ("summary",))


def datasets(roots: Sequence[Path]) -> Table:
    """Table of datasets, and where their raw data was found below the roots."""
    rows = tuple(
        (offer.name, offer.summary, offer.ready, offer.where)
        for offer in sources.list_datasets(roots)
    )
    searched = f"raw data is searched for in {', '.join(f'{root}/NAME' for root in roots)}"
    own = "your own: --dataset FILE.csv --modality poster=image --target COLUMN"
    columns = ("name", SUMMARY, Column.flag("ready", "ready"), "where")
    return Table("datasets", columns, rows, (searched, own), "datasets")


def encoders() -> Table:
    """Table of encoders: kinds they serve, widths, and whether weights must be downloaded."""
    rows: list[tuple[Cell, ...]] = []
    for name, entry in catalog.entries("encoders").items():
        kinds = entry.constants.get("KINDS")
        served = kinds if isinstance(kinds, dict) else {}
        package = entry.constants.get("PACKAGE")
        ready: tuple[bool, str | None] = (True, None)
        if isinstance(package, str) and find_spec(package) is None:
            ready = (False, f"pip install {package}")
        elif entry.constants.get("NEEDS_WEIGHTS"):
            ready = (True, "download")
        rows.append((name, served, entry.summary, ready))
    kinds_column = Column(
        "kinds and widths",
        ("kinds",),
        lambda cell: ", ".join(f"{kind} {width or '?'}" for kind, width in cell.items()),
        lambda cell: ([{"kind": kind, "width": width} for kind, width in cell.items()],),
    )
    ready_column = Column("ready", ("ready", "needs"), _ready_text, tuple)
    columns = ("name", kinds_column, SUMMARY, ready_column)
    return Table("encoders", columns, tuple(rows), name="encoders")


def _ready_text(cell: tuple[bool, str | None]) -> str:
    ready, needs = cell
    if needs is None:
        return "yes"
    return "downloaded when first used" if ready else f"no; {needs}"


def methods() -> Table:
    """Table of methods."""
    rows = tuple((name, entry.summary) for name, entry in catalog.entries("methods").items())
    notes = ("your own: --method ./my_head.py",)
    return Table("methods", ("name", SUMMARY), rows, notes, "methods")


def features(home: Home) -> Table:
    """Table of the streams in the cache, complete or not."""
    from cache.feature_store import FeatureStore

    rows: list[tuple[Cell, ...]] = []
    for dataset in home.datasets():
        rows += [
            (dataset, info.key.label, info.rows, info.counts,
             (info.width, info.dtype, info.sequence), str(info.provenance.get("weights", "?")),
             info.complete, info.key.modality, info.kind)
            for info in FeatureStore(home, dataset).streams()
        ]  # fmt: skip
    states = ("ok", "absent", "failed", "pending")
    columns = (
        "dataset", "stream", "rows",
        Column("not present", states, _lacking_text, lambda cell: tuple(map(cell.get, states))),
        Column("width", ("width", "dtype", "sequence"), _width_text, tuple), "weights",
        Column.flag("state", "complete", "complete", "unfinished"), Column.hidden("modality"),
        Column.hidden("kind"),
    )  # fmt: skip
    notes = () if rows else (f"none in {home.root} yet",)
    return Table("features", columns, tuple(rows), notes, "features")


def _lacking_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {state}" for state, n in counts.items() if n and state != "ok") or "-"


def _width_text(cell: tuple[int, str, bool]) -> str:
    width, dtype, sequence = cell
    return f"{width} {dtype}{' a frame' if sequence else ''}"
