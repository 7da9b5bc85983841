"""``cpfnet compare``: paired tests between evaluations."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from cpfnet.cli.console import table

logger = logging.getLogger(__name__)


def compare(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]REPORT...",
            help="Folders that `cpfnet evaluate -o` wrote; one NAME several times: runs of one method.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write comparison.csv, comparison.json and report.html here."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the others are compared with; default: the first.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Compare evaluations of the same cases: paired differences with intervals, tests and a verdict in words.

    Examples:

    - `cpfnet compare scores-unet scores-cpfnet -o comparison`
    - `cpfnet compare unet=u0 unet=u1 unet=u2 cpfnet=c0 cpfnet=c1 cpfnet=c2 --against unet`
    """
    from cpfnet import api
    from cpfnet.evaluation.comparison.report import console_table

    comparison = api.compare(reports, against=against, out=out, overwrite=overwrite)
    for method in comparison.methods[1:]:
        columns, rows, styles = console_table(comparison, method)
        table(f"{method} against {comparison.reference}", columns, rows, styles=styles)
    for warning in comparison.warnings:
        logger.warning(warning)
    logger.info(f"Correction: {comparison.protocol['correction']}")
    if out is not None:
        logger.info(f"Report: {out / 'report.html'}")
