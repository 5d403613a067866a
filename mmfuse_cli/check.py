"""mmfuse check: the contract of a head, tried on a method or on the user's own file."""

from typing import Annotated

import typer

from mmfuse_cli import words


def check(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="./my_head.py, or the name of a method.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of the method; repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Leave out the promises that train heads.")] = False,
) -> None:
    """Try every promise of the contract on a method; exit code 1 if one is broken."""
    from mmfuse_cli import console
    from pipelines import catalog
    from pipelines.reporting import Table

    asked = words.settings(context)
    catalog.check("methods", method)
    from pipelines import contracts, plans

    options = words.pairs("--set", settings)
    module = catalog.find("methods", method)
    (setting,) = plans.settings(module, method, options)[:1]
    found = contracts.check(method, setting.options, training=not quick, track=console.track)
    broken = [promise for promise in found if not promise.kept]
    rows = tuple((p.text, "kept" if p.kept else "BROKEN", p.detail) for p in found)
    table = Table(f"contract of {method}", ("promise", "", "seen"), rows)
    ends = [f"{len(found) - len(broken)} of {len(found)} promises kept"]
    ends.append(f"next: mmfuse train --method {method}" if not broken else "next: mend the head")
    console.show([table], as_json=asked.json, ends=ends)
    if broken:
        raise typer.Exit(1)
