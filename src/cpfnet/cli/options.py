"""Arguments and options that several commands take."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import CommandFunctionType as Command

from cpfnet.cli.console import set_level

DATASET = typer.Argument(
    metavar="DATASET", help="Folder, dataset.yaml, CSV manifest or datalist JSON.", show_default=False
)
Dataset = Annotated[Path, DATASET]
PLAN, PLACE, EARLIER, TOLD = "What is planned", "Where it runs", "What was done before", "Messages"
"""Groups of options in the help."""
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=PLACE)]
Backend = Annotated[
    str,
    typer.Option(
        rich_help_panel=PLACE,
        help="What runs the network: auto (the fastest that decides as float32 does), torch, torch-bf16, "
        "torch-fp16, torch-compile, onnx, openvino, openvino-bf16 or openvino-int8.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the plan, e.g. training.batch=8; may repeat.",
        rich_help_panel=PLAN,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=EARLIER)]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE",
        help="Import this module, code of which the plan or Model names as MODULE:NAME; may repeat. Name none that you "
        "do not know: it runs.",
        rich_help_panel=PLACE,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Only warnings, errors and results; no progress bars.", rich_help_panel=TOLD)
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Details, too.", rich_help_panel=TOLD)]


def level(quiet: bool, verbose: bool) -> int:
    """From which level on messages are printed.

    Raises:
        typer.BadParameter: both are asked for.
    """
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    return logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO


class App(typer.Typer):
    """Commands that each take ``--quiet`` and ``--verbose``, as the program itself does before a command's name."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[Command], Command]:
        register = super().command(*arguments, **options)
        return lambda command: register(_with_level(command))


def _with_level(command: Command) -> Command:
    @wraps(command)
    def run(*, quiet: bool, verbose: bool, **arguments: Any) -> Any:
        if quiet or verbose:
            set_level(level(quiet, verbose))
        return command(**arguments)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]
