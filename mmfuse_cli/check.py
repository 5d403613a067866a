"""mmfuse check: the contract of a head or an encoder, tried by name or on the user's own file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmfuse_cli import words

if TYPE_CHECKING:
    from pipelines.contracts.result import Promise


def check(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(help="./my_head.py or ./my_encoder.py, or the name of one.")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of the method; repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Leave out the promises that train heads.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Local weights of an encoder.")] = None,
) -> None:
    """Try every promise of the contract on a head or an encoder; exit code 1 if one is broken."""
    from mmfuse_cli import console
    from pipelines import catalog
    from pipelines.contracts import encoder

    asked = words.settings(context)
    if encoder.is_encoder(method):
        local = str(weights) if weights else None
        tried = encoder.check(method, weights=local, track=console.track)
        _show(asked, method, tried, f"mmfuse extract --encoder {method}")
        return
    catalog.check("methods", method)
    from pipelines.contracts import head
    from pipelines.training import plan

    options = words.pairs("--set", settings)
    module = catalog.find("methods", method)
    (setting,) = plan.settings(module, method, options)[:1]
    found = head.check(method, setting.options, training=not quick, track=console.track)
    _show(asked, method, found, f"mmfuse train --method {method}")


def _show(asked: words.Settings, word: str, found: "Sequence[Promise]", then: str) -> None:
    """A row a promise; exit code 1 where one is broken."""
    from mmfuse_cli import console
    from pipelines.reports.table import Table, several

    broken = [promise for promise in found if not promise.kept]
    seen = [p.detail for p in found]
    rows = tuple(
        (p.text, "kept", p.detail)
        if p.kept
        else (
            p.text,
            "BROKEN",
            "the same" if p.detail in seen[:number] and not asked.json else p.detail,
        )
        for number, p in enumerate(found)
    )
    table = Table(f"contract of {word}", ("promise", "", "seen"), rows)
    ends = [f"{len(found) - len(broken)} of {several(len(found), 'promise')} kept"]
    ends.append(f"next: {then}" if not broken else f"next: mend {word}")
    console.show([table], as_json=asked.json, ends=ends)
    if broken:
        raise typer.Exit(1)
