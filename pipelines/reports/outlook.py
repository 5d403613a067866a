"""The outlook of an extraction as a table: rows, disk, download, and how long it will take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cache.layout import Home
from pipelines.extract.estimate import Estimate, estimate
from pipelines.extract.plan import StreamPlan
from pipelines.extract.session import ExtractOptions
from pipelines.reports.extraction import planned
from pipelines.reports.table import Table

LONG = 1800.0  # seconds above which a smaller first step is offered
_STEP = 600.0  # seconds that the offered step takes


def outlook(
    plans: Mapping[str, Sequence[StreamPlan]],
    *,
    home: Home,
    options: ExtractOptions | None = None,
) -> Table:
    """What extraction would do and how long it would take, by dataset; nothing is stored.

    Args:
        plans: of each dataset.
        home: where a fitted encoder's state may be.
        options: whose workers, batches and limit are reckoned with.

    Raises:
        MmfuseError: from an encoder whose batches are timed.
    """
    options = options or ExtractOptions()
    sized: dict[str, list[StreamPlan]] = {name: [] for name in plans}
    estimates: list[Estimate | None] = []
    for name, found in plans.items():
        for one in found:
            estimates.append(estimate(one, home=home, options=options))
            if one.width is None and estimates[-1] is not None:  # the encoder is fitted by now
                one = replace(one, width=one.encoder.kinds[one.modality.kind])
            sized[name].append(one)
    table = planned(sized)
    times = [None if found is None else f"~{span(found.seconds)}" for found in estimates]
    rows = tuple((*row, time) for row, time in zip(table.rows, times, strict=True))
    flat = [one for found in sized.values() for one in found]
    notes = (*table.notes, *_notes(flat, estimates, options))
    return Table(table.title, (*table.columns, "time"), rows, notes)


def span(seconds: float) -> str:
    """A time as people say it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 1:
        return "1 s" if seconds > 0 else "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _notes(
    plans: Sequence[StreamPlan], estimates: Sequence[Estimate | None], options: ExtractOptions
) -> list[str]:
    """The sum of long times in hours with a smaller step, and what could not be timed."""
    notes = []
    if any(found is None and one.download is not None for one, found in _both(plans, estimates)):
        notes.append("no time is given for what has to be downloaded first")
    if any(found is None and one.download is None for one, found in _both(plans, estimates)):
        notes.append("no time is given where none of the samples tried can be read or encoded")
    known = [(one, found) for one, found in _both(plans, estimates) if found is not None]
    total = sum(found.seconds for _, found in known)
    if total <= LONG:
        return notes
    devices = {str(one.encoder.provenance().get("device", "cpu")) for one, _ in known}
    where = "a CPU" if devices == {"cpu"} else " and ".join(sorted(devices))
    told = f"about {total / 3600:,.1f} hours in all on {where}, from three timed batches a stream"
    if options.limit is None:
        each = sum((f.seconds - f.load) / one.found.new for one, f in known if one.found.new)
        step = _round(_STEP / each)
        told += f"; --limit {step} would take about {span(step * each)}, and a later run goes on"
    return [*notes, told]


def _both(
    plans: Sequence[StreamPlan], estimates: Sequence[Estimate | None]
) -> list[tuple[StreamPlan, Estimate | None]]:
    return list(zip(plans, estimates, strict=True))


def _round(count: float) -> int:
    """Down to one digit that counts: 1,234 → 1,000; at least 1."""
    size = max(1, int(count))
    unit = int(10 ** (len(str(size)) - 1))
    return size // unit * unit
