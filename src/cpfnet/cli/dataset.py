"""``cpfnet check``, ``cpfnet plan`` and ``cpfnet convert``: what is done with a dataset without a Model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cpfnet.cli.console import line, put_json, shows_progress, table
from cpfnet.cli.options import PLACE, PLAN, AllowImport, AsJson, Dataset, Overwrite, Settings

logger = logging.getLogger(__name__)


def check(
    dataset: Dataset,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(metavar="PAGE", help="Also write a page with pictures of the worst cases.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read; default: one a core.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find every problem of a dataset, each with its fix. Exit code 1 if any is an error.

    Examples:

    - `cpfnet check data/`
    - `cpfnet check data/ --html check.html`
    - `cpfnet check dataset.yaml --json`
    """
    from cpfnet import api

    findings = api.check(
        dataset, html=html, workers=workers, progress=shows_progress() and not as_json, overwrite=overwrite
    )
    if as_json:
        put_json([finding.as_dict() for finding in findings])
    else:
        _print_findings(findings)
    if html is not None and not as_json:
        logger.info(f"Page: {html}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _print_findings(findings: list[Any]) -> None:
    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for severity, colour in colours.items():
        group = [finding for finding in findings if finding.severity == severity]
        if group:
            line(f"{len(group)} {severity}{'s' if len(group) > 1 else ''}", colour)
        for finding in group:
            lines = [f"  {finding.where}: {finding.what}"]
            lines += [
                f"    {name}: {len(cases)} case{'s' * (len(cases) > 1)} "
                f"({', '.join(cases[:6])}{' …' * (len(cases) > 6)})"
                for name, cases in finding.variants.items()
            ]
            line("\n".join([*lines, f"    → {finding.fix}"]))
    if not findings:
        line("Nothing found: the dataset is fine.", "green")


def plan(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to write the plan.")] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            help="ct mr pet fundus dermoscopy endoscopy microscopy oct xray ultrasound other; "
            "default: declared or guessed.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="Plan for this network.", rich_help_panel=PLAN)] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none (from scratch), or a file.", rich_help_panel=PLAN)
    ] = None,
    device: Annotated[
        str, typer.Option(help="What will train: auto, cpu, cuda or cuda:N.", rich_help_panel=PLACE)
    ] = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Plan for another machine: memory of its GPU, such as 24GiB (with --device cpu: main memory).",
            rich_help_panel=PLACE,
        ),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            help="Hours that training may take on the planned machine; default: as the data ask for.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    first_stage: Annotated[
        bool,
        typer.Option(
            "--first-stage",
            help="On a coarser grid, whose masks a plan with first_stage: true sees; for large volumes on a GPU.",
            rich_help_panel=PLAN,
        ),
    ] = False,
    mode: Annotated[
        Literal["2d", "3d"] | None,
        typer.Option(
            help="Plan volumes for slices (2d) or for 3d; default: what suits them and the machine.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    settings: Settings = None,
    preview: Annotated[
        Path | None, typer.Option(help="Write a PNG of 16 augmented samples with their masks here.")
    ] = None,
    allow_import: AllowImport = None,
    overwrite: Overwrite = False,
) -> None:
    """Fingerprint the data and propose a plan.yaml, with the reason beside each choice.

    Examples:

    - `cpfnet plan data/`
    - `cpfnet plan data/ -o plan.yaml --modality ct --preview samples.png`
    - `cpfnet plan data/ --memory 24GiB --hours 8` (for a GPU that is not in this machine)
    """
    from cpfnet import api

    out = out or Path("plan.yaml")
    proposed = api.plan(
        dataset,
        out=out,
        modality=modality,
        network=network,
        weights=weights,
        device=device,
        memory=memory,
        hours=hours,
        first_stage=first_stage,
        mode=mode,
        settings=settings or [],
        preview=preview,
        allow_import=allow_import or [],
        overwrite=overwrite,
        progress=shows_progress(),
    )
    spatial, classes, epochs = proposed.spatial, len(proposed.labels.classes), proposed.training.epochs
    logger.info(
        f"{out}: {proposed.modality} {proposed.source}, {classes} class{'es' * (classes != 1)}, {spatial.mode}, "
        f"patch {'×'.join(map(str, spatial.patch))}, network {proposed.network.name}, "
        f"{epochs} epoch{'s' * (epochs != 1)}"
    )
    if preview is not None:
        logger.info(f"{preview}: 16 augmented samples")
    logger.info(f"Next: read it, change what you like, then  cpfnet train {dataset} -o MODEL --plan {out}")


def convert(
    dataset: Dataset,
    to: Annotated[Literal["nnunet", "monai", "csv"], typer.Option("--to", help="Whom for.", show_default=False)],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="A new or empty folder to write.", show_default=False)
    ],
    plan: Annotated[
        Path | None,
        typer.Option(help="plan.yaml with the labels and folds; default: what is declared, else what `plan` proposes."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier conversion in DIR.")] = False,
) -> None:
    """Write a dataset for nnU-Net, MONAI or any tool that reads NIfTI and PNG. Exit code 1 if any case failed.

    Examples:

    - `cpfnet convert studies/ --to nnunet -o nnUNet_raw/Dataset101_Liver`
    - `cpfnet convert dataset.yaml --to csv -o liver --plan plan.yaml`
    """
    from cpfnet import api

    done = api.convert(dataset, out, to=to, plan=plan, overwrite=overwrite, progress=shows_progress())
    if done.failures:
        table(
            "Not converted",
            ["case", "why"],
            list(map(list, done.failures.items())),
            styles=["red"] * len(done.failures),
        )
    logger.info(f"{len(done.cases)} of {len(done.cases) + len(done.failures)} cases converted, in {done.folder}")
    if done.failures:
        raise typer.Exit(1)
