"""``cpfnet train``: a dataset into a Model."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cpfnet.cli.console import shows_progress, table
from cpfnet.cli.options import EARLIER, PLACE, PLAN, AllowImport, Dataset, Device, Settings
from cpfnet.errors import CpfnetError

if TYPE_CHECKING:
    from cpfnet.inference.cross_validation import CrossValidation


def train(
    dataset: Dataset,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="MODEL",
            help="The folder to write: a Model, or the folds.",
            show_default=False,
        ),
    ],
    plan: Annotated[
        Path | None, typer.Option(help="plan.yaml; default: what `cpfnet plan` proposes.", rich_help_panel=PLAN)
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="K|all",
            help="Fold to validate on, from 0; all: train on every case, as long as the folds in MODEL suggest, into "
            "MODEL/all.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    folds: Annotated[
        Literal["all"] | None,
        typer.Option(
            metavar="all",
            help="Cross-validate: train every fold, score each case by the Model that has not seen it; MODEL is then "
            "an ensemble.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    configurations: Annotated[
        Literal["all"] | None,
        typer.Option(
            metavar="all",
            help="With --folds all: cross-validate volumes in 2-D and in 3-D, into MODEL/2d and MODEL/3d; MODEL then "
            "stands for the better one, or both.",
            rich_help_panel=PLAN,
        ),
    ] = None,
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
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Folds at once: they divide the processor's threads, and take turns on the GPUs.",
            rich_help_panel=PLACE,
        ),
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
            help="The first stage, where the plan has one: the folder of its folds, or its Models one by one.",
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
    - `cpfnet train data/ -o cv --folds all --jobs 2`
    - `cpfnet train data/ -o both --folds all --configurations all`
    - `cpfnet train data/ -o model --devices 4`
    - `cpfnet train data/ -o model --resume`
    """
    from cpfnet import api

    chosen = _fold(fold)
    common: dict[str, Any] = {
        "settings": settings or [],
        "network": network,
        "weights": weights,
        "device": device,
        "init": init,
        "allow_import": allow_import or [],
        "progress": shows_progress(),
    }
    try:
        if folds is None:
            _check_alone(jobs, configurations)
            api.train(
                dataset,
                out,
                plan=plan,
                fold=chosen,
                epochs=epochs,
                devices=devices,
                nodes=nodes,
                resume=resume,
                first_stage=first_stage or [],
                **common,
            )
            return
        _check_together(chosen, devices, nodes, first_stage or [])
        if configurations is not None:
            _check_configurations(chosen, plan, common.pop("init"))
            several = api.compare_configurations(dataset, out, jobs=jobs, epochs=epochs, resume=resume, **common)
            for one in several.chosen:
                _print_folds(one, f"Out of fold, {one.plan.spatial.mode}, mean over cases")
            return
        _print_folds(api.cross_validate(dataset, out, plan=plan, jobs=jobs, epochs=epochs, resume=resume, **common))
        if chosen == "all":
            begun = (out / "all").exists()
            kept = {name: common[name] for name in ("device", "init", "allow_import", "progress")}
            api.train(dataset, out, fold=chosen, resume=begun, **kept)
    except KeyboardInterrupt as stop:  # typer would make all of them 130
        raise typer.Exit(128 + getattr(stop, "number", signal.SIGINT)) from None


def _fold(text: str | None) -> int | Literal["all"] | None:
    if text is None or text == "all":
        return text  # type: ignore[return-value]
    if not text.isdecimal():
        raise CpfnetError(f"{text!r} is no fold", where="--fold", fix="give its number, from 0, or all")
    return int(text)


def _check_alone(jobs: int, configurations: str | None) -> None:
    if configurations is not None:
        what = "configurations are compared out of fold, and one Model is trained"
        raise CpfnetError(what, where="--configurations all", fix="add --folds all")
    if jobs > 1:
        raise CpfnetError(f"{jobs} folds at once, and one Model is trained", where="--jobs", fix="add --folds all")


def _check_together(fold: int | str | None, devices: int, nodes: int, first_stage: list[Path]) -> None:
    if isinstance(fold, int):
        raise CpfnetError(f"every fold, and fold {fold} alone", where="--folds all", fix="leave out one of the two")
    if first_stage:
        raise CpfnetError(
            "a second stage is not cross-validated in one command",
            where="--first-stage",
            fix="train its folds one by one: --fold 0 --first-stage MODEL …",
        )
    if devices > 1 or nodes > 1:
        raise CpfnetError(
            "folds share no batches: each is trained on one device",
            where="--folds all",
            fix="train several at once (--jobs), each on a device of its own; or fold by fold, with --fold K --devices",
        )


def _check_configurations(fold: str | int | None, plan: Path | None, init: Path | None) -> None:
    if plan is not None:
        raise CpfnetError("one plan, and each configuration has its own", where="--plan", fix="leave it out")
    if init is not None:
        raise CpfnetError(
            "one Model, and a 2-D and a 3-D network cannot both start from its weights",
            where="--init",
            fix="leave it out; or cross-validate the one configuration that it is of, without --configurations",
        )
    if fold is not None:
        raise CpfnetError(
            "a Model of all cases follows the folds of one configuration",
            where="--fold all",
            fix="leave it out; then, for the better one: cpfnet train DATASET -o MODEL/3d --fold all",
        )


def _print_folds(found: CrossValidation, title: str = "Out of fold, mean over cases") -> None:
    from cpfnet.evaluation.tables import fold_table

    columns, rows = fold_table(found.scores, found.folds)
    best = [f"{model.fitted.epochs} of {found.plan.training.epochs}" for model in found.models]
    with_best = [[*row, epoch] for row, epoch in zip(rows, [*best, ""], strict=True)]
    table(title, [*columns, "best epoch"], with_best)
