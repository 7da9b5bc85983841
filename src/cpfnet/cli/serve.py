"""``cpfnet serve``: Models over HTTP."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from cpfnet.cli.console import put
from cpfnet.cli.options import PLACE, Backend, Device

KEPT, WHO = "What is kept", "Who may come in"
"""Groups of options in the help, besides those of `cpfnet.cli.options`."""


def serve(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Models or cross-validations: folders, .zip files or hf://OWNER/NAME, each served by itself.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="To listen on: this machine only, since there are no users yet.", rich_help_panel=WHO)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.", rich_help_panel=WHO)] = 8000,
    require_token: Annotated[
        bool,
        typer.Option("--require-token", help="From scripts, too, not from browsers alone.", rich_help_panel=WHO),
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
    store: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for jobs, inputs and results.", rich_help_panel=KEPT)
    ] = Path("cpfnet-serve"),
    database: Annotated[
        str | None,
        typer.Option(
            envvar="CPFNET_DATABASE",
            metavar="URL",
            help="PostgreSQL for the jobs, postgresql://USER@HOST/NAME; default: SQLite in the store.",
            rich_help_panel=KEPT,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="How much is taken: body, unpacked and free_disk in bytes, files and voxels of an image, queue in "
            "jobs, wait and silence in seconds; may repeat.",
            rich_help_panel=WHO,
        ),
    ] = None,
    retention: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="DAYS",
            help="Delete finished jobs with their files after so many days; default: never.",
            rich_help_panel=KEPT,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes for each Model.", rich_help_panel=PLACE)] = 1,
    max_attempts: Annotated[
        int,
        typer.Option(min=1, help="Fail a job once so many worker processes died of it.", rich_help_panel=PLACE),
    ] = 5,
    backend: Backend = "auto",
    device: Device = "auto",
) -> None:
    """Serve Models over HTTP to programs and browsers of this machine, until Ctrl-C.

    Examples:

    - `cpfnet serve model`
    - `cpfnet serve vessels/ lesions/ --port 8080 --store /var/lib/cpfnet --no-browser`
    """
    from cpfnet import api
    from cpfnet.errors import require_extras

    with require_extras():
        from cpfnet.serve.options import Limits, ServeOptions
        from cpfnet.serve.store import StoreOptions

    options = ServeOptions(
        host=host,
        port=port,
        store=StoreOptions(store, database, max_attempts),
        workers=workers,
        device=device,
        backend=backend,
        require_token=require_token,
        retention=retention,
        limits=Limits.given(limit or ()),
    )

    def started(address: str, entrance: str) -> None:
        put(f"Serving on {address}\nIn a browser: {entrance}\nCtrl-C ends it.")
        sys.stdout.flush()
        if not no_browser:
            webbrowser.open(entrance)

    api.serve(models, options, started=started)
