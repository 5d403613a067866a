"""mmfuse data audit: leaks, duplicates and label traces, from cached features."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments
from mmfuse_cli.examples import epilog

app = typer.Typer(
    help="Check data sets for leakage.",
    rich_markup_mode=None,
    no_args_is_help=True,
    epilog=epilog("data"),
)


@app.callback()
def _group() -> None:
    """Check data sets for leakage."""


@app.command(epilog=epilog("data audit"))
def audit(
    context: typer.Context,
    named: arguments.Named = None,
    dataset: arguments.Dataset = None,
    features: arguments.Features = None,
    texts: Annotated[bool, typer.Option(help="Also search the raw texts for class names.")] = False,
) -> None:
    """Look for leaks, duplicates, label traces. Exit code 1 if there is a leak."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    tables, verdicts = [], []
    names = arguments.stored(asked, arguments.either(named, dataset))
    streams = arguments.features(asked, names, features)
    for name in names:
        home = asked.layout
        raw = mmfuse.open_dataset(name, roots=asked.roots, home=home)[0] if texts else None
        store = mmfuse.FeatureStore(home, name)
        found = mmfuse.audit(store, streams, raw, track=console.track)
        verdicts += [finding.verdict for finding in found]
        rows = tuple(
            (f.verdict, f.check, f.about, f.sentence, name,
             [{"name": word, "value": value} for word, value in f.numbers.items()], f.rows)
            for f in found
        )  # fmt: skip
        hidden = mmfuse.Column.hidden
        columns = (
            "verdict", "check", mmfuse.Column("of", ("about",)),
            mmfuse.Column("what was found", ("finding",)), hidden("dataset"), hidden("numbers"),
            hidden("examples"),
        )  # fmt: skip
        tables.append(mmfuse.Table(f"audit of {name}", columns, rows, name="findings"))
    counts = [f"{verdicts.count(word)} {word}" for word in ("leak", "suspect", "not checked")]
    ends = [f"{', '.join(counts)}; a leak makes test scores too good, a suspect should be checked"]
    console.show(tables, as_json=asked.json, ends=ends)
    if "leak" in verdicts:
        raise typer.Exit(1)
