"""mmfuse check: conformance checks of a head or an encoder, by name or a user's own file."""

from collections.abc import Sequence
from typing import Annotated

import typer

import mmfuse
from mmfuse_cli import arguments


def check(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(help="Head or encoder: a name, ./my_head.py or ./my_encoder.py.")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the head, name=value; repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Skip the checks that train heads.")] = False,
    weights: arguments.Weights = None,
) -> None:
    """Check the contract of a head or an encoder. Exit code 1 if a check fails."""
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
    """Show one row a check; exit code 1 if one failed."""
    from mmfuse_cli import console

    failed = [one for one in found if not one.passed]
    seen = [one.detail for one in found]
    rows = tuple(
        (one.text, one.passed, (one.detail, not one.passed and one.detail in seen[:number]))
        for number, one in enumerate(found)
    )
    columns = (
        "check",
        mmfuse.Column.flag("result", "passed", "passed", "FAILED"),
        mmfuse.Column(
            "seen",
            ("detail",),
            lambda cell: "the same" if cell[1] else cell[0],
            lambda cell: (cell[0],),
        ),
    )
    table = mmfuse.Table(f"contract of {word}", columns, rows, name="checks")
    ends = [f"{len(found) - len(failed)} of {mmfuse.count_of(len(found), 'check')} passed"]
    ends.append(f"next: {then}" if not failed else f"next: fix {word}")
    console.show([table], as_json=asked.json, ends=ends)
    if failed:
        raise typer.Exit(1)
