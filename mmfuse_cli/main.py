"""The mmfuse app: all commands; user errors are one line and exit code 2."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mmfuse
from mmfuse_cli import (
    arguments,
    cache,
    check,
    compare,
    console,
    data,
    demo,
    doctor,
    evaluate,
    extract,
    predict,
    report,
    runs,
    sweep,
    train,
)
from mmfuse_cli import (
    list as list_,
)
from mmfuse_cli.examples import epilog

_ClickError: Any = typer.BadParameter.__mro__[2]  # of click, which new versions of typer contain


class _Commands(TyperGroup):
    """The group of all commands; prints user errors as one line."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:  # noqa: ANN401
        """Run; errors in the words typed are printed here, control characters written out."""
        run: Any = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        try:
            code = run(*args, standalone_mode=False, **extra)
        except _ClickError as error:
            shown = io.StringIO()
            error.show(shown)
            console.error(shown.getvalue().rstrip("\n"))
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own signature differs by version
        try:
            return super().invoke(ctx)
        except mmfuse.MmfuseError as error:
            console.error(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            console.error("stopped; run the same command again to resume")
            raise typer.Exit(130) from None
        finally:
            console.clear()


app = typer.Typer(
    name="mmfuse",
    cls=_Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Multimodal fusion on cached features of frozen encoders, with modalities missing.",
    epilog=f"--home, --data and --json may also follow the command.\n\n{epilog('')}",
)


def _show_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        typer.echo(f"mmfuse {mmfuse.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(envvar="MMFUSE_HOME", help="Folder of features and runs.")
    ] = Path("artifacts"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of raw data; default: $MMFUSE_DATA, then ./data.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    if home.is_file():
        raise mmfuse.MmfuseError(f"--home {home}: a file is in the way; name a folder")
    context.obj = arguments.Settings(home, arguments.data_roots(data), json)


app.command("demo", epilog=epilog("demo"))(demo.demo)
app.command("extract", epilog=epilog("extract"))(extract.extract)
app.command("train", epilog=epilog("train"))(train.train)
app.command("sweep", epilog=epilog("sweep"))(sweep.sweep)
app.command("eval", epilog=epilog("eval"))(evaluate.evaluate)
app.command("predict", epilog=epilog("predict"))(predict.predict)
app.command("compare", epilog=epilog("compare"))(compare.compare)
app.command("report", epilog=epilog("report"))(report.report)
app.command("runs", epilog=epilog("runs"))(runs.runs)
app.command("check", epilog=epilog("check"))(check.check)
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
app.command("list", epilog=epilog("list"))(list_.list_names)
app.command("doctor", epilog=epilog("doctor"))(doctor.doctor)


def main() -> None:
    """Run the command line; the entry point `mmfuse`."""
    # Threads that spin while they wait make small steps ten times slower on a busy machine; OpenMP
    # reads this once, when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app(args=arguments.to_the_front(sys.argv[1:]), prog_name="mmfuse")


if __name__ == "__main__":
    main()
