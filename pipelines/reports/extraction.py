"""Plans and reports of extraction as tables."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.format.streams import StreamKey
from cache.layout import Home
from cache.samples import Kind, Modality
from cache.status import explain
from pipelines import catalog
from pipelines.data.dataset import Dataset
from pipelines.extract.estimate import Estimate, estimate
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import StreamPlan, serving
from pipelines.extract.report import StreamReport
from pipelines.progress import Track, untracked
from pipelines.reports.notes import merged_notes
from pipelines.reports.table import Cell, Column, Table, bytes_text

_WARN_TRUNCATED = 0.05  # share of truncated inputs above which there is a warning
_SHOWN = 5  # failures shown a stream; the rest is in failures.parquet
LONG = 1800.0  # seconds above which a --limit is suggested
_STEP = 600.0  # seconds that the suggested step takes


class ExtractionReports:
    """Reports of one extract command, over the datasets of a group."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._found: dict[str, list[StreamReport]] = {}
        self._modalities: dict[str, tuple[Modality, ...]] = {}

    def add(self, dataset: Dataset, reports: Sequence[StreamReport]) -> None:
        """Add the reports of one dataset's streams."""
        self._found[dataset.name] = list(reports)
        self._modalities[dataset.name] = dataset.modalities

    @property
    def all(self) -> list[StreamReport]:
        """Every report, in order."""
        return [report for found in self._found.values() for report in found]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C stopped it."""
        return any(report.interrupted for report in self.all)

    @property
    def pending(self) -> int:
        """Rows that are not encoded yet."""
        return sum(report.pending for report in self.all)

    @property
    def tried(self) -> int:
        """Distinct inputs that this command tried to encode."""
        return sum(report.new + report.new_failed for report in self.all)

    @property
    def failures(self) -> int:
        """Rows that failed, in this run or before."""
        return sum(report.failures for report in self.all)

    def not_retried(self, reasons: Sequence[str]) -> str:
        """A sentence for when no row failed for these reasons, with those that there are."""
        counts: Counter[str] = Counter()
        for report in self.all:
            counts.update(report.failed)
        found = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        others = f"; rows failed for: {found}" if found else ""
        return f"nothing was tried again: no row failed for {' or '.join(reasons)}{others}"

    def tables(self) -> list[Table]:
        """Rows by stream, and the failures by sample."""
        lists = (failure_table(name, found, self._home) for name, found in self._found.items())
        return [report_table(self._found), *(table for table in lists if table is not None)]

    @property
    def complete(self) -> dict[str, list[str]]:
        """Complete streams of this command by dataset, such as `clip/image`."""
        return {
            dataset: [report.key.name for report in found if report.complete]
            for dataset, found in self._found.items()
        }

    def ends(self, word: str | None = None) -> list[str]:
        """Where the features are, the modalities without any, and the next command.

        Args:
            word: the dataset or group on the command line; default: the dataset's name.
        """
        where = ", ".join(str(self._home.features(name)) for name in list(self._found)[:3])
        more = f" and {len(self._found) - 3} more" if len(self._found) > 3 else ""
        ends = [f"features in {where}{more}", *self._without_features(word)]
        if self.interrupted:
            ends.append("stopped; finished rows are saved; run the same command again to resume")
        elif self.pending:
            ends.append(f"{self.pending:,} rows are left; run the same command again to resume")
        else:
            ends.append("next: mmfuse train --method clarga")
        return ends

    def _without_features(self, word: str | None) -> list[str]:
        """A line on the modalities without features, with the command; empty where all have some.

        Those that this command has begun are left out.
        """
        without: dict[Modality, list[str]] = {}
        for dataset, modalities in self._modalities.items():
            streams = FeatureStore(self._home, dataset).streams()
            have = {info.key.modality for info in streams if info.complete}
            have |= {report.key.modality for report in self._found[dataset] if report.pending}
            for modality in modalities:
                if modality.name not in have:
                    without.setdefault(modality, []).append(dataset)
        if not without:
            return []
        names = ", ".join(modality.name for modality in without)
        datasets = ", ".join(dict.fromkeys(name for found in without.values() for name in found))
        line = f"without features: {names} of {datasets}"
        encoders = dict.fromkeys(filter(None, (suggested_encoder(m.kind) for m in without)))
        named = " ".join(f"--encoder {name}" for name in encoders)
        if named:
            line += f"; run: mmfuse extract --dataset {word or next(iter(self._found))} {named}"
        return [line]


def suggested_encoder(kind: Kind) -> str | None:
    """An encoder that serves a kind, one without weights if there is one; None without any."""
    entries = catalog.entries("encoders")
    names = sorted(serving(kind), key=lambda n: bool(entries[n].constants.get("NEEDS_WEIGHTS")))
    return names[0] if names else None


def no_encoder(opened: Sequence[Dataset]) -> MmfuseError:
    """The error where no encoder is named; it lists those that serve these datasets."""
    kinds = dict.fromkeys(m.kind for dataset in opened for m in dataset.modalities)
    parts = [f"{kind}: {', '.join(serving(kind)) or 'none yet'}" for kind in kinds]
    return MmfuseError(f"say which: --encoder NAME (for {'; '.join(parts)})")


def report_table(reports: Mapping[str, Sequence[StreamReport]]) -> Table:
    """Rows of every stream: new, reused, absent and failed, by dataset."""
    rows: list[tuple[Cell, ...]] = []
    notes: list[tuple[str, str, str]] = []  # stream, dataset, sentence
    for dataset, found in reports.items():
        for report in found:
            name = report.key.label
            rows.append((
                dataset, name, report.rows, report.new, report.reused, report.absent,
                report.failed, report.rows_per_second or None, report.pending, report.truncated,
                report.complete, report.seconds.get("total"),
            ))  # fmt: skip
            if report.pending:
                notes.append((name, dataset, f"{report.pending:,} rows are not encoded yet"))
            if report.truncated:
                notes.append((name, dataset, _truncated(report)))
            if report.new:
                notes.append((name, dataset, report.bottleneck))
        skipped = skipped_modalities(found[0].skipped if found else {})
        notes += [("", dataset, sentence) for sentence in skipped]
    columns = (
        "dataset", "stream", "rows", "new", "reused", "absent", Column.reasons("failed"),
        Column.number("rows/s", "rows_per_second", ",.0f"), Column.hidden("pending"),
        Column.hidden("truncated"), Column.hidden("complete"), Column.hidden("seconds"),
    )  # fmt: skip
    remarks = [note for found in reports.values() for one in found for note in one.notes]
    said = [*merged_notes(notes), *dict.fromkeys(remarks)]
    return Table("extracted", columns, tuple(rows), tuple(said), "extracted")


def _truncated(report: StreamReport) -> str:
    """How many inputs were truncated, with a warning where they are many."""
    share = report.truncated / report.ok
    sentence = f"{report.truncated:,} of {report.ok:,} inputs ({share:.1%}) were truncated"
    if share <= _WARN_TRUNCATED:
        return sentence
    return f"warning: {sentence}: the rest of them is not in their vectors"


def plan_table(plans: Mapping[str, Sequence[StreamPlan]]) -> Table:
    """Rows to encode, disk and download of every stream, by dataset."""
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for dataset, found in plans.items():
        for plan in found:
            download = 0 if plan.download is None else plan.download.size
            rows.append((
                dataset, plan.key.label, plan.rows, plan.found.new, plan.found.known, plan.absent,
                plan.found.failed, plan.disk, download,
            ))  # fmt: skip
            if plan.download is not None:
                size, licence = bytes_text(plan.download.size), plan.download.licence
                source = plan.download.repository
                notes.append(f"download first: {source}, {size}, licence {licence}")
    columns = (
        "dataset", "stream", "rows", "to encode", "known", "absent", "failed",
        Column.bytes("disk", empty="?"), Column.hidden("download_bytes"),
    )  # fmt: skip
    return Table("plan", columns, tuple(rows), tuple(dict.fromkeys(notes)), "plan")


def explanation_table(plans: Mapping[str, Sequence[StreamPlan]], home: Home) -> Table:
    """Why each stream has to be encoded or need not be: the fields that differ."""
    rows: list[tuple[Cell, ...]] = []
    for dataset, found in plans.items():
        store = FeatureStore(home, dataset)
        for plan in found:
            explained = explain(store, plan.key, plan.fields)
            if plan.found.complete:
                reason = "up to date"
            elif explained.nearest is not None and explained.nearest.key == plan.key:
                reason = f"{plan.found.new:,} inputs are new, {plan.found.known:,} are known"
            else:
                reason = str(explained)
            rows.append((dataset, plan.key.label, reason))
    return Table("why", ("dataset", "stream", "reason"), tuple(rows), name="why")


def failure_table(dataset: str, reports: Iterable[StreamReport], home: Home) -> Table | None:
    """First failures of a dataset's streams by sample; None where nothing failed."""
    store = FeatureStore(home, dataset)
    return failures_of(dataset, store, [report.key for report in reports if report.failures])


