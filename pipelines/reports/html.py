"""One self-contained HTML page about runs: tables, charts, and all their settings."""

from collections.abc import Sequence

import polars as pl

from cache.feature_store import FeatureStore
from cache.layout import Home
from cache.runs import RunRecord, find_runs
from pipelines.evaluation.recorded import recorded_scores
from pipelines.metrics.metrics import RECALL
from pipelines.progress import Track, untracked
from pipelines.reports import charts
from pipelines.reports import runs as results
from pipelines.reports.compare import compare
from pipelines.reports.extraction import failures_of
from pipelines.reports.recall import recall_tables
from pipelines.reports.table import Column, Spread, Table, html_text

UNDEFINED = Spread(())

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.word, th.word { text-align: left; }
thead th { border-bottom: 1px solid; } tbody tr:nth-child(even) { background: #8881; }
p.note { margin: .2rem 0; opacity: .75; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
code { font-size: .9em; } details { margin: .4rem 0; }
"""


def report(
    home: Home,
    runs: RunRecord | str | Sequence[RunRecord | str],
    metrics: Sequence[str] = (),
    *,
    track: Track = untracked,
) -> str:
    """HTML page about runs; it loads nothing from elsewhere.

    Args:
        home: where the runs are.
        runs: one or several, as records, ids or prefixes of ids.
        metrics: to show; default: the task's first, and the one that selected the runs. `recall`
            adds that of each class.
        track: progress over the runs that are compared, and the datasets.
    """
    chosen = find_runs(home, runs)
    datasets = list(dict.fromkeys(run.dataset for run in chosen))
    title = html_text(", ".join(datasets))
    parts = [f"<h1>mmfuse: {title}</h1>", results.train_table(chosen, metrics).to_html()]
    if RECALL in metrics:
        parts += [table.to_html() for table in recall_tables(chosen)]
    if len(chosen) > len(datasets):
        parts.append(compare(home, chosen, metrics=metrics, track=track).to_html())
    for dataset in track(datasets, "draw charts of datasets", len(datasets)):
        group = [run for run in chosen if run.dataset == dataset]
        every = [scores for run in group for scores in run.scores]
        shown = results.shown_metrics(group, metrics, every=every)
        for metric in shown:
            parts += _missing(dataset, group, metric, whole=metric == shown[-1])
        parts += _curves(dataset, group)
        parts += _failed(home, dataset, group)
    parts.append(results.cost_table(chosen).to_html())
    parts.append("<h2>Settings to reproduce each run</h2>")
    parts += [_details(run) for run in chosen]
    head = f'<meta charset="utf-8"><title>mmfuse: {title}</title><style>{STYLE}</style>'
    look = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    start = f'<!doctype html>\n<html lang="en">\n<head>{head}{look}</head>'
    return f"{start}\n<body>\n{body}\n</body></html>\n"


def _missing(dataset: str, runs: Sequence[RunRecord], metric: str, *, whole: bool) -> list[str]:
    """A metric on test rows under every missing pattern that was scored: a table and a chart.

    Args:
        dataset: its name.
        runs: of it.
        metric: by name.
        whole: whether a hint follows where only one pattern was scored.
    """
    groups: dict[str, dict[str, Spread]] = {}
    for run, name in zip(runs, results.run_labels(runs), strict=True):
        for scores in recorded_scores(run, [metric]):
            if scores.split == "test":
                found = results.metric_values(scores, metric) or UNDEFINED
                groups.setdefault(scores.pattern, {})[name] = found
    for name in results.PLAIN:
        for scores in runs[0].baselines.get(name, []):
            if scores.split == "test" and scores.pattern in groups:
                found = results.metric_values(scores, metric) or UNDEFINED
                groups[scores.pattern][name] = found
    drawn = charts.dot_chart(groups, f"test {metric}")
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    rows = tuple((name, *(group.get(name) for group in groups.values())) for name in names)
    columns = [Column("method"), *(Column.spread(pattern) for pattern in groups)]
    table = Table(f"{dataset}: test {metric} by missing pattern", tuple(columns), rows)
    hint = '<p class="note">mmfuse eval adds patterns here.</p>'
    return [table.to_html(), drawn, hint if whole and len(groups) < 2 else ""]


def _curves(dataset: str, runs: Sequence[RunRecord]) -> list[str]:
    """Chart of validation scores over epochs, mean over the replicas that still train."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for run, name in zip(runs, results.run_labels(runs), strict=True):
        mean = (
            run.history()
            .with_columns(pl.col("score").fill_nan(None))
            .group_by("stage", "epoch", maintain_order=True)
            .agg(pl.col("score").mean())
        )
        scores = [value for value in mean["score"].to_list() if value is not None]
        curves[name] = [(float(epoch), value) for epoch, value in enumerate(scores, 1)]
    drawn = charts.line_chart(curves, "epoch", results.first_metric(runs[0].scores))
    return [f"<h2>{html_text(dataset)}: validation while training</h2>", drawn] if drawn else []


def _failed(home: Home, dataset: str, runs: Sequence[RunRecord]) -> list[str]:
    """Rows of the runs' streams that could not be encoded, by id and file; [] without any."""
    store = FeatureStore(home, dataset)
    used = {(stream.fingerprint, stream.modality) for run in runs for stream in run.streams}
    infos = [info for info in store.streams() if info.counts["failed"]]
    keys = [i.key for i in infos if (i.key.fingerprint, i.key.modality) in used]
    found = failures_of(dataset, store, keys)
    return [] if found is None else [found.to_html()]


def _details(run: RunRecord) -> str:
    facts = {
        "method": run.method,
        "dataset": run.dataset,
        "streams": ", ".join(f"{s.encoder}-{s.fingerprint[:8]}/{s.modality}" for s in run.streams),
        "data × weights": results.evidence_tags(run),
        "options": ", ".join(f"{key}={value}" for key, value in run.options.items()),
        "selected": results.selection(run),
        "plan": ", ".join(f"{key}={value}" for key, value in run.plan.items()),
        "seeds": ", ".join(map(str, run.seeds)),
        "parameters of a head": f"{run.parameters:,}",
        "trained": f"{run.seconds:.1f} s on {run.device}, {run.created}",
        "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
    }
    rows = "".join(
        f'<tr><td>{html_text(name)}</td><td class="word">{html_text(fact)}</td></tr>'
        for name, fact in facts.items()
    )
    table = f'<div class="wide"><table>{rows}</table></div>'
    return f"<details><summary><code>{html_text(run.id)}</code></summary>{table}</details>"
