"""Records → tables: what a run, a score or a stream looks like as rows of words and numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cache.runs import RunRecord, Scores
from pipelines.evaluation import Evaluation


@dataclass(frozen=True)
class Spread:
    """One number a replica; written as mean ± sample standard deviation.

    Attributes:
        values: one value a replica; NaN where it is undefined.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over replicas; NaN when there is none or one of them is NaN."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation (R - 1); 0 for a single replica."""
        if len(self.values) < 2:
            return 0.0
        mean = self.mean
        squares = math.fsum((value - mean) ** 2 for value in self.values)
        return math.sqrt(squares / (len(self.values) - 1))

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        if len(self.values) == 1 or (self.std == 0 and len(set(self.values)) == 1):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.std:.3f}"


PLAIN = ("logistic", "ridge", "majority")  # baselines that stand beside every method
Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; knows nothing of where it is drawn.

    Attributes:
        title: one line above it.
        columns: their names, also the keys of `records`.
        rows: one cell a column; None is drawn as "-".
        notes: sentences below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def texts(self) -> list[list[str]]:
        """Every cell as it is read by people."""
        return [[text(cell) for cell in row] for row in self.rows]

    def records(self) -> dict[str, object]:
        """The same as JSON: a spread keeps all its values, NaN becomes null."""
        rows = [
            {name: _plain(cell) for name, cell in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def text(cell: Cell) -> str:
    """A cell as people read it: 12,345 for counts, 0.123 for numbers, "-" for nothing."""
    match cell:
        case None:
            return "-"
        case bool() | str() | Spread():
            return str(cell)
        case int():
            return f"{cell:,}"
        case _:
            return "-" if math.isnan(cell) else f"{cell:.3f}"


def counted(reasons: dict[str, int]) -> str:
    """`3 (2 truncated, 1 empty)`, most frequent first; `0` when there is nothing."""
    total = sum(reasons.values())
    if not total:
        return "0"
    parts = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return f"{total:,} ({', '.join(f'{count:,} {reason}' for reason, count in parts)})"


def amount(size: float) -> str:
    """Bytes as people read them, in powers of ten: `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _plain(cell: Cell) -> object:
    match cell:
        case Spread():
            values = [_number(value) for value in cell.values]
            return {"mean": _number(cell.mean), "std": _number(cell.std), "values": values}
        case float():
            return _number(cell)
        case _:
            return cell


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trained(records: Sequence[RunRecord]) -> Table:
    """Runs by dataset: validation and test score, with the plain baselines of their streams below.

    Args:
        records: at least one.
    """
    rows: list[tuple[Cell, ...]] = []
    for dataset in dict.fromkeys(record.dataset for record in records):
        runs = [record for record in records if record.dataset == dataset]
        rows += [
            _trained_row(run, name, run.scores)
            for run, name in zip(runs, labels(runs), strict=True)
        ]
        beside: dict[tuple[str, object], tuple[Cell, ...]] = {}
        for run in runs:
            for name, found in run.baselines.items():
                if name in PLAIN:
                    streams = () if name == "majority" else run.streams
                    beside.setdefault((name, streams), _trained_row(run, name, found))
        rows += [beside[key] for key in sorted(beside, key=lambda key: key[0])]
    columns = ("dataset", "method", "metric", "val", "test", "parameters", "data", "weights")
    title = f"trained: mean ± standard deviation over {_seeds(records)}"
    return Table(title, columns, tuple(rows), _trained_notes(records))


def evaluated(evaluations: Sequence[Evaluation]) -> Table:
    """Runs under missing patterns: score, change from complete, and baselines under the same."""
    runs = [evaluation.run for evaluation in evaluations]
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for evaluation, name in zip(evaluations, labels(runs), strict=True):
        for row in evaluation.rows:
            change = row.difference
            kind, single = row.single
            rows.append((
                evaluation.run.dataset, name, row.scores.pattern, evaluation.metric,
                _first(row.scores), f"{row.scores.realised_rate:.3f}",
                None if change is None else f"{change.mean:+.3f}",
                None if change is None else f"{change.low:+.3f} … {change.high:+.3f}",
                _first(row.linear), f"{kind} {_first(single)}", _first(row.majority),
            ))  # fmt: skip
        notes += evaluation.notes
    columns = (
        "dataset", "method", "missing", "metric", "score", "hidden", "change", "95 % interval",
        "linear", "best single", "majority",
    )  # fmt: skip
    told = (
        "hidden: share of present cells; change: to complete, paired bootstrap over rows and seeds",
        "linear, best single, majority: under the same pattern, single chosen on validation rows",
    )
    return Table("test scores", columns, tuple(rows), (*told, *dict.fromkeys(notes)))


def robustness(evaluations: Sequence[Evaluation]) -> Table:
    """Methods × what is missing, on test rows, of runs on the same streams of one dataset.

    Args:
        evaluations: under the same patterns, at least one.
    """
    first = evaluations[0]
    patterns = [row.scores.pattern for row in first.rows]
    tags = (first.run.tags["data"], first.run.tags["weights"])
    rows: list[tuple[Cell, ...]] = [
        (name, *(_first(row.scores) for row in evaluation.rows), *tags)
        for evaluation, name in zip(evaluations, labels([e.run for e in evaluations]), strict=True)
    ]
    plain = "ridge" if first.run.task.kind == "value" else "logistic"
    rows.append((plain, *(_first(row.linear) for row in first.rows), *tags))
    rows.append(("majority", *(_first(row.majority) for row in first.rows), *tags))
    title = f"{first.run.dataset}: test {first.metric}, mean ± standard deviation over "
    title += f"{_seeds([first.run])}, {first.rows[0].scores.rows} rows"
    return Table(title, ("method", *patterns, "data", "weights"), tuple(rows))


def past(records: Sequence[RunRecord]) -> Table:
    """Past runs, newest last: what they were, and their complete test score."""
    rows = tuple(
        (
            run.id,
            run.created[:16].replace("T", " "),
            run.dataset,
            run.method,
            " ".join(stream.name for stream in run.streams),
            f"{metric(run.scores)} {score(run.scores, 'test')}",
        )
        for run in records
    )
    return Table("runs", ("run", "when (UTC)", "dataset", "method", "streams", "test"), rows)


def labels(records: Sequence[RunRecord]) -> list[str]:
    """A name a run: its method, with the settings in which runs of that method differ."""
    found = []
    for record in records:
        own = {**record.plan, **record.options}
        alike = [run for run in records if run.method == record.method]
        others = [{**run.plan, **run.options} for run in alike]
        differing = [
            f"{name}={value}"
            for name, value in own.items()
            if name != "seeds" and any(other.get(name, value) != value for other in others)
        ]
        if len({tuple(stream.name for stream in run.streams) for run in alike}) > 1:
            differing.append("+".join(stream.name for stream in record.streams))
        found.append(" ".join([record.method, *differing]))
    return found


def metric(found: Sequence[Scores]) -> str:
    """Name of the task's first metric."""
    return next(iter(found[0].metrics)) if found else "-"


def score(found: Sequence[Scores], split: str, pattern: str | None = None) -> Spread | None:
    """The task's first metric on a split; None where it was not scored.

    Args:
        found: of a run or a baseline.
        split: val or test.
        pattern: what was missing; None = as in training.
    """
    for scores in found:
        if scores.split == split and pattern in (None, scores.pattern):
            return _first(scores)
    return None


def _seeds(records: Sequence[RunRecord]) -> str:
    counts = sorted({len(record.seeds) for record in records})
    return f"{', '.join(map(str, counts))} seed{'' if counts == [1] else 's'}"


def _first(scores: Scores) -> Spread:
    return Spread(tuple(next(iter(scores.metrics.values()))))


def _trained_row(run: RunRecord, name: str, found: Sequence[Scores]) -> tuple[Cell, ...]:
    own = name not in PLAIN
    return (
        run.dataset,
        name,
        metric(found),
        score(found, "val"),
        score(found, "test"),
        run.parameters if own else None,
        run.tags["data"],
        run.tags["weights"],
    )


def _trained_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    streams = dict.fromkeys(tuple(stream.name for stream in run.streams) for run in records)
    notes = [f"streams: {', '.join(names)}" for names in streams]
    for run in records:
        asked = run.plan.get("missing_rate")
        if asked:
            notes.append(f"missing rate {asked} hid {run.missing_rate:.3f} of the present cells")
        notes += run.notes
    if any(run.tags["weights"] == "random" for run in records):
        notes.append("random weights show speed, never accuracy")
    return tuple(dict.fromkeys(notes))
