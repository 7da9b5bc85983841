"""``cpfnet evaluate``: masks against labels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from cpfnet.cli.console import shows_progress, table
from cpfnet.cli.options import AllowImport, Dataset, Overwrite

logger = logging.getLogger(__name__)

SCORED, MODELS = "What is scored, and how", "Where Models predict"
"""Groups of options in the help."""


def evaluate(
    dataset: Dataset,
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS|MODEL...", help="A folder of masks, or Models, which then predict.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write scores.csv, scores.json and report.html here."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val, test or all; default: labelled test cases, else all. Of a Model, val means the cases "
            "that validated it; of a cross-validation it is the default, out of fold.",
            rich_help_panel=SCORED,
        ),
    ] = None,
    threshold_on: Annotated[
        str | None,
        typer.Option(
            help="Take the threshold with the best mean Dice over this split (train or val); default: as fitted.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Of NSD: mm, or pixels where there are no mm.", rich_help_panel=SCORED)
    ] = 1.0,
    guide_batch: Annotated[
        int, typer.Option(min=1, help="Cases pooled for the batch-pooled Dice.", rich_help_panel=SCORED)
    ] = 4,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Count a case without prediction as predicted empty.", rich_help_panel=SCORED
        ),
    ] = False,
    label_plan: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN",
            help="plan.yaml with the labels of a folder of masks; default: the dataset's.",
            rich_help_panel=SCORED,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MODELS)] = "auto",
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over mirrored and turned copies.", rich_help_panel=MODELS)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on outside what they were fitted for.", rich_help_panel=MODELS)
    ] = False,
    allow_import: AllowImport = None,
    overwrite: Overwrite = False,
) -> None:
    """Score masks against labels: per case and class, with intervals and counts, and a report.

    Examples:

    - `cpfnet evaluate data/ masks/ -o scores`
    - `cpfnet evaluate data/ model -o scores --split test`
    - `cpfnet evaluate data/ cv -o scores`
    - `cpfnet evaluate drive.yaml model -o scores --split test --threshold-on train`
    """
    from cpfnet import api
    from cpfnet.evaluation.tables import console_table
    from cpfnet.inference.options import PredictorOptions

    scores = api.evaluate(
        dataset,
        predictions[0] if len(predictions) == 1 else list(predictions),
        PredictorOptions(device=device, tta=tta, force=force, allow_import=allow_import or []),
        out=out,
        split=split,
        threshold_on=threshold_on,
        tolerance=tolerance,
        guide_batch=guide_batch,
        allow_missing=allow_missing,
        label_plan=label_plan,
        overwrite=overwrite,
        progress=shows_progress(),
    )
    columns, rows = console_table(scores)
    table("Mean over cases", columns, rows)
    for warning in scores.warnings:
        logger.warning("%s", warning)
    if out is not None:
        logger.info("Report: %s", out / "report.html")
