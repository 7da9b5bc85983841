"""``cpfnet train``: a dataset into a Model."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from cpfnet.cli.console import shows_progress
from cpfnet.cli.options import EARLIER, PLACE, PLAN, AllowImport, Dataset, Device, Settings


def train(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="MODEL", help="The Model folder to write.", show_default=False)
    ],
    plan: Annotated[
        Path | None, typer.Option(help="plan.yaml; default: what `cpfnet plan` proposes.", rich_help_panel=PLAN)
    ] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="Fold to validate on, from 0.", rich_help_panel=PLAN)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the plan's.", rich_help_panel=PLAN)] = None,
    settings: Settings = None,
    network: Annotated[str | None, typer.Option(help="cpfnet, cpfnet-hr, unet, …", rich_help_panel=PLAN)] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none (from scratch), or a file.", rich_help_panel=PLAN)
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            help="GPUs of each machine that share every batch; with --device cpu: processes.",
            rich_help_panel=PLACE,
        ),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines; start it by torchrun or srun.", rich_help_panel=PLACE)
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.", rich_help_panel=EARLIER)
    ] = False,
    init: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Fine-tune from this Model.", rich_help_panel=EARLIER)
    ] = None,
    first_stage: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="A Model of the first stage, where the plan has one; once for each fold.",
            rich_help_panel=EARLIER,
        ),
    ] = None,
    allow_import: AllowImport = None,
) -> None:
    """Train a Model and write a report beside it.

    Examples:

    - `cpfnet train data/ -o model`
    - `cpfnet train data/ -o model --plan plan.yaml --fold 1 --epochs 50`
    - `cpfnet train data/ -o model --weights none --set training.batch=8`
    - `cpfnet train data/ -o model --devices 4`
    - `cpfnet train data/ -o model --resume`
    """
    from cpfnet import api

    try:
        api.train(
            dataset,
            out,
            plan=plan,
            fold=fold,
            epochs=epochs,
            settings=settings or [],
            network=network,
            weights=weights,
            device=device,
            devices=devices,
            nodes=nodes,
            resume=resume,
            init=init,
            first_stage=first_stage or [],
            allow_import=allow_import or [],
            progress=shows_progress(),
        )
    except KeyboardInterrupt as stop:  # typer would make all of them 130
        raise typer.Exit(128 + getattr(stop, "number", signal.SIGINT)) from None
