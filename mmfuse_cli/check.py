"""mmfuse check: the contract of a head or an encoder, tried by name or on the user's own file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments


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

    asked = arguments.settings(context)
    if mmfuse.is_encoder(method):
        local = str(weights) if weights else None
        tried = mmfuse.check_encoder(method, weights=local, track=console.track)
        _show(asked, method, tried, f"mmfuse extract --encoder {method}")
        return
    mmfuse.catalog.check("methods", method)

    options = arguments.pairs("--set", settings)
    found = mmfuse.check(method, options, training=not quick, track=console.track)
    _show(asked, method, found, f"mmfuse train --method {method}")


def _show(asked: arguments.Settings, word: str, found: "Sequence[mmfuse.Check]", then: str) -> None:
    """A row a promise; exit code 1 where one is broken."""
    from mmfuse_cli import console

    broken = [promise for promise in found if not promise.passed]
    seen = [p.detail for p in found]
    rows = tuple(
        (p.text, "kept", p.detail)
        if p.passed
        else (
            p.text,
            "BROKEN",
            "the same" if p.detail in seen[:number] and not asked.json else p.detail,
        )
        for number, p in enumerate(found)
    )
    table = mmfuse.Table(f"contract of {word}", ("promise", "", "seen"), rows)
    ends = [f"{len(found) - len(broken)} of {mmfuse.count_of(len(found), 'promise')} kept"]
    ends.append(f"next: {then}" if not broken else f"next: mend {word}")
    console.show([table], as_json=asked.json, ends=ends)
    if broken:
        raise typer.Exit(1)