def failures_of(dataset: str, store: FeatureStore, keys: Sequence[StreamKey]) -> Table | None:
    """First rows that failed in some streams: id, file, reason; None where there are none.

    Args:
        dataset: its name, for the title.
        store: of the dataset.
        keys: the streams.
    """
    rows: list[tuple[Cell, ...]] = []
    suffixes: Counter[str] = Counter()
    total = 0
    for key in keys:
        table = store.failures(key)
        total += len(table)
        suffixes.update(PurePath(file).suffix or "no suffix" for file in table["file"].drop_nulls())
        columns = table.select("id", "file", "reason", "detail").head(_SHOWN)
        rows += [(key.name, *row, dataset) for row in columns.iter_rows()]
    if not rows:
        return None
    notes = []
    if len(rows) < total:
        counts = [f"{count:,} {suffix}" for suffix, count in suffixes.most_common(6)]
        notes.append(f"{len(rows)} of {total:,} shown{'; ' if counts else ''}{', '.join(counts)}")
    heads = (
        "stream", Column("sample", ("id",)), "file", "reason", "detail", Column.hidden("dataset")
    )  # fmt: skip
    title = f"failed samples of {dataset}"
    return Table(title, heads, tuple(rows), tuple(notes), "failed_samples")


def skipped_modalities(left: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence on each modality that no named encoder serves, with the encoders that would."""
    return [
        f"skipped {modality}; {' or '.join(names) or 'no encoder'} would serve it"
        for modality, names in left.items()
    ]


def estimate_table(
    plans: Mapping[str, Sequence[StreamPlan]],
    *,
    home: Home,
    options: ExtractOptions | None = None,
    track: Track = untracked,
) -> Table:
    """`plan_table` with estimated times; nothing is stored.

    Args:
        plans: of each dataset.
        home: where a fitted encoder's state may be.
        options: workers, batches and limit to estimate for.
        track: progress over the streams.

    Raises:
        MmfuseError: from an encoder whose batches are timed.
    """
    options = options or ExtractOptions()
    sized: dict[str, list[StreamPlan]] = {name: [] for name in plans}
    estimates: list[Estimate | None] = []
    each = [(name, one) for name, found in plans.items() for one in found]
    for name, one in track(each, "time batches of each stream", len(each)):
        estimates.append(estimate(one, home=home, options=options))
        if one.width is None and estimates[-1] is not None:  # the encoder is fitted by now
            one = replace(one, width=one.encoder.kinds[one.modality.kind])
        sized[name].append(one)
    table = plan_table(sized)
    times = [None if found is None else found.seconds for found in estimates]
    rows = tuple((*row, time) for row, time in zip(table.rows, times, strict=True))
    flat = [one for found in sized.values() for one in found]
    notes = (*table.notes, *_notes(flat, estimates, options))
    time = Column("time", ("seconds",), lambda seconds: f"~{duration_text(seconds)}")
    return Table(table.title, (*table.columns, time), rows, notes, table.name)


def duration_text(seconds: float) -> str:
    """Format a duration: `40 s`, `12 min`, `3.5 h`."""
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
    """Notes on the total time, with a --limit where it is long, and on what was not timed."""
    notes = []
    if any(found is None and one.download is not None for one, found in _both(plans, estimates)):
        notes.append("no time is given for encoders that have to be downloaded first")
    if any(found is None and one.download is None for one, found in _both(plans, estimates)):
        notes.append("no time is given where none of the samples tried can be read or encoded")
    known = [(one, found) for one, found in _both(plans, estimates) if found is not None]
    total = sum(found.seconds for _, found in known)
    if total <= LONG:
        return notes
    devices = {str(one.encoder.provenance().get("device", "cpu")) for one, _ in known}
    where = "a CPU" if devices == {"cpu"} else " and ".join(sorted(devices))
    note = f"about {total / 3600:,.1f} hours in all on {where}, from three timed batches a stream"
    if options.limit is None:
        each = sum((f.seconds - f.load) / one.found.new for one, f in known if one.found.new)
        step = _round(_STEP / each)
        spent = duration_text(step * each)
        note += f"; --limit {step} would take about {spent}, and a later run resumes"
    return [*notes, note]


def _both(
    plans: Sequence[StreamPlan], estimates: Sequence[Estimate | None]
) -> list[tuple[StreamPlan, Estimate | None]]:
    return list(zip(plans, estimates, strict=True))


def _round(count: float) -> int:
    """Round down to one significant digit: 1,234 → 1,000; at least 1."""
    size = max(1, int(count))
    unit = int(10 ** (len(str(size)) - 1))
    return size // unit * unit
