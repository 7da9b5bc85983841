"""The program `cpfnet`: its commands, in the order of its help, and how failures end.

Heavy libraries load only when a command needs them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import cpfnet
from cpfnet.cli import weights
from cpfnet.cli.compare import compare
from cpfnet.cli.console import complain, messages, put_json, set_up_streams, shows_progress, table
from cpfnet.cli.dataset import check, convert, plan
from cpfnet.cli.evaluate import evaluate
from cpfnet.cli.export import export
from cpfnet.cli.options import App, AsJson, Quiet, Verbose, level
from cpfnet.cli.predict import predict
from cpfnet.cli.serve import serve
from cpfnet.cli.share import pack, pull, push
from cpfnet.cli.train import train
from cpfnet.errors import CpfnetError, is_out_of_memory, redacted_message, require_extras
from cpfnet.text import printable


class Commands(TyperGroup):
    """Usage errors repeat what was typed, or what a pattern of the shell found."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if hasattr(error, "format_message"):  # typer's; the class differs from version to version
                error.message = printable(error.message)  # type: ignore[attr-defined]
            raise


app = App(
    name="cpfnet",
    cls=Commands,
    help="Medical-image segmentation built on CPFNet: from a folder of scans and masks to masks that a clinic can "
    "use.\n\n"
    "In order: doctor, check, plan, train, predict, serve, evaluate, compare, export. "
    "`cpfnet COMMAND --help` shows examples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cpfnet {cpfnet.__version__}")
        raise typer.Exit


@app.callback()
def every(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    context.with_resource(messages(level(quiet, verbose)))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell what this installation can do, and how to fix what it lacks.

    Examples:

    - `cpfnet doctor`
    """
    from cpfnet.installation import doctor as run

    checks = run()
    if as_json:
        put_json([check.as_dict() for check in checks])
        return
    colours = {"ok": "", "limited": "yellow", "missing": "red"}
    rows = [[c.name, c.status, c.detail + (f"\n→ {c.fix}" if c.fix else "")] for c in checks]
    table("This installation", ["what", "", "found"], rows, styles=[colours[c.status] for c in checks])
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(1)


app.command()(check)
app.command()(plan)
app.command()(train)
app.command(no_args_is_help=True)(predict)
app.command(no_args_is_help=True)(serve)
app.command(no_args_is_help=True)(evaluate)
app.command(no_args_is_help=True)(compare)
app.command(no_args_is_help=True)(export)
app.command(no_args_is_help=True)(convert)
app.command(no_args_is_help=True)(push)
app.command(no_args_is_help=True)(pull)
app.command(no_args_is_help=True)(pack)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where to work.")] = Path("cpfnet-demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demonstration in DIR.")] = False,
) -> None:
    """Do all of it on real data that come with a dependency: check, plan, train, predict, evaluate.

    Examples:

    - `cpfnet demo`
    """
    from cpfnet.demo import demo as run

    run(out, overwrite=overwrite, progress=shows_progress())


def fail(error: CpfnetError) -> NoReturn:
    """Print what is wrong, where and how to fix it, and end with exit code 1."""
    try:
        complain(str(error))
    except (MemoryError, ImportError, OSError, SystemError):  # where memory is short, rich may not load either
        print(f"error: {printable(str(error), keep=chr(10))}", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Entry point; where memory does not even suffice for the message, there is a shorter one."""
    try:
        _main()
    except (MemoryError, SystemError):  # Python may lose the first, and raise the other for want of it
        os.write(2, b"error: the memory does not suffice\n")
        os._exit(1)  # SystemExit might find no memory either, and end in a traceback


def _main() -> None:
    """Every foreseeable failure ends in one message, never in a traceback."""
    set_up_streams()
    try:
        with require_extras():
            app()
    except CpfnetError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        fail(_as_cpfnet_error(error))


def _as_cpfnet_error(error: Exception) -> CpfnetError:
    """What a library or the system raised, for whoever reads only this."""
    if is_out_of_memory(error):
        return CpfnetError(
            f"the memory does not suffice: {redacted_message(error)}",
            fix="close other programs, allow this one more (ulimit -v, the scheduler's --mem), or give it less at once "
            "(predict --tile and --batch, train --set training.batch=1)",
        )
    if isinstance(error, OSError):
        return CpfnetError(
            error.strerror or str(error),
            where=error.filename,
            fix="free some space, or check the path and its permissions",
        )
    if os.environ.get("CPFNET_DEBUG"):
        raise error
    return CpfnetError(
        f"{type(error).__name__}: {redacted_message(error)}",
        fix="this is a defect of cpfnet: run again with CPFNET_DEBUG=1 and report what it prints",
    )
