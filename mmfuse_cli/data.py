"""mmfuse data audit: leaks, duplicates and label traces, found from cached features."""

from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments

app = typer.Typer(help="What is in the data.", rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """What is in the data."""


@app.command()
def audit(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="As the last extract, if left out.")] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Streams to look at; all, if left out.")
    ] = None,
    texts: Annotated[
        bool, typer.Option(help="Open the raw rows too, to look for class names in texts.")
    ] = False,
) -> None:
    """Look for leaks, duplicates and label traces; exit code 1 where there is a leak."""
    from mmfuse_cli import console

    asked = arguments.settings(context)
    tables, verdicts = [], []
    for name in arguments.stored(asked, dataset):
        home = asked.layout
        raw = mmfuse.open_dataset(name, roots=asked.roots, home=home)[0] if texts else None
        found = mmfuse.audit(mmfuse.FeatureStore(home, name), features or None, raw)
        verdicts += [finding.verdict for finding in found]
        rows = tuple((f.verdict, f.check, f.about, f.sentence) for f in found)
        columns = ("verdict", "check", "of", "what was found")
        tables.append(mmfuse.Table(f"audit of {name}", columns, rows))
    told = [f"{verdicts.count(word)} {word}" for word in ("leak", "suspect", "not checked")]
    ends = [f"{', '.join(told)}; a leak makes test scores too good, a suspect is to be looked at"]
    console.show(tables, as_json=asked.json, ends=ends)
    if "leak" in verdicts:
        raise typer.Exit(1)
