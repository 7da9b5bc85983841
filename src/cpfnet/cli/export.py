"""``cpfnet export``: a Model for other runtimes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from cpfnet.cli.console import shows_progress
from cpfnet.cli.options import AllowImport

logger = logging.getLogger(__name__)


def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The folder that `cpfnet train -o MODEL` wrote.", show_default=False)
    ],
    to: Annotated[
        Literal["onnx", "openvino", "openvino-int8", "bundle"],
        typer.Option("--to", help="What to write; bundle: a MONAI bundle.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File or folder to make; default: in MODEL/exports, where `predict` looks."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="openvino-int8: the dataset that the Model was trained on.")
    ] = None,
    allow_import: AllowImport = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies at --out.")] = False,
) -> None:
    """Write a Model for other runtimes, checked against torch.

    Examples:

    - `cpfnet export model --to onnx`
    - `cpfnet export model --to onnx -o vessels.onnx`
    - `cpfnet export model --to openvino-int8 --data drive.yaml`
    - `cpfnet export model --to bundle -o vessels-bundle`
    """
    from cpfnet import api

    written = api.export(
        model,
        to,
        out=out,
        data=data,
        allow_import=allow_import or [],
        overwrite=overwrite,
        progress=shows_progress(),
    )
    logger.info("Written: %s", written)
