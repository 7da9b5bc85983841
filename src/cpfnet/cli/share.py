"""``cpfnet push``, ``pull`` and ``pack``: hand a Model on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from cpfnet.cli.options import Overwrite

logger = logging.getLogger(__name__)

Shared = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The folder, or its .zip file, of a Model.", show_default=False)
]


def push(
    model: Shared,
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Where to on the hub; made if need be.", show_default=False)
    ],
    public: Annotated[
        bool, typer.Option("--public/--private", help="Who may see it: everybody, or only whom you let in.")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option("--license", metavar="NAME", help="Of the weights, such as cc-by-4.0; default: none is stated."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Send a Model to a hub, without images, logs or the names of cases; private unless you say otherwise.

    Examples:

    - `cpfnet push model anna/vessels`
    - `cpfnet push model anna/vessels --public --license cc-by-4.0`
    """
    from cpfnet import api

    sent = api.push(model, repository, public=public, licence=license, overwrite=overwrite)
    logger.info("Sent. To predict with it:  cpfnet predict %s INPUT... -o DIR", sent)


def pull(
    repository: Annotated[
        str,
        typer.Argument(
            metavar="OWNER/NAME[@REVISION]",
            help="Which Model on the hub; REVISION: a commit, tag or branch.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="The folder to make; default: NAME.")
    ] = None,
) -> None:
    """Fetch a Model from a hub into a folder, checked by its hashes; run again, a cut download goes on.

    Examples:

    - `cpfnet pull anna/vessels`
    - `cpfnet pull anna/vessels@v1 -o vessels-v1`
    """
    from cpfnet import api

    logger.info("Written: %s", api.pull(repository, out))


def pack(
    model: Shared,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The .zip file to make; default: MODEL.zip here.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a Model as one .zip file, without images, logs or the names of cases; it may stand for the Model.

    Examples:

    - `cpfnet pack model`
    - `cpfnet pack model -o vessels.zip`
    - `cpfnet predict vessels.zip scan.nii.gz -o masks`
    """
    from cpfnet import api

    logger.info("Written: %s", api.pack(model, out, overwrite=overwrite))
